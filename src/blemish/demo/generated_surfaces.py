"""Generated stochastic surfaces, as of cast stone, sintered parts or plastic, with faint local defects.

No two good surfaces have a pixel in common: grain, pores, clouds and light are drawn anew for each. So nothing can
be found by remembering places, and a defect is a small share of what varies anyway.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.demo.drawing import Array, Drawing, Flaw, blot, dot, drift, grid, line

GRAINS = ((0.8, 0.55), (1.6, 0.30), (4.0, 0.20), (14.0, 0.18))
"""Standard deviation in pixels and share of each layer of the grain."""
DEPTH = 0.045
"""Standard deviation of the grain, in units of the data range."""


def surface(rng: np.random.Generator, size: int) -> Drawing:
    """A grey surface with grain and pores, (1, size, size); a larger image shows more of it."""
    y, x = grid(size, 1)
    grain = np.zeros((size, size), np.float32)
    for sigma, share in GRAINS:
        layer = _noise(rng, size, sigma)
        grain += share * float(rng.uniform(0.85, 1.15)) * layer
    grain *= DEPTH * float(rng.uniform(0.9, 1.1)) / grain.std()
    pores = np.zeros((size, size), np.float32)
    for _ in range(int(rng.poisson(14 * (size / 256) ** 2))):
        np.maximum(pores, dot(rng, size, float(rng.uniform(0.7, 1.5))) * rng.uniform(0.3, 1), out=pores)
    light = float(rng.uniform(0.46, 0.6)) * (1 + drift(rng, grain.shape, 3, 0.06))
    clean: Array = (light + grain - 0.08 * pores)[None]

    def draw(flaw: Flaw) -> Array:
        f, s = flaw.rng, flaw.strength
        spot = f.uniform(-0.38, 0.38, 2) * size
        if flaw.kind == "crack":
            cover = _crack(f, size)
            change = -2.2 * DEPTH * s * cover
        elif flaw.kind == "scratch":
            cover = _scratch(f, size)
            change = f.choice([-2.0, 2.0]) * DEPTH * s * cover
        elif flaw.kind == "pit":
            middle = (float(spot[0]), float(spot[1]))
            radius = float(f.uniform(2.6, 4.5))
            distance = np.hypot(x - middle[0], y - middle[1]) / radius
            hole, rim = np.exp(-(distance**4)), np.exp(-(((distance - 1.5) / 0.35) ** 2))
            change = DEPTH * s * (0.9 * rim * (y < middle[1]) - 2.6 * hole)
        elif flaw.kind == "stain":
            change = -1.3 * DEPTH * s * blot(f, x, y, (spot[1], spot[0]), float(f.uniform(8, 13)))
        else:
            return clean
        return np.asarray(clean + change, dtype=np.float32)

    return draw


def _noise(rng: np.random.Generator, size: int, sigma: float) -> Array:
    """Gaussian field of unit standard deviation whose correlation has the width ``sigma`` pixels."""
    margin = math.ceil(3 * sigma)
    side = size + 2 * margin
    field = ndimage.gaussian_filter(rng.standard_normal((side, side), np.float32), sigma, truncate=3)
    inside = field[margin : margin + size, margin : margin + size]
    scaled: Array = (inside * (2 * math.sqrt(math.pi) * sigma)).astype(np.float32)
    return scaled


def _crack(rng: np.random.Generator, size: int) -> Array:
    """Coverage of a thin wandering line, now and then with a branch."""
    length = rng.uniform(0.22, 0.42) * 256
    width = rng.uniform(1.0, 1.8)
    path = _walk(rng, length, rng.uniform(0, 2 * math.pi), 0.35)
    path -= (path.max(axis=1, keepdims=True) + path.min(axis=1, keepdims=True)) / 2
    room = np.maximum(size / 2 - path.max(axis=1) - 3, 0)
    path += (size / 2 + rng.uniform(-1, 1, 2) * room)[:, None]
    cover = line(size, path, width)
    if rng.uniform() < 0.4:
        start = int(rng.integers(path.shape[1] // 3, 2 * path.shape[1] // 3))
        turn = math.atan2(*(path[:, start] - path[:, start - 1])) + rng.choice([-1, 1]) * rng.uniform(0.5, 1)
        branch = _walk(rng, 0.4 * length, turn, 0.35) + path[:, start : start + 1]
        np.maximum(cover, line(size, branch, 0.8 * width), out=cover)
    return cover


def _walk(rng: np.random.Generator, length: float, heading: float, wander: float) -> NDArray[np.float64]:
    """Points (2, n), rows and columns, of a line of this length that begins at 0 and turns at random."""
    count = max(4, round(length / 4))
    turns = heading + np.cumsum(rng.normal(0, wander, count)) * 0.7
    path: NDArray[np.float64] = np.cumsum(np.stack([np.sin(turns), np.cos(turns)]), axis=1) * length / count
    return path


def _scratch(rng: np.random.Generator, size: int) -> Array:
    """Coverage of a straight fine line."""
    angle, length = rng.uniform(0, math.pi), rng.uniform(0.2, 0.4) * 256
    reach = np.array([math.sin(angle), math.cos(angle)]) * length / 2
    room = np.maximum(size / 2 - np.abs(reach) - 3, 0)
    middle = size / 2 + rng.uniform(-1, 1, 2) * room
    return line(size, np.stack([middle - reach, middle + reach], axis=1), rng.uniform(0.9, 1.5))
