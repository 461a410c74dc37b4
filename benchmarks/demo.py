"""What `blemish demo` finds and how long it takes, over several seeds.

    python benchmarks/demo.py --out benchmarks/results/demo.json

Each run is a process of its own, so that its time holds everything from start to report. A processor without
bfloat16 is imitated by limiting the instructions that torch may use:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/demo.py --out benchmarks/results/demo.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from blemish.demo.generated import FAMILIES
from blemish.demo.run import DEFAULT_FAMILY
from blemish.inspection.document import versions
from blemish.training.device import choose_machine

LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")


def run(family: str, seed: int) -> dict[str, Any]:
    """One demo from start to report: its figures, wall seconds, and processor seconds of all its threads."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "blemish", "demo", "--family", family, "--seed", str(seed)]
        load = os.getloadavg()[0]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            [*command, "--out", folder, "--json"], stdout=subprocess.PIPE, text=True, check=True
        )
        wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = json.loads(done.stdout)
    demo = figures["demo"]
    rejects = figures["false_rejects"]
    return {
        "seed": seed,
        "found": demo["found"],
        "defective": demo["defective"],
        "found_by_kind": {
            kind: round(image["figures"]["bad_rejected"]["value"] * image["defective"])
            for kind, image in figures["image"].items()
            if kind != "all"
        },
        "rejected": demo["rejected"],
        "good": demo["good"],
        "promised": rejects["promised"],
        "allowed": [round(rejects["low"], 4), round(rejects["high"], 4)],
        "within_promise": rejects["within"],
        "image_auroc": round(figures["image"]["all"]["figures"]["auroc"]["value"], 4),
        "pixel_auroc": round(figures["pixel"]["auroc"], 4),
        "baselines_found": {one["name"]: one["found"] for one in demo["baselines"]},
        "baselines_auroc": {one["name"]: round(one["auroc"], 3) for one in demo["baselines"]},
        "wall_seconds": round(wall, 1),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "training_seconds": round(figures["training"]["seconds"], 1),
        "load_before": round(load, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", default=DEFAULT_FAMILY, choices=FAMILIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    runs = []
    for seed in options.seeds:
        runs.append(run(options.family, seed))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    found, defective, rejected, good = (
        sum(one[key] for one in runs) for key in ("found", "defective", "rejected", "good")
    )
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "environment": {name: os.environ[name] for name in LIMITS if name in os.environ},
        "family": options.family,
        "machine": str(choose_machine("cpu")),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": versions(),
        "summary": {
            "found": found,
            "defective": defective,
            "share_found": round(found / defective, 4),
            "least_share_found": round(min(one["found"] / one["defective"] for one in runs), 4),
            "rejected": rejected,
            "good": good,
            "share_rejected": round(rejected / good, 4),
            "most_wall_seconds": max(one["wall_seconds"] for one in runs),
            "most_processor_seconds": max(one["processor_seconds"] for one in runs),
        },
        "runs": runs,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
