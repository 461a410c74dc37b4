"""Memory that the inspection of one large image takes, beside what the process has before.

    python benchmarks/memory.py --out benchmarks/results/memory.json

A model of `ssim-ae` that resizes to 256 pixels, on a generated RGB image of 8000 × 6000 pixels: reading, map, overlay,
reconstruction, record and report. With threshold 0 every pixel belongs to a region, which takes the most.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.inspection.folder import inspect_folder
from blemish.training.fit import fit

SETTINGS = [
    "training.steps=4",
    "training.batch=4",
    "image.size=256",
    "image.scale=each",
    "image.other_kinds=accept",
]
WIDTH, HEIGHT = 8000, 6000


def resident() -> float:
    """Bytes of memory that the process holds."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * float(line.split()[1])
    raise SystemExit("runs on Linux alone")


def inspected(threshold: float, good: Path, large: Path, out: Path) -> dict[str, float]:
    """Peak of the memory of one inspection, above what there was before, and its seconds."""
    detector = fit(good, "ssim-ae", settings=SETTINGS, false_reject_rate=0.2).with_threshold(threshold)
    before, peak = resident(), [0.0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    inspect_folder(detector, large, out)
    seconds = time.perf_counter() - begun
    ended.set()
    watcher.join()
    taken = peak[0] - before
    return {
        "gigabytes_before": round(before / 1e9, 2),
        "gigabytes": round(taken / 1e9, 2),
        "bytes_a_pixel": round(taken / (WIDTH * HEIGHT), 1),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "good").mkdir()
        for number in range(44):
            coarse = Image.fromarray(rng.integers(100, 140, (60, 80, 3), np.uint8))
            coarse.resize((800, 600)).save(folder / "good" / f"{number}.png")
        coarse.resize((WIDTH, HEIGHT)).save(folder / "large.png")
        found = {
            name: inspected(threshold, folder / "good", folder / "large.png", folder / name)
            for name, threshold in (("accepted", 1e6), ("rejected, all of it", 0.0))
        }
    text = json.dumps(
        {"command": shlex.join(["python", *sys.argv]), "width": WIDTH, "height": HEIGHT, "inspection": found},
        indent=2,
    )
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
