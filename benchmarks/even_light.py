"""A copy of a data set in the MVTec layout with the light of its test images evened out.

    python benchmarks/even_light.py DATA/mvtec_screw --out runs/mvtec_screw_even_light

The good test images of the screws are darker than all others, so the mean grey level alone tells good from defective,
and a method that hears the light seems to see defects. Here each test image has a gain that gives it the mean grey
level of the training images; these and the masks are the same files. So a fit on one is a fit on the other: copied
between their folders in the ``--work`` of ``benchmarks.detection``, it is only tested again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from blemish.data.image import read_image
from blemish.data.layouts import read_labelled
from blemish.data.maps import write_image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder in the MVTec layout")
    parser.add_argument("--out", type=Path, default=Path("runs/mvtec_screw_even_light"))
    options = parser.parse_args()
    if options.out.exists():
        raise SystemExit(f"{options.out}: is there already; remove it, or choose another --out")
    items = read_labelled(options.dataset).items
    level = np.mean([read_image(item.path).floats().mean() for item in items if item.split == "train"])
    options.out.mkdir(parents=True)
    for part in ("train", "ground_truth"):
        (options.out / part).symlink_to((options.dataset / part).resolve(), target_is_directory=True)
    tests = [item for item in items if item.split == "test"]
    for item in tests:
        pixels = read_image(item.path).floats()
        path = (options.out / item.name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, pixels * (level / pixels.mean()))
    print(f"{len(tests)} test images with the mean grey level {level:.3f}: {options.out}")


if __name__ == "__main__":
    main()
