"""Generated machined parts: rod ends, as height fields under a lamp."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from blemish.demo.drawing import (
    Array,
    Drawing,
    Flaw,
    blot,
    box,
    drift,
    filleted,
    grid,
    patch,
    ramp,
    segment,
    shrink,
    turn,
)

# In image sides, along and across the part from its centre.
_EYE_X, _EYE_R, _EYE_HOLE_R = -0.25, 0.152, 0.076
_PLATE_X, _PLATE_HALF = (-0.26, 0.065), 0.090
_HOLES = ((-0.048, 0.050, 0.019), (-0.048, -0.050, 0.019), (0.018, 0.0, 0.013))  # x, y, radius
_COLLAR_X, _COLLAR_HALF, _COLLAR_R = 0.083, 0.016, 0.070
_SHANK_END, _SHANK_R, _THREAD_START, _THREAD_PITCH = 0.415, 0.055, 0.135, 0.0235


@dataclass(frozen=True)
class Station:
    """Pose and light of the parts, and the camera."""

    turned: float
    """Degrees by which a part is turned to either side at most."""
    elevation: tuple[float, float]
    """Least and largest elevation of the lamp in degrees; its azimuth is any."""
    shadow: float
    """Length of the shadow on the mat, in image sides."""
    mat: tuple[float, float]
    """Brightness of the mat, and the contrast of its grain."""
    grey: bool
    """Whether the camera is monochrome."""
    ambient: float
    """Light that reaches every face."""
    exposure: float
    contrast: float
    """Contrast of a defect of strength 1, in units of a faint one."""


BENCH = Station(
    turned=25,
    elevation=(48, 62),
    shadow=0.028,
    mat=(0.30, 0.14),
    grey=False,
    ambient=0.14,
    exposure=1.0,
    contrast=1.0,
)
"""A bench under a desk lamp: light and shadow of a good part differ more between images than a defect changes."""
BELT = Station(
    turned=180,
    elevation=(70, 82),
    shadow=0.010,
    mat=(0.06, 0.05),
    grey=True,
    ambient=0.22,
    exposure=0.8,
    contrast=3.0,
)
"""A belt under a machine-vision lamp nearly overhead: parts in any pose, and clearly visible defects."""


def rod_end(rng: np.random.Generator, size: int, station: Station) -> Drawing:
    """A rod end (eye, plate with three holes, threaded shank) on a mat, (1 or 3, size, size).

    The part is a height field, so that light, shadow and most defects follow from its shape; a larger image shows
    it finer.
    """
    y, x = grid(size, 2)
    shift_x, shift_y = rng.uniform(-0.035, 0.035, 2).tolist()
    x, y = x / size - shift_x, y / size - shift_y
    px, py = turn(x, y, math.radians(rng.uniform(-station.turned, station.turned)))
    light = _Light(rng, station)
    mat: Array = 1 + station.mat[1] * ndimage.gaussian_filter(rng.standard_normal(x.shape, np.float32), 1.6)
    mat *= station.mat[0] * rng.uniform(0.85, 1.15) * (1 + drift(rng, x.shape, 3, 0.05))
    surface = _brushed(rng, px, py) * (1 + drift(rng, x.shape, 24, 0.015))
    thread_phase = rng.uniform()
    from_eye = np.hypot(px - _EYE_X, py)

    def draw(flaw: Flaw) -> Array:
        kind, s, f = flaw.kind, station.contrast * flaw.strength, flaw.rng
        spot = _place(f, on_shank=kind in ("stain", "particle"))

        # Outlines are distances to the edge, positive inside.
        half, middle = (_PLATE_X[1] - _PLATE_X[0]) / 2, (_PLATE_X[1] + _PLATE_X[0]) / 2
        flat = filleted(_EYE_R - from_eye, box(px - middle, py, half, _PLATE_HALF, 0.015), 0.03)
        if kind == "chip":
            edge = _place_on_edge(f)
            flat = np.minimum(flat, -patch(f, px, py, edge, f.uniform(0.011, 0.018) * math.sqrt(s)))
        turns = px / _THREAD_PITCH + thread_phase + 0.18 * py / _SHANK_R
        if kind == "thread_pitch":
            turns = turns + 0.4 * s * np.exp(-(((px - f.uniform(0.19, 0.36)) / 0.016) ** 2))
        groove = np.abs(turns % 1.0 - 0.5) * 2 * ramp((px - _THREAD_START) / 0.02)
        radius = _SHANK_R - 0.0065 * groove - 0.35 * np.maximum(px - _SHANK_END + 0.02, 0)
        shank = np.minimum(radius - np.abs(py), np.minimum(px - _COLLAR_X, _SHANK_END - px))
        collar = box(px - _COLLAR_X, py, _COLLAR_HALF, _COLLAR_R, 0.004)
        holes = [_EYE_HOLE_R - from_eye, *(r - np.hypot(px - hx, py - hy) for hx, hy, r in _HOLES)]

        height: Array = np.where(flat > 0, 0.03 + 0.9 * np.minimum(flat, 0.010), 0)
        height -= 0.003 * np.exp(-(((from_eye - 0.118) / 0.0035) ** 2)) * (flat > 0)  # a turned groove
        for hole in holes:
            height -= 0.8 * np.clip(hole + 0.006, 0, 0.006)  # countersinks
        for bar, across in ((shank, radius), (collar, 0.9 * _COLLAR_R)):
            round_ = 0.012 + np.sqrt(np.maximum(across * across - py * py, 0))
            height = np.where(bar > 0, np.maximum(height, round_), height)
        plug: Array | float = 0.0
        if kind == "filled_hole":
            hx, hy, r = _HOLES[int(f.integers(3))]
            angle = f.uniform(0, 2 * math.pi)
            chord = (px - hx) * math.cos(angle) + (py - hy) * math.sin(angle)
            filled = np.minimum(r + 0.004 - np.hypot(px - hx, py - hy), chord - f.uniform(-1.0, 0.2) * r)
            height = np.where(filled > 0, 0.034, height)
            plug = min(0.65 * s, 1.0) * np.clip(filled * size * 2 + 0.5, 0, 1)
        elif kind == "dent":
            away2 = (px - spot[0]) ** 2 + (py - spot[1]) ** 2
            height -= 0.0035 * s * np.exp(-away2 / f.uniform(0.012, 0.018) ** 2)
        elif kind == "scratch":
            away = segment(f, px, py, spot, f.uniform(0.05, 0.11))
            height -= 0.0012 * s * np.exp(-((away / max(0.0022, 0.5 / size)) ** 2))

        body = np.maximum(np.maximum(flat, shank), collar)
        outline = np.minimum(body, -np.maximum.reduce(holes))
        cover = np.maximum(np.clip(outline * size * 2 + 0.5, 0, 1), plug)
        metal = light.on(height * size * 2) * surface
        if kind == "stain":
            metal *= np.maximum(1 - 0.14 * s * blot(f, px, py, spot, f.uniform(0.018, 0.03)), 0)
        shadow = ndimage.shift(cover, [-station.shadow * size * d for d in light.across], order=1)
        ground = mat * (1 - 0.55 * ndimage.gaussian_filter(shadow, 0.012 * size))
        image = _STEEL * (metal * cover) + _MAT * (ground * (1 - cover))
        if kind == "particle":
            speck = np.clip(patch(f, px, py, spot, f.uniform(0.010, 0.014)) * size * 2 + 0.5, 0, 1)
            image += min(0.6 * s, 1.0) * speck * (_DIRT * f.uniform(0.7, 1.3) - image)
        seen = shrink(image * (station.exposure * light.level))
        return seen.mean(axis=0, keepdims=True) if station.grey else seen

    return draw


_STEEL = np.array([0.98, 1.0, 1.03], np.float32)[:, None, None]
_MAT = np.array([0.80, 1.0, 1.12], np.float32)[:, None, None]
_DIRT = np.array([0.42, 0.40, 0.36], np.float32)[:, None, None]


class _Light:
    """A distant lamp above the part, seen by a camera straight overhead."""

    def __init__(self, rng: np.random.Generator, station: Station) -> None:
        azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(*station.elevation))
        self.ambient = station.ambient
        self.level = rng.uniform(0.85, 1.1)
        self.across = (math.sin(azimuth), math.cos(azimuth))  # rows, columns
        self.x = math.cos(elevation) * self.across[1]
        self.y = math.cos(elevation) * self.across[0]
        self.z = math.sin(elevation)

    def on(self, height: Array) -> Array:
        """Brightness of brushed metal of this height field: diffuse, and Blinn's highlight."""
        gy, gx = np.gradient(height)
        # At a step the slope grows with the sampling; beyond 60 degrees it only makes the edge harsh.
        tame = np.minimum(1, 1.7 / np.maximum(np.hypot(gx, gy), 1e-6))
        gx, gy = gx * tame, gy * tame
        facing = 1 / np.sqrt(gx * gx + gy * gy + 1)
        diffuse = np.maximum((self.z - gx * self.x - gy * self.y) * facing, 0)
        between = math.sqrt(2 + 2 * self.z)
        shine = np.maximum((self.z + 1 - gx * self.x - gy * self.y) * facing / between, 0) ** 24
        bright: Array = self.ambient + 0.5 * diffuse + 0.28 * shine
        return bright


def _brushed(rng: np.random.Generator, px: Array, py: Array) -> Array:
    """Fine lines along the plate and around the eye, as a factor about 1."""
    noise = rng.standard_normal((512, 256), np.float32)
    lines = ndimage.gaussian_filter(noise, (0.7, 16), mode="wrap")
    r, angle = np.hypot(px - _EYE_X, py), np.arctan2(py, px - _EYE_X)
    around = (r < _EYE_R) & (px < _EYE_X + 0.1)
    row = np.where(around, 900 * r, 700 * py + 350)
    column = np.where(around, angle / (2 * np.pi) * 256, 220 * px)
    sampled: Array = ndimage.map_coordinates(lines / lines.std(), [row, column], order=1, mode="grid-wrap")
    return 1 + 0.05 * sampled


def _place(rng: np.random.Generator, *, on_shank: bool) -> tuple[float, float]:
    """A point on the ring of the eye, on the plate, or on the shank."""
    where = rng.integers(3 if on_shank else 2)
    if where == 0:
        angle, r = rng.uniform(0.6, 2 * math.pi - 0.6), rng.uniform(_EYE_HOLE_R + 0.02, _EYE_R - 0.02)
        return _EYE_X + r * math.cos(angle), r * math.sin(angle)
    if where == 1:
        return rng.uniform(-0.09, 0.03), rng.uniform(-0.06, 0.06)
    return rng.uniform(0.16, 0.38), rng.uniform(-0.03, 0.03)


def _place_on_edge(rng: np.random.Generator) -> tuple[float, float]:
    """A point on the outline of the eye or of the plate, away from the small holes."""
    if rng.integers(2) == 0:
        angle = rng.uniform(1.2, 2 * math.pi - 1.2)
        return _EYE_X + _EYE_R * math.cos(angle), _EYE_R * math.sin(angle)
    return float(rng.choice([-0.10, -0.005, 0.035])), _PLATE_HALF * float(rng.choice([-1, 1]))
