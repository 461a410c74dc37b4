"""Memory that the inspection of one large image takes, beside what the process has before.

    python benchmarks/memory.py --out benchmarks/results/memory.json

On a generated RGB image of 8000 × 6000 pixels: reading, map, overlay, reconstruction, record and report. With threshold 0
every pixel belongs to a region, which takes the most. The models: `ssim-ae` that resizes to 256 pixels; the default recipe
at default settings but for a short training, fitted on images of 800 × 600 pixels and on bolts that it brings into one pose;
and the default recipe with the extractor `colour` beside `structure`.
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
from PIL import Image, ImageDraw

from blemish.inspection.detector import Detector
from blemish.inspection.folder import inspect_folder
from blemish.training.fit import fit

SHORT = ["training.steps=4", "training.batch=4", "image.scale=each", "image.other_kinds=accept"]
"""A common scale would make the large image one of 2560 × 1920 pixels to the model, and not of 256."""
MODELS = {
    "ssim-ae": ("ssim-ae", ["image.size=256"]),
    "blemish": ("blemish", ["training.budget=null"]),
    "blemish, with colour": (
        "blemish",
        ["training.budget=null", "memory={name: features, features: [{name: structure}, {name: colour}]}"],
    ),
    "blemish, bolts in one pose": ("blemish", ["training.budget=null"]),
}


def textures(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Noise of a coarse grain."""
    return Image.fromarray(rng.integers(100, 140, (60, 80, 3), np.uint8)).resize(size)


def bolts(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A bolt that lies anyhow on a plain ground."""
    image = Image.new("RGB", (800, 600), (200, 200, 205))
    draw = ImageDraw.Draw(image)
    draw.rectangle([200, 240, 300, 360], fill=(90, 85, 80))
    draw.rectangle([300, 270, 600, 330], fill=(110, 105, 100))
    turned = image.rotate(float(rng.uniform(0, 360)), fillcolor=(200, 200, 205))
    noise = rng.normal(0, 2, (600, 800, 3))
    return Image.fromarray(np.clip(np.asarray(turned) + noise, 0, 255).astype(np.uint8)).resize(size)


WIDTH, HEIGHT = 8000, 6000


def resident() -> float:
    """Bytes of memory that the process holds."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * float(line.split()[1])
    raise SystemExit("runs on Linux alone")


def inspected(detector: Detector, large: Path, out: Path) -> dict[str, float]:
    """Peak of the memory of one inspection, above what there was before, and its seconds."""
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
    parser.add_argument("--only", action="append", choices=MODELS)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, draw in (("textures", textures), ("bolts", bolts)):
            (folder / name).mkdir()
            for number in range(44):
                draw(rng, (800, 600)).save(folder / name / f"{number}.png")
            draw(rng, (WIDTH, HEIGHT)).save(folder / f"{name}.png")
        found = {}
        for model, (recipe, settings) in MODELS.items():
            if options.only and model not in options.only:
                continue
            kind = "bolts" if "bolts" in model else "textures"
            detector = fit(folder / kind, recipe, settings=[*SHORT, *settings], false_reject_rate=0.2)
            assert (detector.file.preprocessing.crop is not None) == (kind == "bolts")
            found[model] = {
                name: inspected(
                    detector.with_threshold(threshold), folder / f"{kind}.png", folder / f"{model} {name}"
                )
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
