"""Generated cloth at every angle, for the second part of Rádli & Czúni 2022."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from blemish.demo.generated import strokes_and_dots

Floats = NDArray[np.float32]
Masks = NDArray[np.bool_]


class Cloth(NamedTuple):
    """A generated cloth, what is wrong with it, and how it lies."""

    image: Floats
    """(H, W) in [0, 1], in whole grey levels."""
    mask: Masks
    """(H, W)."""
    angle: float
    """Radians counter-clockwise from the pose in which its ribs lie horizontally."""


RIB, YARN = 20.0, 15.0
"""Periods in pixels."""
CLOTH_DEFECTS = ("stroke", "slip", "worn")


def draw_cloth(seed: int, size: int, *, defect: str | None = None) -> Cloth:
    """A ribbed cloth, drawn at an angle from 0 to 360°, so that it was never resampled.

    Ribs of 20 pixels with one steep flank, crossed by fainter yarns; what varies is the angle, the phases of
    ribs and yarns, a little light and noise.

    Parameters
    ----------
    seed: the scene; the same one has the same cloth with and without a defect.
    defect: one of ``CLOTH_DEFECTS``: a faint stroke and dots, ribs out of step, or ribs worn flat.
    """
    rng = np.random.default_rng((2022, seed))
    angle = float(rng.uniform(0, 2 * math.pi))
    rib_phase, yarn_phase = rng.uniform(0, 2 * math.pi, 2)
    light = rng.uniform(0.95, 1.05)
    noise = 0.015 * rng.standard_normal((size, size))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    along, across = (
        math.cos(angle) * x - math.sin(angle) * y,
        math.sin(angle) * x + math.cos(angle) * y,
    )

    def draw(step: NDArray[Any], height: NDArray[Any]) -> NDArray[Any]:
        rib = 2 * math.pi * across / RIB + rib_phase + step
        yarn = 2 * math.pi * along / YARN + yarn_phase
        ribs = 0.20 * np.sin(rib) + 0.07 * np.sin(2 * rib + 0.8)
        return cast("NDArray[Any]", light * (0.5 + height * (ribs + 0.06 * np.sin(yarn) * np.cos(rib))))

    none = np.zeros((size, size))
    clean = draw(none, none + 1)
    if defect is None:
        return Cloth(_levels(clean + noise), np.zeros((size, size), bool), angle)
    where = np.random.default_rng((2022, seed, 1))
    centre = where.uniform(-0.3, 0.3, 2) * size
    blob = np.exp(-0.5 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (0.08 * size) ** 2)
    if defect == "stroke":
        cover = strokes_and_dots(size, seed=seed, strokes=1, dots=1)
        flawed, mask = clean + 0.5 * cover * (0.85 - clean), cover > 0.5
    elif defect == "slip":
        flawed, mask = draw(2.0 * blob, none + 1), blob > 0.3
    else:
        flawed, mask = draw(none, 1 - 0.9 * blob), blob > 0.3
    return Cloth(_levels(flawed + noise), mask, angle)


def _levels(image: NDArray[Any]) -> Floats:
    levels: Floats = (np.rint(image.clip(0, 1) * 255) / 255).astype(np.float32)
    return levels
