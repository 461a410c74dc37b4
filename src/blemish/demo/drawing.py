"""Shapes, soft steps and slow changes from which the generated images are drawn.

Every shape is an array over the sample points: a distance to its edge, positive inside, or a coverage in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Flaw:
    """The defect to draw: its kind (``"good"`` draws none), the draws that place it, and its contrast."""

    kind: str
    rng: np.random.Generator
    strength: float


Drawing = Callable[[Flaw], Array]
"""A scene drawn, as floats (C, H, W) before noise and clipping: clean, or with one defect."""


def grid(size: int, samples: int) -> tuple[Array, Array]:
    """Rows and columns of the sample points in pixels from the centre, ``samples`` along each side of a pixel."""
    c = ((np.arange(size * samples) + 0.5) / samples - size / 2).astype(np.float32)
    y, x = np.meshgrid(c, c, indexing="ij")
    return y, x


def turn(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, c * y - s * x


def ramp(t: Array) -> Array:
    """Smooth step from 0 at t <= 0 to 1 at t >= 1."""
    t = np.clip(t, 0, 1)
    smooth: Array = t * t * (3 - 2 * t)
    return smooth


def drift(rng: np.random.Generator, shape: tuple[int, ...], knots: int, sd: float) -> Array:
    """Slow random change over the image, of mean 0."""
    grid = Image.fromarray(rng.normal(0, sd, (knots, knots)).astype(np.float32))
    return np.asarray(grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def shrink(image: Array) -> Array:
    """Reduce two samples per pixel side to one: (C, 2H, 2W) to (C, H, W)."""
    rows = image[:, ::2] + image[:, 1::2]
    quarter: Array = (rows[:, :, ::2] + rows[:, :, 1::2]) * 0.25
    return quarter


def box(x: Array, y: Array, half_x: float, half_y: float, corner: float) -> Array:
    """Distance to the edge of a rounded box, positive inside."""
    dx, dy = np.abs(x) - half_x + corner, np.abs(y) - half_y + corner
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    distance: Array = corner - outside - np.minimum(np.maximum(dx, dy), 0)
    return distance


def filleted(a: Array, b: Array, radius: float) -> Array:
    """Union of two distances with a fillet where they meet."""
    t = np.maximum(radius - np.abs(a - b), 0)
    union: Array = np.maximum(a, b) + t * t / (4 * radius)
    return union


def segment(rng: np.random.Generator, x: Array, y: Array, middle: Sequence[float], length: float) -> Array:
    """Distance to a straight line of random direction and this length."""
    along, across = turn(x - middle[0], y - middle[1], rng.uniform(0, math.pi))
    distance: Array = np.hypot(across, np.maximum(np.abs(along) - length / 2, 0))
    return distance


def patch(rng: np.random.Generator, x: Array, y: Array, middle: Sequence[float], radius: float) -> Array:
    """Distance to the edge of an irregular round patch, positive inside."""
    dx, dy = x - middle[0], y - middle[1]
    angle = np.arctan2(dy, dx)
    edge = np.ones_like(angle)
    for lobes in (2, 3, 5):
        edge += rng.normal(0, 0.25 / lobes) * np.cos(lobes * angle + rng.uniform(0, 2 * math.pi))
    distance: Array = radius * edge - np.hypot(dx, dy)
    return distance


def blot(rng: np.random.Generator, x: Array, y: Array, middle: Sequence[float], radius: float) -> Array:
    """An irregular patch with soft edges, 1 inside and 0 outside."""
    return ramp(patch(rng, x, y, middle, radius) / (0.6 * radius) + 0.5)


def stroke(rng: np.random.Generator, size: int, length: float, width: float) -> Array:
    """Coverage of a curved stroke somewhere inside the image."""
    t = np.linspace(0, 1, 24)
    heading = rng.uniform(0, 2 * math.pi) + rng.normal(0, 1.2) * t + rng.normal(0, 1.5) * t**2
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)]), axis=1) * length / t.size
    path -= (path.max(axis=1, keepdims=True) + path.min(axis=1, keepdims=True)) / 2
    room = np.maximum(size / 2 - path.max(axis=1) - width - 1, 0)
    path += (size / 2 + rng.uniform(-1, 1, 2) * room)[:, None]
    return line(size, path, width)


def dot(rng: np.random.Generator, size: int, radius: float) -> Array:
    centre = rng.uniform(radius + 1, size - radius - 1, 2)
    return line(size, np.stack([centre, centre], axis=1), 2 * radius)


def line(size: int, path: NDArray[np.float64], width: float) -> Array:
    """Coverage of the round-ended line through the points ``path`` (2, n), given as rows and columns."""
    low = np.clip(path.min(axis=1) - width - 2, 0, size).astype(int)
    high = np.clip(path.max(axis=1) + width + 3, 0, size).astype(int)
    rows, columns = np.mgrid[low[0] : high[0], low[1] : high[1]] + 0.5
    nearest = np.full(rows.shape, np.inf)
    for p, q in zip(path.T[:-1], path.T[1:], strict=True):
        d = q - p
        t = np.clip(((rows - p[0]) * d[0] + (columns - p[1]) * d[1]) / max(d @ d, 1e-9), 0, 1)
        nearest = np.minimum(nearest, np.hypot(rows - p[0] - t * d[0], columns - p[1] - t * d[1]))
    cover = np.zeros((size, size), np.float32)
    cover[low[0] : high[0], low[1] : high[1]] = np.clip(width / 2 - nearest + 0.5, 0, 1)
    return cover
