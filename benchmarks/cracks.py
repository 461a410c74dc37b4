"""Cuts CrackForest (Shi et al. 2016) into patches, of which those without a crack are the good images.

    python benchmarks/cracks.py DATA/crackforest --out runs/crackforest_patches

Nearly every photograph of the road shows a crack, so there is no good image as a whole. Of every second one the
patches without a marked pixel train; of the others all patches test, but for those with fewer marked pixels than a
hairline across a quarter of the patch has, which could be called either. The list ``OUT.csv`` names the photograph of
each patch as its group.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from blemish.data.datasets import find_images
from blemish.data.image import read_image
from blemish.data.maps import write_image
from blemish.data.masks import read_mask
from blemish.storage.atomic import atomic_path

SIDE = 96
FEWEST = SIDE // 4
"""Marked pixels of a patch that shows a crack."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder crackforest, with images and masks")
    parser.add_argument("--out", type=Path, default=Path("runs/crackforest_patches"))
    options = parser.parse_args()
    if options.out.exists():
        raise SystemExit(f"{options.out}: is there already; remove it, or choose another --out")
    rows = []
    for number, item in enumerate(find_images(options.dataset / "images")):
        image = read_image(item.path)
        pixels = image.floats().mean(0, keepdims=True)  # the photographs are grey
        cracks = read_mask(options.dataset / "masks" / f"{item.path.stem}.png", size=image.size)
        split = "train" if number % 2 == 0 else "test"
        for top in range(0, image.height - SIDE + 1, SIDE):
            for left in range(0, image.width - SIDE + 1, SIDE):
                window = (..., slice(top, top + SIDE), slice(left, left + SIDE))
                marked = np.count_nonzero(cracks[window])
                if 0 < marked < FEWEST or (marked and split == "train"):
                    continue
                kind = "crack" if marked else "good"
                path = options.out / kind / f"{item.path.stem}_{top}_{left}.png"
                mask = options.out / "masks" / path.name if marked else None
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, pixels[window])
                if mask is not None:
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    write_image(mask, cracks[window][None].astype(np.float32))
                rows.append(
                    [path.resolve(), split, kind, "" if mask is None else mask.resolve(), item.path.stem]
                )
    with (
        atomic_path(options.out.with_suffix(".csv")) as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file).writerows([["path", "split", "label", "mask", "group"], *rows])
    for split, kind in (("train", "good"), ("test", "good"), ("test", "crack")):
        print(f"{sum(row[1:3] == [split, kind] for row in rows)} of {split}, {kind}")


if __name__ == "__main__":
    main()
