"""Memory and time of an inspection against the size of the scene.

    python benchmarks/panels.py --sizes 1000,5000,20000 --out benchmarks/results/panels.json
    python benchmarks/panels.py --sizes 24495 --sensors visible,infrared --recipe other-pixels --workers 2 --threads 1 \
        --out benchmarks/results/panels.json

The second is 600 megapixels of two sensors, shared by two processes. Each scene has some of five sensors of 3, 3, 1, 1 and
3 channels as tiled 16-bit TIFF, written by tiles into a temporary folder, and is inspected in a process of its own, whose
peak resident memory is noted. The time per megapixel, of the clock and of the processor, and the shares of it are those of
the blocks, with several processes also of their start; overviews and report, the finish, cost the same whatever the size.
``core_minutes`` are those of the whole command. Reading includes decoding, writing includes compression. A size that would
take longer than ``--limit`` minutes, by the time of the one before, is not run, and reported. With ``--stride 32`` tiles of
32 pixels do not overlap, a quarter of the work of 16; ``--recipe fp-cae`` is a smaller network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

SENSORS = {"visible": 3, "raking": 3, "infrared": 1, "xray": 1, "ultraviolet": 3}
TILE = 256
FIT_SIDE = 256
MIB = 2**20


def texture(seed: int, channels: int) -> NDArray[np.uint16]:
    """Waves and noise, (2 TILE, 2 TILE, channels): the material that tiles are cut from."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: 2 * TILE, : 2 * TILE] * (2 * np.pi / TILE)
    waves = [np.sin(3 * x + phase) * np.sin(2 * y - phase) for phase in range(channels)]
    values = 0.5 + 0.25 * np.stack(waves, -1) + rng.normal(0, 0.05, (2 * TILE, 2 * TILE, channels))
    return (np.clip(values, 0, 1) * 65535).astype(np.uint16)


def tiles(seed: int, side: int, channels: int) -> Iterator[NDArray[np.uint16]]:
    material, rng = texture(seed, channels), np.random.default_rng(seed)
    for _ in range((-(-side // TILE)) ** 2):
        row, column = rng.integers(TILE, size=2)
        cut = np.ascontiguousarray(material[row : row + TILE, column : column + TILE])
        yield cut if channels > 1 else cut[..., 0]


def write_scene(folder: Path, side: int, sensors: list[str]) -> None:
    folder.mkdir(parents=True)
    for seed, name in enumerate(sensors):
        channels = SENSORS[name]
        tifffile.imwrite(
            folder / f"{name}.tif",
            tiles(seed, side, channels),
            shape=(side, side, channels) if channels > 1 else (side, side),
            dtype=np.uint16,
            tile=(TILE, TILE),
            photometric="rgb" if channels == 3 else "minisblack",
            bigtiff=True,
        )


def fit_briefly(folder: Path, recipe: str, stride: int | None, sensors: list[str]) -> Path:
    """A model of two training steps: what an inspection costs does not depend on the weights."""
    import blemish

    write_scene(folder / "scenes" / "small", FIT_SIDE, sensors)
    settings = [
        *([] if stride is None else [f"patch.stride={stride}"]),
        "training.steps=2",
        "training.device=cpu",
        "threshold.rule=fixed",
        "threshold.value=0.5",
    ]
    blemish.fit(folder / "scenes", recipe, settings=settings, out=folder / "model")
    return folder / "model"


def peak_mib() -> float:
    """Peak memory of this process alone; the system's own maximum begins with that of the parent process."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def processor_seconds() -> float:
    """Seconds of the processor of this process and of those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def inspect(model: Path, source: Path, out: Path, threads: int, workers: int) -> None:
    """In a process of its own: inspect, and print the figures as JSON."""
    import torch

    import blemish
    from blemish.inspection.scenes import inspect_scenes
    from blemish.observer import Observer

    class Processor(Observer):
        """Seconds of the processor from the first block to the last: other work on the machine does not count."""

        begun = ended = 0.0

        def stage(self, text: str) -> None:
            self.begun = processor_seconds()

        def count(self, done: int, total: int) -> None:
            self.ended = processor_seconds()

    torch.set_num_threads(threads)
    detector = blemish.load(model)
    loaded = peak_mib()
    begun, spent, processor = time.perf_counter(), processor_seconds(), Processor()
    done = inspect_scenes(detector, source, out, workers=workers, observer=processor)
    seconds, spent = time.perf_counter() - begun, processor_seconds() - spent
    (record,) = done.records
    (journal,) = (out / "maps").glob("*.blocks.jsonl")
    parts = {"reading": 0.0, "computing": 0.0, "writing": 0.0}
    blocks = journal.read_text().splitlines()
    for line in blocks:
        for part in parts:
            parts[part] += json.loads(line)[part]
    width, height = record.size
    megapixels, of_blocks = width * height / 1e6, sum(parts.values())
    print(
        json.dumps(
            {
                "side": width,
                "megapixels": megapixels,
                "blocks": len(blocks),
                "seconds": seconds,
                "seconds_finishing": seconds - of_blocks / workers,
                "core_minutes": spent / 60,
                "seconds_per_megapixel": of_blocks / megapixels,
                # Those of worker processes count when they have ended, which is after the last block.
                "cpu_seconds_per_megapixel": (spent if workers > 1 else processor.ended - processor.begun)
                / megapixels,
                "peak_mib": peak_mib(),
                "peak_mib_of_a_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
                if workers > 1
                else None,
                "mib_before": loaded,
                "share_reading": parts["reading"] / of_blocks,
                "share_writing": parts["writing"] / of_blocks,
                "share_computing": parts["computing"] / of_blocks,
                "maps_mib": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / MIB,
            }
        )
    )


def needed_bytes(side: int, sensors: list[str]) -> int:
    """Bytes on disk of the scene and of its maps."""
    return side**2 * 2 * (sum(SENSORS[name] for name in sensors) + 1 + 2 * len(sensors))


def measure(
    sizes: list[int],
    recipe: str,
    stride: int | None,
    sensors: list[str],
    threads: int,
    workers: int,
    limit: float,
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = fit_briefly(folder / "fit", recipe, stride, sensors)
        for side in sizes:
            if found:
                pace = next(one for one in reversed(found) if "seconds" in one)["seconds_per_megapixel"]
                minutes = pace * side**2 / 6e7 / workers
                if minutes > limit:
                    print(f"{side}²: not run, it would take about {minutes:.0f} minutes")
                    found.append({"side": side, "not_run": True, "minutes_expected": round(minutes)})
                    continue
            if shutil.disk_usage(folder).free < 1.1 * needed_bytes(side, sensors):
                print(f"{side}²: not run, it needs {needed_bytes(side, sensors) / 2**30:.0f} GiB of disk")
                found.append({"side": side, "not_run": True, "bytes_needed": needed_bytes(side, sensors)})
                continue
            source, out = folder / "scene", folder / "out"
            write_scene(source / "scene", side, sensors)
            command = [sys.executable, __file__, "--inspect", str(model), str(source), str(out)]
            ran = subprocess.run(
                [*command, "--threads", str(threads), "--workers", str(workers)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found.append(json.loads(ran.stdout))
            shutil.rmtree(source)
            shutil.rmtree(out)
            one = found[-1]
            print(
                f"{side}²: {one['seconds']:.0f} s, {one['core_minutes']:.1f} core-minutes, "
                f"{one['cpu_seconds_per_megapixel']:.2f} core-seconds a megapixel, "
                f"peak {one['peak_mib']:.0f} MiB, reading and writing "
                f"{100 * (one['share_reading'] + one['share_writing']):.1f} %"
            )
    return found


def with_earlier(path: Path, result: dict[str, Any]) -> list[dict[str, Any]]:
    """``result`` after those of other recipes and strides that ``path`` holds."""
    earlier = json.loads(path.read_text())["runs"] if path.exists() else []
    usual: dict[str, Any] = {"recipe": None, "stride": None, "sensors": [*SENSORS], "workers": 1}
    return [
        *(one for one in earlier if any(one.get(key, usual[key]) != result[key] for key in usual)),
        result,
    ]


def draw_curve(path: Path, runs: list[dict[str, Any]]) -> None:
    """Peak memory, and the processor's time per megapixel, against the size of the scene."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (memory, pace) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for run in runs:
        found = [one for one in run["panels"] if "seconds" in one]
        megapixels = [one["megapixels"] for one in found]
        label = f"{run['recipe']}, stride {run['stride']}, {run['channels']} channels"
        memory.plot(megapixels, [one["peak_mib"] for one in found], "o-", label=label)
        pace.plot(megapixels, [one["cpu_seconds_per_megapixel"] for one in found], "o-", label=label)
    memory.axhline(2048, color="grey", linestyle=":")
    memory.set(xscale="log", xlabel="megapixels", ylabel="peak memory in MiB", ylim=(0, 2200))
    pace.set(xscale="log", xlabel="megapixels", ylabel="processor seconds a megapixel")
    pace.set_ylim(bottom=0)
    pace.legend()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="1000,5000,20000", help="sides in pixels, rising")
    parser.add_argument("--recipe", default="fp-cae-add")
    parser.add_argument("--stride", type=int, help="of the tiles, instead of the recipe's")
    parser.add_argument("--sensors", default=",".join(SENSORS), help="some of these, by name")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the blocks")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=40, help="minutes that one size may take")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON, and the curve as PNG")
    parser.add_argument("--inspect", nargs=3, metavar=("MODEL", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inspect:
        model, source, out = map(Path, arguments.inspect)
        inspect(model, source, out, arguments.threads, arguments.workers)
        return
    import torch

    from blemish.recipes import load_recipe

    load = os.getloadavg()[0]
    sizes = [int(side) for side in arguments.sizes.split(",")]
    sensors = arguments.sensors.split(",")
    found = measure(
        sizes,
        arguments.recipe,
        arguments.stride,
        sensors,
        arguments.threads,
        arguments.workers,
        arguments.limit,
    )
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "processor": platform.processor() or platform.machine(),
        "load_before": load,
        "recipe": arguments.recipe,
        "stride": arguments.stride or load_recipe(arguments.recipe).patch.stride,
        "sensors": sensors,
        "workers": arguments.workers,
        "channels": sum(SENSORS[name] for name in sensors),
        "panels": found,
    }
    if arguments.out:
        partial = arguments.out.with_suffix(".partial")
        runs = with_earlier(arguments.out, result)
        partial.write_text(json.dumps({"runs": runs}, indent=2) + "\n")
        os.replace(partial, arguments.out)
        draw_curve(arguments.out.with_suffix(".png"), runs)


if __name__ == "__main__":
    main()
