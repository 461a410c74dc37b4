"""Images and fitted detectors that the sections share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blemish.data.image import LoadedImage
from blemish.data.maps import write_image
from blemish.demo.generated import make_sample
from blemish.inspection.detector import Detector
from blemish.training.fit import fit

SIDE = 256
SHORT = ("training.budget=null", "training.steps=1", "training.validate_every=1")
"""Settings of a fit whose network makes one step; the time of an inspection does not depend on the weights."""


@cache
def image(seed: int, side: int = SIDE) -> LoadedImage:
    """A generated weave, RGB."""
    return LoadedImage(Path(f"{seed}.png"), make_sample("weave", "good", seed=seed, size=side).image)


def tensors(count: int, side: int = SIDE) -> Tensor:
    """Images (N, 3, side, side) in [0, 1]."""
    return torch.stack([torch.from_numpy(image(seed, side).floats()) for seed in range(count)])


@contextmanager
def folder(count: int, side: int = SIDE) -> Iterator[Path]:
    """A temporary folder of so many images."""
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(count):
            write_image(Path(temporary) / f"{seed:04d}.png", image(seed, side).floats())
        yield Path(temporary)


def fitted(good: Path, recipe: str, *settings: str) -> Detector:
    """A detector of ``recipe``, whose network made one step."""
    short = () if recipe == "filter-bank" else SHORT
    return fit(good, recipe, settings=[*short, *settings], false_reject_rate=0.2)


def noise(*shape: int) -> Tensor:
    """Uniform noise, the same each time."""
    return torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))
