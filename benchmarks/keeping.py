"""Time of a fit of `blemish` beside its training, by the place of the preprocessed images.

    python benchmarks/keeping.py DATA/mvtec_screw/train/good --count 60 --out benchmarks/results/keeping.json

Training is one step, so that what is timed is reading, filling and weighing the memory, and calibrating: the part that
grows with the number of images. In memory is the rule; in a temporary file lie those of a folder too large for
that; nowhere those of one too large for the disk, too, as all that did not fit in memory once were.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from blemish.data.datasets import find_images
from blemish.storage.atomic import write_json
from blemish.training import image_source
from blemish.training.device import choose_machine
from blemish.training.fit import fit
from blemish.training.patches import PreprocessedImages

WAYS = {
    "in memory": {},
    "in a temporary file": {"memory_limit": 0},
    "nowhere": {"memory_limit": 0, "disk_limit": 0},
}
SETTINGS = ("encoder.widths=[4]", "training.steps=1")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder of good images")
    parser.add_argument("--count", type=int, default=60, help="of them that are fitted on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "good.csv"
        with source.open("w", encoding="utf-8", newline="") as file:
            paths = [item.path.resolve() for item in find_images(options.images)][: options.count]
            csv.writer(file).writerows([["path"], *([path] for path in paths)])
        for _ in range(options.rounds):
            for way, limits in WAYS.items():
                image_source.PreprocessedImages = partial(PreprocessedImages, **limits)  # type: ignore[misc]
                begun = time.perf_counter()
                fit(source, settings=SETTINGS)
                seconds[way].append(time.perf_counter() - begun)
                print(f"{way}: {seconds[way][-1]:.1f} s", flush=True)
    memory = seconds["in memory"]
    result = {
        "command": shlex.join(["python", sys.argv[0], options.images.name, *sys.argv[2:]]),
        "machine": str(choose_machine()),
        "images": len(paths),
        "seconds": seconds,
        "times as long as in memory": {
            way: [some / one for some, one in zip(values, memory, strict=True)]
            for way, values in seconds.items()
        },
    }
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
