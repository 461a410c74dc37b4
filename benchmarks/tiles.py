"""Splits the magnetic tiles (Huang, Qiu, Yuan 2020) so that no tile is both in training and in test.

    python benchmarks/tiles.py DATA/magnetic_tile --out runs/magnetic_tile_by_tile.csv

Each tile was photographed under up to six exposures, one after the other: ``exp3_num_853.jpg`` is the third
exposure of some tile, image 853 of all, so a tile is a run of numbers with rising exposures. A split by image puts
exposures of one good tile on both sides, and a method that remembers images profits. Here a fifth of the tiles without
any defect are for the test, and every image of a tile with a defect is, too. The column ``group`` names the tile, so
that no tile both trains and calibrates either.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

import numpy as np

from blemish.data.items import Item
from blemish.data.layouts import read_labelled
from blemish.storage.atomic import atomic_path

LARGEST_STEP = 200
"""Between the numbers of two exposures of one tile."""
TEST_SHARE = 5
"""One in so many good tiles is for the test."""


def tiles(items: list[Item]) -> list[list[Item]]:
    """The images of each tile."""

    def place(item: Item) -> tuple[int, int]:
        found = re.fullmatch(r"exp(\d+)_num_(\d+)", item.path.stem)
        if not found:
            raise SystemExit(f"{item.name}: is not named exp*_num_*; give the folder magnetic_tile")
        return int(found[2]), int(found[1])

    found: list[list[Item]] = []
    last = (0, 0)
    for item in sorted(items, key=place):
        number, exposure = place(item)
        if not found or exposure <= last[1] or number - last[0] >= LARGEST_STEP:
            found.append([])
        found[-1].append(item)
        last = number, exposure
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder magnetic_tile in the MVTec layout")
    parser.add_argument("--out", type=Path, default=Path("runs/magnetic_tile_by_tile.csv"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = tiles(list(read_labelled(options.dataset).items))
    good = [number for number, tile in enumerate(found) if all(item.is_good for item in tile)]
    drawn = np.random.default_rng(options.seed).permutation(good)
    trained = set(drawn[len(good) // TEST_SHARE :].tolist())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.out) as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "label", "mask", "group"])
        for number, tile in enumerate(found):
            split = "train" if number in trained else "test"
            for item in tile:
                mask = "|".join(str(mask.resolve()) for mask in item.masks)
                writer.writerow([item.path.resolve(), split, item.label, mask, f"tile {number}"])
    print(f"{len(found)} tiles, {len(trained)} of them for training: {options.out}")


if __name__ == "__main__":
    main()
