"""Record the figures of tiny seeded runs, and compare a later state of the code with them bit for bit.

    python benchmarks/golden.py --out benchmarks/results/golden.json
    python benchmarks/golden.py --check benchmarks/results/golden.json
    python benchmarks/golden.py --check benchmarks/results/golden.json --only recipe/ssim-ae

For changes that must not alter any result. Only the public functions, the command line and written files are used, so
that modules and classes may move and be renamed. Input images are drawn from seeds. Weights are compared as the set of
their tensors, whatever these are called. Prose, times and versions are left out.

Sums in floating point depend on the CPU and on the version of torch, so figures are equal on one machine only.
On another machine, --check compares only the cases under ``jpeg/``, the files of the codec.
"""

from __future__ import annotations

import os

# Read when numpy and torch are loaded: the order of a sum depends on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from golden_cases import Case, Cases

PORTABLE = "jpeg/"
"""Cases that give the same on every machine."""
PACKAGES = ("numpy", "scipy", "pillow", "torch", "torchvision", "numba", "zarr")


def machine() -> dict[str, Any]:
    """Hardware and package versions that figures depend on."""
    file = Path("/proc/cpuinfo")
    pairs = [line.partition(":") for line in file.read_text().splitlines()] if file.exists() else []
    cpu = {key.strip(): value.strip() for key, _, value in pairs}
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "cpu model": [cpu.get(key) for key in ("cpu family", "model", "stepping")],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def run(name: str, case: Case) -> Any:
    begun = time.perf_counter()
    print(name, end=" ", file=sys.stderr, flush=True)
    figures = case()
    print(f"{time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    return json.loads(json.dumps(figures, allow_nan=False))


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every single figure and its dotted key."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def differences(name: str, before: Any, after: Any) -> list[str]:
    old, new = dict(leaves(before)), dict(leaves(after))
    return [
        f"{name}: {key}: {old.get(key, 'absent')} → {new.get(key, 'absent')}"
        for key in {**old, **new}
        if key not in old or key not in new or old[key] != new[key]
    ]


def check(cases: dict[str, Case], recorded: dict[str, Any], only: str) -> int:
    """Compare, and return how many figures differ."""
    here = machine()
    wanted = {name: figures for name, figures in recorded["cases"].items() if name.startswith(only)}
    apart = differences("machine", recorded["machine"], here)
    if apart:
        print(*apart, f"Another machine: only {PORTABLE} is compared.", sep="\n", file=sys.stderr)
        wanted = {name: figures for name, figures in wanted.items() if name.startswith(PORTABLE)}
    if not wanted:
        sys.exit(f"--only {only}: no case to compare")
    found: list[str] = []
    for name, before in wanted.items():
        if name not in cases:
            lines = [f"{name}: recorded → no such case"]
        else:
            try:
                lines = differences(name, before, run(name, cases[name]))
            except Exception as error:  # a case that fails must not hide what the others say
                traceback.print_exc()
                lines = [f"{name}: recorded → {type(error).__name__}: {error}"]
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)
        found += lines
    for name in cases:
        if name.startswith(only) and name not in recorded["cases"]:
            print(f"{name}: not recorded, so not compared", file=sys.stderr)
    print(f"{len(wanted)} cases compared, {len(found)} figures differ")
    return len(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, help="file to write")
    action.add_argument("--check", type=Path, help="file of an earlier state to compare with")
    parser.add_argument("--only", default="", metavar="PREFIX", help="of the names of cases")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    # No pretrained weights that one machine has and another has not.
    os.environ["BLEMISH_WEIGHTS"] = os.environ["TORCH_HOME"] = str(folder / "none")
    (folder / "none").mkdir()
    try:
        cases = Cases(folder).all()
        if asked.check:
            sys.exit(min(1, check(cases, json.loads(asked.check.read_text(encoding="utf-8")), asked.only)))
        figures = {name: run(name, case) for name, case in cases.items() if name.startswith(asked.only)}
        text = json.dumps({"machine": machine(), "cases": figures}, indent=1, ensure_ascii=False)
        temporary = asked.out.with_name(f".{asked.out.name}.part")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(asked.out)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
