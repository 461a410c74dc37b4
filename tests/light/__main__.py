"""Inspection without torch: the built wheel in fresh environments, away from the checkout.

make dist; python -m tests.light [--python 3.10,3.11,3.12,3.13] [--demo] [--out benchmarks/results/light.json]

Fits and exports a small model of the default recipe here, installs the wheel alone elsewhere, and inspects, evaluates and
calibrates there; then, with the extra ``serve``, serves it. Fails where torch is importable, a command fails, or a score or
decision differs, or where the sdist gives another wheel. Prints the size of the environment by package and the time of a cold
start to the first decision. ``--python`` does so in an environment of each version that is found (on the path, or of
pyenv) and names those that are not; the first gets the wheel and the server, the others are installed from the sdist.
Requirements are those of ``requirements/core.txt`` with their hashes, on a Python that has a lock. ``--demo`` also installs
torch in the first environment and runs ``blemish demo`` there.
"""

from __future__ import annotations

import argparse
import calendar
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
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
    parser.add_argument("--python", default=_version(sys.version_info), help="versions, by commas")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of wheel and sdist")
    parser.add_argument("--demo", action="store_true", help="run blemish demo, with torch")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    wheel, sdist = (_only(options.dist.resolve(), pattern) for pattern in ("*.whl", "*.tar.gz"))
    result: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "tests.light", *sys.argv[1:]]),
        "processor": _processor(),
        "pythons": {},
    }
    with tempfile.TemporaryDirectory(prefix="blemish-light-") as folder:
        away = Path(folder)
        expected = _exported_model(away)
        _check_sdist(wheel, sdist, away)
        for version in options.python.split(","):
            interpreter = find_python(version)
            if interpreter is None:
                print(f"Python {version} is skipped: neither on the path nor of pyenv", file=sys.stderr)
                result["pythons"][version] = "not found"
                continue
            is_first = "environment" not in result
            environment = Environment(interpreter, away / f"env-{version}")
            place = away / version
            place.mkdir()
            environment.install(wheel if is_first else sdist)
            _check_absent(environment.python, place)
            _check_answers(environment.blemish, place, expected)
            result["pythons"][version] = f"inspects, from the {'wheel' if is_first else 'sdist'}"
            print(f"Python {version}: {result['pythons'][version]}", file=sys.stderr)
            if is_first:
                result["environment"] = _sizes(environment.python)
                result["cold_start"] = _cold_start(environment.blemish, place, options.rounds)
                environment.install_extra(wheel, "serve")
                _check_absent(environment.python, place)
                _check_server(environment.blemish, place, expected)
                if options.demo:
                    environment.install_extra(wheel, "train")
                    _run([environment.blemish, "demo", "--out", "demo"], place)
                    assert (place / "demo").is_dir()
                    result["pythons"][version] += "; blemish demo runs, with torch"
            else:
                shutil.rmtree(environment.folder)
    assert "environment" in result, "no Python was found"
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(_markdown(result), encoding="utf-8")


def _version(info: Any) -> str:
    return f"{info[0]}.{info[1]}"


def _only(folder: Path, pattern: str) -> Path:
    """The one file of a pattern in the folder of a build.

    Raises
    ------
    SystemExit
        When there is none, or several.
    """
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{folder}: has {len(found)} files {pattern}; build with make dist")
    return found[0]


def find_python(version: str) -> Path | None:
    """Interpreter of a version such as ``3.12``, with the module ``venv``; None where none is found."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # By pyenv a program of each version may be on the path that only says that it is not chosen.
    found = sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)
    on_path = shutil.which(f"python{version}")
    own = [Path(sys.executable)] if version == _version(sys.version_info) else []
    for path in [*own, *found, *([Path(on_path)] if on_path else [])]:
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        ran = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if ran.returncode == 0 and ran.stdout.strip() == version:
            return path
    return None


class Environment:
    """A fresh environment without pip, which that of this Python fills."""

    def __init__(self, interpreter: Path, folder: Path) -> None:
        self.folder = folder
        _run([interpreter, "-m", "venv", "--without-pip", folder], folder.parent)
        self.python, self.blemish = folder / "bin" / "python", folder / "bin" / "blemish"
        code = "import sys; print(sys.version_info >= (3, 11, 5))"
        self._has_lock = _run([self.python, "-c", code], folder).stdout.strip() == "True"

    def install(self, built: Path) -> None:
        """Install a wheel or an sdist with what the core asks for, by the hashes of its lock where there is one."""
        if self._has_lock:
            self._pip("--require-hashes", "-r", ROOT / "requirements" / "core.txt")
            self._pip("--no-deps", built)
        else:
            self._pip(built)

    def install_extra(self, wheel: Path, extra: str) -> None:
        """Add what an extra asks for."""
        self._pip(*(["-c", ROOT / "constraints.txt"] if self._has_lock else []), f"{wheel}[{extra}]")

    def _pip(self, *words: Any) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", self.python]
        _run([*pip, "install", *words], self.folder)


def _check_sdist(wheel: Path, sdist: Path, away: Path) -> None:
    """Build the wheel again from the sdist, which must give the very same file."""
    with zipfile.ZipFile(wheel) as archive:
        built = max(entry.date_time for entry in archive.infolist())
    epoch = str(calendar.timegm(built))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", away / "again", sdist], away, SOURCE_DATE_EPOCH=epoch)
    again = _only(away / "again", "*.whl")
    assert again.name == wheel.name, (again, wheel)
    assert again.read_bytes() == wheel.read_bytes(), f"{sdist} gives another wheel than {wheel}"
    print(f"{sdist.name} gives {wheel.name} again, byte for byte", file=sys.stderr)


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


def _check_absent(python: Path, away: Path) -> None:
    code = f"import importlib.util as u, sys; sys.exit(any(map(u.find_spec, {ABSENT!r})))"
    _run([python, "-I", "-c", code], away)


def _check_answers(blemish: Path, away: Path, expected: dict[str, dict[str, Any]]) -> None:
    """Compare records, figures and the threshold of another calibration with torch's."""
    _run([blemish, "inspect", "../model", "../images/test", "--out", "found"], away)
    records = [json.loads(line) for line in (away / "found" / "inspections.jsonl").read_text().splitlines()]
    assert len(records) == len(expected), records
    for record in records:
        own = expected[record["path"]]
        assert abs(record["score"] - own["score"]) <= TOLERANCE * own["score"], (record, own)
        assert record["is_anomalous"] == own["is_anomalous"], (record, own)
    assert (away / "found" / "report.html").is_file()
    _run([blemish, "evaluate", "../model", "../images", "--out", "evaluated"], away)
    one, other = (
        json.loads((name / "evaluation.json").read_text())["image"]["all"]["figures"]
        for name in (away.parent / "evaluated-torch", away / "evaluated")
    )
    for figure in one:
        assert abs(one[figure]["value"] - other[figure]["value"]) <= TOLERANCE, (figure, one, other)
    _run([blemish, "calibrate", "../model", "../images/train/good", "--out", "again"], away)
    thresholds = [_threshold(blemish, away, name) for name in ("../model", "again")]
    assert abs(thresholds[0] - thresholds[1]) <= TOLERANCE * thresholds[0], thresholds
    print(f"{len(records)} images have the scores and decisions of torch, without torch", file=sys.stderr)


def _check_server(blemish: Path, away: Path, expected: dict[str, dict[str, Any]]) -> None:
    """Compare decisions of the server with torch's."""
    words = [str(blemish), "serve", "../model", "--home", "line", "--port", "0"]
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
            content = (away.parent / "images" / "test" / name).read_bytes()
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
    image, out = "../images/test/good/0.png", f"found-{Path(model).name}"
    ran = _run([blemish, "inspect", model, image, "--out", out, "--json"], away)
    threshold: float = json.loads((away / out / "inspections.jsonl").read_text())["threshold"]
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
    image = "../images/test/good/0.png"
    commands = {
        "first decision": "import blemish; print(blemish.load('../model').inspect({image!r}).is_anomalous)",
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


def _run(command: list[Any], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command away from the checkout.

    Raises
    ------
    SystemExit
        When it fails, with what it printed.
    """
    ran = subprocess.run(
        list(map(str, command)), cwd=folder, env=_free() | environment, capture_output=True, text=True
    )
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
