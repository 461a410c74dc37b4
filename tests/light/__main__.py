"""Inspection without torch: the built wheel in a fresh environment, away from the checkout.

python -m tests.light [--out benchmarks/results/light.json]

Fits and exports a small model of the default recipe here, installs the wheel alone elsewhere, and inspects, evaluates and
calibrates there; then, with the extra ``serve``, serves it. Fails where torch is importable, a command fails, or a score or
decision differs. Prints the size of the environment by package and the time of a cold start to the first decision.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "image.size=96",
    "patch.size=32",
    "patch.stride=32",
    "training.budget=null",
    "training.steps=20",
    "training.validate_every=20",
)
RATE = 0.2
TOLERANCE = 1e-4
"""Largest difference of a score from torch, relative."""
ABSENT = ("torch", "onnx", "openvino", "lightning", "matplotlib")
NAMED = 8
"""Packages that are named by size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="cold starts that are timed")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blemish-light-") as folder:
        away = Path(folder)
        expected = _exported_model(away)
        python, install = _environment(away)
        _check_absent(python, away)
        _check_answers(python.with_name("blemish"), away, expected)
        result = {
            "command": shlex.join(["python", "-m", "tests.light", *sys.argv[1:]]),
            "processor": _processor(),
            "environment": _sizes(python),
            "cold_start": _cold_start(python.with_name("blemish"), away, options.rounds),
        }
        install("[serve]")
        _check_absent(python, away)
        _check_server(python.with_name("blemish"), away, expected)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(_markdown(result), encoding="utf-8")


def _exported_model(away: Path) -> dict[str, dict[str, Any]]:
    """Write images, a model and its export into ``away``; what torch says of each test image."""
    from blemish.evaluation.evaluate import evaluate
    from blemish.export.export_model import export_model
    from blemish.inspection.detector import load
    from blemish.training.fit import fit

    for part, count in (("train/good", 24), ("test/good", 4), ("test/spot", 4)):
        for seed in range(count):
            path = away / "images" / part / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_drawn(hash_of(part) + seed, spot="spot" in part)).save(path)
    good = away / "images" / "train" / "good"
    fit(good, settings=SETTINGS, false_reject_rate=RATE, out=away / "fitted")
    export_model(away / "fitted", away / "model", images=good)
    detector = load(away / "fitted")
    evaluate(detector, away / "images", out=away / "evaluated-torch")
    found = {}
    for path in sorted((away / "images" / "test").rglob("*.png")):
        one = detector.inspect(path)
        found[str(path.relative_to(away / "images" / "test"))] = {
            "score": one.score,
            "is_anomalous": bool(one.is_anomalous),
        }
    return found


def hash_of(part: str) -> int:
    """A number of its own for each part."""
    return 1000 * sum(map(ord, part))


def _drawn(seed: int, *, spot: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :113]
    waves = np.sin(x / 6 + 6 * rng.random()) * np.sin(y / 5 + 6 * rng.random())
    values = 128 + 45 * waves + rng.normal(0, 4, waves.shape)
    if spot:
        values[30:46, 50:70] = 250
    return np.clip(values, 0, 255).astype(np.uint8)


def _environment(away: Path) -> tuple[Path, Callable[[str], None]]:
    """Python of a fresh environment that holds the wheel and what it asks for; and what installs extras there."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", away / "wheel", ROOT], away)
    (wheel,) = (away / "wheel").glob("blemish-*.whl")
    _run([sys.executable, "-m", "venv", "--without-pip", away / "env"], away)
    python = away / "env" / "bin" / "python"
    pins = ["-c", ROOT / "constraints.txt"] if sys.version_info >= (3, 11) else []

    def install(extras: str = "") -> None:
        _run([*pip, "--python", python, "install", *pins, f"{wheel}{extras}"], away)

    install()
    return python, install


def _check_absent(python: Path, away: Path) -> None:
    code = f"import importlib.util as u, sys; sys.exit(any(map(u.find_spec, {ABSENT!r})))"
    _run([python, "-I", "-c", code], away)


def _check_answers(blemish: Path, away: Path, expected: dict[str, dict[str, Any]]) -> None:
    """Compare records, figures and the threshold of another calibration with torch's."""
    _run([blemish, "inspect", "model", "images/test", "--out", "found"], away)
    records = [json.loads(line) for line in (away / "found" / "inspections.jsonl").read_text().splitlines()]
    assert len(records) == len(expected), records
    for record in records:
        own = expected[record["path"]]
        assert abs(record["score"] - own["score"]) <= TOLERANCE * own["score"], (record, own)
        assert record["is_anomalous"] == own["is_anomalous"], (record, own)
    assert (away / "found" / "report.html").is_file()
    _run([blemish, "evaluate", "model", "images", "--out", "evaluated"], away)
    one, other = (
        json.loads((away / name / "evaluation.json").read_text())["image"]["all"]["figures"]
        for name in ("evaluated-torch", "evaluated")
    )
    for figure in one:
        assert abs(one[figure]["value"] - other[figure]["value"]) <= TOLERANCE, (figure, one, other)
    _run([blemish, "calibrate", "model", "images/train/good", "--out", "again"], away)
    thresholds = [_threshold(blemish, away, name) for name in ("model", "again")]
    assert abs(thresholds[0] - thresholds[1]) <= TOLERANCE * thresholds[0], thresholds
    print(f"{len(records)} images have the scores and decisions of torch, without torch", file=sys.stderr)


def _check_server(blemish: Path, away: Path, expected: dict[str, dict[str, Any]]) -> None:
    """Compare decisions of the server with torch's."""
    words = [str(blemish), "serve", "model", "--home", "line", "--port", "0"]
    server = subprocess.Popen(
        words, cwd=away, env=_free(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = next((word for word in line.split() if word.startswith("http://")), None)
        if address is None:
            server.kill()
            raise SystemExit(f"{shlex.join(words)} did not start: {line}{server.communicate()[1]}")
        for name, own in expected.items():
            content = (away / "images" / "test" / name).read_bytes()
            request = urllib.request.Request(f"{address.rstrip(';')}/api/inspect", content)
            request.add_header("Content-Type", "image/png")
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                record = json.load(answer)["results"][0]["record"]
            assert abs(record["score"] - own["score"]) <= TOLERANCE * own["score"], (record, own)
            assert record["is_anomalous"] == own["is_anomalous"], (record, own)
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0, server.returncode
    print(
        f"{len(expected)} images have the scores and decisions of torch, served without torch",
        file=sys.stderr,
    )


def _threshold(blemish: Path, away: Path, model: str) -> float:
    image = "images/test/good/0.png"
    ran = _run([blemish, "inspect", model, image, "--out", f"found-{model}", "--json"], away)
    threshold: float = json.loads((away / f"found-{model}" / "inspections.jsonl").read_text())["threshold"]
    assert ran.stdout
    return threshold


def _sizes(python: Path) -> dict[str, Any]:
    """Megabytes of an environment, all of it and of its largest packages."""
    (packages,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    sizes: dict[str, int] = {}
    for path in packages.iterdir():
        # Shared libraries lie beside a package, in a folder named after it.
        name = path.name.removesuffix(".libs")
        sizes[name] = sizes.get(name, 0) + _bytes(path)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:NAMED]
    return {
        "megabytes": round(sum(sizes.values()) / 1e6),
        "largest": {name: round(size / 1e6) for name, size in largest},
    }


def _markdown(result: dict[str, Any]) -> str:
    """The figures as a table."""
    size, start = result["environment"], result["cold_start"]["first decision"]
    largest = ", ".join(f"{name} {value}" for name, value in size["largest"].items())
    return (
        f"`{result['command']}`, on {result['processor']}:\n\n| figure | value |\n|---|---|\n"
        f"| environment of `pip install blemish` | {size['megabytes']} MB, of these {largest} |\n"
        f"| cold start to the first decision, a process that imports, loads and inspects | {start['median']:.2f} s, "
        f"median of {start['runs']} (least {start['min']:.2f}) |\n"
    )


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.lstat().st_size for one in files if one.is_file())


def _cold_start(blemish: Path, away: Path, rounds: int) -> dict[str, Any]:
    """Seconds of whole processes: of one that inspects one image, and of one that prints the version."""
    image = "images/test/good/0.png"
    commands = {
        "first decision": "import blemish; print(blemish.load('model').inspect({image!r}).is_anomalous)",
        "bare interpreter": "pass",
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(rounds + 1):
        for name, code in commands.items():
            begun = time.perf_counter()
            _run([blemish.with_name("python"), "-c", code.format(image=image)], away)
            if round_:  # the first round fills the file cache
                seconds[name].append(time.perf_counter() - begun)
    return {
        name: {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "runs": rounds}
        for name, values in seconds.items()
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{os.cpu_count()} cores"


def _run(command: list[Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command away from the checkout.

    Raises
    ------
    SystemExit
        When it fails, with what it printed.
    """
    ran = subprocess.run(list(map(str, command)), cwd=folder, env=_free(), capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(
            f"{shlex.join(map(str, command))} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"
        )
    return ran


def _free() -> dict[str, str]:
    """Environment of processes that are to find nothing of the checkout."""
    free = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**free, "COLUMNS": "200"}


if __name__ == "__main__":
    main()
