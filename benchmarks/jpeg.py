"""Time and memory of jpeg-blemish, beside mozjpeg and Pillow.

    python benchmarks/jpeg.py --out benchmarks/results/jpeg.json [--images FOLDER] [--large]

Every round encodes an image once with each contender, one after the other, so that a ratio within a round holds
when the machine's speed drifts; all at the same quality setting, whose sizes are noted beside. Without --images
one of 768 × 512 is generated that has a photograph's spectrum. Memory is the peak of a process that reads a PNG,
encodes it and writes the JPEG, less what the process had after a small image; --large adds 100 megapixels to
the sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.jpeg.benchmark.baselines import find_baselines
from blemish.jpeg.distortion import TUNES, Tune
from blemish.jpeg.encoder import Encoder
from blemish.jpeg.source_image import read_source

Pixels = NDArray[np.uint8]
Timed = dict[str, list[float]]

QUALITIES = (50, 75, 90)
BESIDE = ("mozjpeg", "mozjpeg-psnr", "pillow-420")
AT_MOST = {"mozjpeg": 2.5}
"""Goal of the project: encode time beside mozjpeg with its own, fixed tables."""

SIDES = (2000, 4000, 6000)
LARGE = 10_000
LIBRARIES = (
    "blemish",
    "jpeglib",
    "mozjpeg-lossless-optimization",
    "numba",
    "numpy",
    "pillow",
    "pyvips-binary",
)


def photograph(height: int, width: int, seed: int = 0) -> Pixels:
    """(height, width, 3): noise of which every octave has the same contrast, more of it in luma, and some edges."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120.0, np.float32)
    for octave in range(2, 10):
        rows, columns = (max(side >> 10 - octave, 2) for side in (height, width))
        grey = rng.normal(0, 13, (rows, columns))
        for channel in range(3):
            coarse = Image.fromarray((grey + rng.normal(0, 4, (rows, columns))).astype(np.float32))
            image[..., channel] += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:height, :width] / min(height, width)
    for _ in range(8):
        angle, place = rng.uniform(0, np.pi), rng.uniform(-1, 1)
        beyond = np.cos(angle) * x + np.sin(angle) * y > place
        image += beyond[..., None] * rng.normal(0, 12, 3).astype(np.float32)
    image += rng.normal(0, 2, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def contenders() -> tuple[dict[str, Callable[[Pixels, int], bytes]], dict[str, str]]:
    """Encoders by name, and what each of the others is."""
    ours = Encoder()

    def tuned(tune: Tune) -> Callable[[Pixels, int], bytes]:
        return lambda pixels, quality: ours.encode(pixels, quality=quality, tune=tune).data

    anchors = [anchor for anchor in find_baselines()[0] if anchor.name in BESIDE]
    encoders: dict[str, Callable[[Pixels, int], bytes]] = {anchor.name: anchor.encode for anchor in anchors}
    encoders |= {f"blemish-{tune}": tuned(tune) for tune in TUNES}
    return encoders, {anchor.name: getattr(anchor, "description", "") for anchor in anchors}


def speed(images: dict[str, Pixels], rounds: int) -> dict[str, object]:
    """Milliseconds, bits per pixel, and times beside the anchors, by quality and encoder."""
    encoders, descriptions = contenders()
    results: dict[str, object] = {"anchors": descriptions}
    for quality in QUALITIES:
        wall: Timed = {name: [] for name in encoders}
        work: Timed = {name: [] for name in encoders}
        bits: dict[str, float] = dict.fromkeys(encoders, 0.0)
        for pixels in images.values():
            for name, encode in encoders.items():  # compiles, and warms the caches
                bits[name] += 8 * len(encode(pixels, quality)) / (pixels.shape[0] * pixels.shape[1])
            for turn in range(rounds):
                print(f"quality {quality}, round {turn + 1} of {rounds}", file=sys.stderr)
                for name, encode in encoders.items():
                    begun, worked = time.perf_counter(), time.process_time()
                    encode(pixels, quality)
                    wall[name].append(time.perf_counter() - begun)
                    work[name].append(time.process_time() - worked)
        beside = [name for name in BESIDE if name in encoders]
        results[f"quality {quality}"] = {
            name: {
                "milliseconds": summary([1000 * one for one in wall[name]]),
                "processor_milliseconds": summary([1000 * one for one in work[name]]),
                "bits_per_pixel": round(bits[name] / len(images), 3),
                "time_beside": {other: against(wall, name, other) for other in beside if other != name},
                "processor_time_beside": {
                    other: against(work, name, other) for other in beside if other != name
                },
            }
            for name in encoders
        }
    return results


def against(seconds: Timed, one: str, other: str) -> dict[str, float]:
    """Time of ``one`` over that of ``other``, round by round."""
    return summary([x / y for x, y in zip(seconds[one], seconds[other], strict=True)])


def summary(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
    }


def memory(sides: list[int]) -> dict[str, object]:
    """Peaks of whole processes by size, and the line through them: bytes per pixel and what does not grow."""
    tune: Tune = "balanced"
    quality = 75
    pixels, peaks = [], []
    rows: list[dict[str, float]] = []
    tile = photograph(2000, 2000)
    with tempfile.TemporaryDirectory(prefix="blemish-") as folder:
        for side in sides:
            path = Path(folder) / f"{side}.png"
            image = np.pad(tile, ((0, side - 2000), (0, side - 2000), (0, 0)), mode="symmetric")
            Image.fromarray(image).save(path, compress_level=1)
            del image
            print(f"memory, {side} × {side}", file=sys.stderr)
            if not rows:  # once for nothing: what has to be compiled takes memory of its own
                run_child(path, tune, quality)
            begun = time.perf_counter()
            grown, size = run_child(path, tune, quality)
            pixels.append(side * side)
            peaks.append(grown)
            rows.append(
                {
                    "megapixels": side * side / 1e6,
                    "peak_megabytes": round(grown / 1e6, 1),
                    "bytes_per_pixel": round(grown / side**2, 2),
                    "bits_per_pixel_of_the_file": round(8 * size / side**2, 3),
                    "seconds_of_the_process": round(time.perf_counter() - begun, 1),
                }
            )
    slope, constant = np.polyfit(pixels, peaks, 1)
    return {
        "tune": tune,
        "quality": quality,
        "sizes": rows,
        "bytes_per_pixel": round(float(slope), 2),
        "constant_megabytes": round(float(constant) / 1e6, 1),
    }


def run_child(path: Path, tune: Tune, quality: int) -> tuple[int, int]:
    """:func:`child` in a process of its own."""
    command = [sys.executable, __file__, "--child", str(path), tune, str(quality)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    grown, size = map(int, ran.stdout.split())
    return grown, size


def child(path: Path, tune: Tune, quality: float) -> None:
    """From file to file; prints by how many bytes the process grew, and the size of the JPEG."""
    encoder = Encoder()
    small = path.with_name("small.png")
    Image.fromarray(photograph(64, 64)).save(small)
    encoder.encode(read_source(small).pixels, quality=quality, tune=tune)
    before = peak()
    data = encoder.encode(read_source(path).pixels, quality=quality, tune=tune).data
    path.with_suffix(".jpg").write_bytes(data)
    print(peak() - before, len(data))


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss begins with that of the process which started this one
        most = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(most.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read(folder: Path | None) -> dict[str, Pixels]:
    if folder is None:
        return {"generated": photograph(512, 768)}
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    return {path.name: read_source(path).pixels for path in files}


def in_words(result: dict[str, object]) -> str:
    """Medians, with the range of ratios in brackets."""
    lines: list[str] = []
    times: dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]] = result["speed"]  # type: ignore[assignment]
    for quality, rows in times.items():
        if quality == "anchors":
            continue
        lines.append(quality)
        for name, row in rows.items():
            beside = ", ".join(
                f"{value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f}) × {other}"
                for other, value in row["time_beside"].items()
            )
            lines.append(
                f"  {name:<18}{row['milliseconds']['median']:>7.1f} ms {row['bits_per_pixel']} bpp  {beside}"
            )
    grown: dict[str, object] = result["memory"]  # type: ignore[assignment]
    lines.append(f"memory: {grown['bytes_per_pixel']} bytes per pixel and {grown['constant_megabytes']} MB")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=Path, help="folder, instead of a generated image")
    parser.add_argument("--large", action="store_true", help="measure the memory for 100 megapixels as well")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        path, tune, quality = options.child
        child(Path(path), tune, float(quality))
        return
    images = read(options.images)
    result: dict[str, object] = {
        "command": shlex.join(["python", *sys.argv]),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "versions": {name: version(name) for name in LIBRARIES},
        "images": {name: f"{pixels.shape[1]} × {pixels.shape[0]}" for name, pixels in images.items()},
        "aim": {f"time beside {other}": f"at most {most:g}" for other, most in AT_MOST.items()},
        "speed": speed(images, options.rounds),
        "memory": memory([*SIDES, *([LARGE] if options.large else [])]),
    }
    print(in_words(result))
    if options.out:
        partial = options.out.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, options.out)


if __name__ == "__main__":
    main()
