"""Loss when an image is turned by 45° and back.

    python benchmarks/rotation.py [--out benchmarks/results/rotation.json]

Errors are means of the absolute difference to the image, in grey levels of 255, over its middle.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from blemish.demo.generated import make_sample
from blemish.layers.rotation import DIAGONAL, RotationSampling, from_canvas, onto_canvas, rotate

SIDE = 128
TURN = math.pi / 4
MIDDLE = (..., slice(24, -24), slice(24, -24))
Way = Callable[[Tensor, Tensor], Tensor]


def band_limited(cut: float) -> Tensor:
    """(4, 1, 128, 128) of noise below ``cut`` times the highest frequency that pixels can hold."""
    noise = torch.fft.fft2(torch.randn(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    frequency = torch.fft.fftfreq(SIDE)
    kept = torch.hypot(frequency, frequency[:, None]) < cut / 2
    x: Tensor = torch.fft.ifft2(noise * kept).real
    contrast = 0.15 / float(x.std())
    return (0.5 + contrast * x).clamp(0, 1)


def generated(family: str, size: int) -> Tensor:
    """(4, 3, 128, 128), the middle of generated images."""
    edge = (size - SIDE) // 2
    images = [make_sample(family, "good", seed=seed, size=size).image for seed in range(4)]
    return torch.from_numpy(np.stack(images)[..., edge : edge + SIDE, edge : edge + SIDE]).float() / 255


def by_spline(x: Tensor, angle: Tensor, scale: float = 1.0) -> Tensor:
    """A cubic B-spline with its prefilter, by scipy."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    turned = np.empty(x.shape, np.float32)
    for index, one in enumerate(angle.tolist()):
        u, v = (
            (math.cos(one) * columns - math.sin(one) * rows) / scale,
            (math.sin(one) * columns + math.cos(one) * rows) / scale,
        )
        places = np.stack([v, u]) + (SIDE - 1) / 2
        for channel in range(x.shape[1]):
            turned[index, channel] = ndimage.map_coordinates(
                x[index, channel].numpy(), places, order=3, mode="reflect"
            )
    return torch.from_numpy(turned)


def at_one_size(sampling: RotationSampling) -> Way:
    def way(x: Tensor, angle: Tensor) -> Tensor:
        return rotate(rotate(x, angle, sampling=sampling), -angle, sampling=sampling)

    return way


def step_by_step(x: Tensor, angle: Tensor) -> Tensor:
    """As the paper describes it: padded to 181, resized to 128, turned, turned back, resized, cut out."""
    canvas = F.interpolate(F.pad(x, (26, 27, 26, 27)), size=SIDE, mode="bilinear", align_corners=False)
    back = at_one_size("bilinear")(canvas, angle)
    return F.interpolate(back, size=181, mode="bilinear", align_corners=False)[..., 26:154, 26:154]


def composed(x: Tensor, angle: Tensor) -> Tensor:
    there = rotate(x, angle, scale=1 / DIAGONAL, sampling="bilinear")
    return rotate(there, -angle, scale=DIAGONAL, sampling="bilinear")


WAYS: dict[str, dict[str, Way]] = {
    "at the image's resolution": {
        "bilinear": at_one_size("bilinear"),
        "bicubic (ours)": at_one_size("bicubic"),
        "cubic B-spline": lambda x, angle: by_spline(by_spline(x, angle), -angle),
    },
    "through the canvas": {
        "four bilinear resamplings": step_by_step,
        "two bilinear resamplings": composed,
        "two bicubic resamplings (ours)": lambda x, angle: from_canvas(onto_canvas(x, angle), angle),
        "two cubic B-splines": lambda x, angle: by_spline(
            by_spline(x, angle, 1 / DIAGONAL), -angle, DIAGONAL
        ),
    },
}


def errors() -> dict[str, dict[str, dict[str, float]]]:
    images = {
        "below 1/4 of the highest frequency": band_limited(0.25),
        "below 1/2 of the highest frequency": band_limited(0.5),
        "weave": generated("weave", SIDE),
        "part": generated("part", 256),
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for where, ways in WAYS.items():
        for name, x in images.items():
            angle = torch.full((len(x),), TURN)
            row = {way: 255 * float((call(x, angle) - x)[MIDDLE].abs().mean()) for way, call in ways.items()}
            found.setdefault(where, {})[name] = row
            print(f"{where}, {name}: " + ", ".join(f"{way} {error:.2f}" for way, error in row.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="where to write the figures, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {
        "command": shlex.join(["python", *sys.argv]),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "load_before": os.getloadavg()[0],
        "mean_error_of_255": errors(),
    }
    if arguments.out:
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=2) + "\n")
        os.replace(partial, arguments.out)


if __name__ == "__main__":
    main()
