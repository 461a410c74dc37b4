"""The demo's images: three families of flawless things and their faint, small blemishes.

Every image is rendered twice from the same seed, once clean and once blemished, and the mask is where the
two differ noticeably; so image and mask agree by construction. Everything that varies between good images
(light, pose, yarn, noise) varies more than what a blemish adds to any figure taken over the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from blemish.errors import FileError, UsageError, nearest
from blemish.storage.atomic import atomic_path

__all__ = [
    "BLEMISHES",
    "FAMILIES",
    "NOTICEABLE",
    "Sample",
    "checkerboard",
    "make_sample",
    "strokes_and_dots",
    "write_dataset",
]

Array = NDArray[np.floating[Any]]

FAMILIES = ("weave", "checkerboard", "part")

BLEMISHES: dict[str, tuple[str, ...]] = {
    "weave": ("broken_yarn", "thick_yarn", "loose_thread", "stain", "snag", "shift"),
    "checkerboard": ("stroke", "dot"),
    "part": ("scratch", "dent", "chip", "filled_hole", "stain", "particle", "thread_pitch"),
}

NOTICEABLE = 4 / 255
"""A pixel counts as blemished from this change on, in any channel, noise apart."""

# Blemishes outside these shares of the image are drawn again.
_SMALLEST, _LARGEST = 0.0004, 0.01
_SMALLEST_SIDE = 64


@dataclass(frozen=True)
class Sample:
    """A generated image and what is wrong with it.

    ``image`` is uint8 (C, H, W), one channel for ``checkerboard`` and three for the others; ``mask`` is
    bool (H, W), True where blemished; ``kind`` is ``"good"`` or one of the family's ``BLEMISHES``.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    kind: str


@dataclass(frozen=True)
class _Flaw:
    kind: str
    rng: np.random.Generator
    strength: float


# A scene drawn, as floats (C, H, W) before noise and clipping: clean, or with one blemish.
_Drawing = Callable[[_Flaw], Array]


def make_sample(family: str, kind: str, *, seed: int, size: int = 256, strength: float = 1.0) -> Sample:
    """Draw one image of ``family``, good or with one blemish, fully determined by the arguments.

    Parameters
    ----------
    family: one of ``FAMILIES``.
    kind: ``"good"`` (the mask is empty) or one of ``BLEMISHES[family]``.
    seed: the scene, at least 0: the same seed shows the same thing, with or without a blemish.
    size: side of the square image in pixels, at least 64.
    strength: contrast of the blemish, above 0; 1 is faint, 3 is plain to see.

    Raises
    ------
    UsageError
        For an unknown family or kind, a value out of range, or a blemish too weak to be noticed anywhere.

    Examples
    --------
    >>> sample = make_sample("weave", "stain", seed=3, size=96)
    >>> sample.image.shape, sample.image.dtype.name, sample.mask.shape
    ((3, 96, 96), 'uint8', (96, 96))
    >>> int(sample.mask.sum()) in range(26, 656)
    True
    """
    if family not in FAMILIES:
        raise UsageError(f"unknown family {family!r}; {nearest(family, FAMILIES)}")
    kinds = ("good", *BLEMISHES[family])
    if kind not in kinds:
        raise UsageError(f"{family} has no kind {kind!r}; {nearest(kind, kinds)}")
    if seed < 0 or size < _SMALLEST_SIDE or not strength > 0:
        raise UsageError(
            f"a generated image needs seed >= 0, size >= {_SMALLEST_SIDE} and strength > 0, "
            f"not seed {seed}, size {size}, strength {strength}"
        )
    number = FAMILIES.index(family)
    draw = _SCENES[family](np.random.default_rng([seed, number]), size)
    clean = draw(_Flaw("good", np.random.default_rng(0), 1.0))
    sensor = np.random.default_rng([seed, number, 1])
    noise = sensor.uniform(0.008, 0.014) * sensor.standard_normal(clean.shape, np.float32)
    if kind == "good":
        return Sample(_quantised(clean + noise), np.zeros((size, size), dtype=bool), kind)
    # The part grows with the image; yarns, fields and what is wrong with them keep their size in pixels.
    area = (size if family == "part" else 256) ** 2
    for attempt in range(40):
        rng = np.random.default_rng([seed, number, 2, kinds.index(kind), attempt])
        flawed = draw(_Flaw(kind, rng, strength))
        mask = _changed(clean, flawed)
        if _SMALLEST * area <= mask.sum() <= _LARGEST * area:
            return Sample(_quantised(flawed + noise), mask, kind)
    raise UsageError(
        f"{family} {kind} of strength {strength} cannot be drawn at seed {seed}, size {size}; "
        "take a strength nearer 1 or another seed"
    )


def write_dataset(
    root: str | Path,
    family: str,
    *,
    good: int = 80,
    test_good: int = 30,
    per_blemish: int = 8,
    seed: int = 0,
    size: int = 256,
) -> Path:
    """Write a data set of one family in the MVTec layout and return its folder ``root/family``.

    ``train/good/000.png`` …, ``test/good``, ``test/<kind>`` and ``ground_truth/<kind>/000_mask.png`` (0 or
    255); the same arguments give the same bytes. No two images of a data set share a scene.

    Raises
    ------
    FileError
        When the folder is there already and not empty, or an image cannot be written.
    """
    if family not in FAMILIES:
        raise UsageError(f"unknown family {family!r}; {nearest(family, FAMILIES)}")
    folder = Path(root) / family
    plan = [("train", "good", i) for i in range(good)] + [("test", "good", i) for i in range(test_good)]
    plan += [("test", kind, i) for kind in BLEMISHES[family] for i in range(per_blemish)]
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise FileError(folder, "is there already", "name a new folder or remove this one")
    for number, (split, kind, i) in enumerate(plan):
        sample = make_sample(family, kind, seed=seed * 1_000_003 + number, size=size)
        _write_png(folder / split / kind / f"{i:03d}.png", sample.image)
        if kind != "good":
            mask = sample.mask[None].astype(np.uint8) * np.uint8(255)
            _write_png(folder / "ground_truth" / kind / f"{i:03d}_mask.png", mask)
    return folder


def checkerboard(
    size: int,
    *,
    period: float,
    angle: float = 0.0,
    phase: tuple[float, float] = (0.0, 0.0),
    dark: float = 0.0,
    light: float = 1.0,
) -> NDArray[np.float32]:
    """Draw an antialiased checkerboard, float32 (size, size) in [dark, light].

    ``period`` is two fields in pixels, ``angle`` the orientation in degrees, ``phase`` the shift along the
    board's two axes in periods. The boards of Bergmann et al. 2018, Figure 3, have size 128.

    Examples
    --------
    >>> checkerboard(4, period=4).astype(int)[0].tolist()
    [1, 1, 0, 0]
    """
    y, x = _grid(size, 1)
    u, v = _turn(x + size / 2, y + size / 2, math.radians(angle))
    # The distance to the nearest edge, cut off at half a pixel, is how much of a pixel a field covers.
    waves = [
        np.clip(2 * period * (0.25 - np.abs((w / period + p + 0.25) % 1.0 - 0.5)), -1, 1)
        for w, p in ((u, phase[0]), (v, phase[1]))
    ]
    board: Array = dark + (light - dark) * (0.5 + 0.5 * waves[0] * waves[1])
    return board.astype(np.float32)


def strokes_and_dots(
    size: int, *, seed: int, strokes: int = 2, dots: int = 3, width: float | None = None
) -> NDArray[np.float32]:
    """Coverage of freehand strokes and round dots, float32 (size, size) in [0, 1], antialiased.

    Paint them with ``image * (1 - coverage) + grey * coverage``. ``width`` of a stroke is in pixels, by
    default size / 40; a dot is about twice as wide.
    """
    rng = np.random.default_rng(seed)
    width = size / 40 if width is None else width
    marks = [_stroke(rng, size, rng.uniform(0.15, 0.3) * size, width) for _ in range(strokes)]
    marks += [_dot(rng, size, width * rng.uniform(0.7, 1.3)) for _ in range(dots)]
    cover = np.zeros((size, size), np.float32)
    for mark in marks:
        np.maximum(cover, mark, out=cover)
    return cover


# --- weave -------------------------------------------------------------------------------------------------

_PITCH = 8.0  # pixels between neighbouring yarns


def _weave(rng: np.random.Generator, size: int) -> _Drawing:
    """A 2/2 twill of two colours, (3, size, size); a larger image shows more of the cloth."""
    y, x = _grid(size, 2)
    u0, v0 = _turn(x, y, math.radians(rng.uniform(-2, 2)))
    n = 2 * (int(size / _PITCH) + 8)  # yarns of either system, enough for any rotation and phase
    u0 = u0 / _PITCH + n / 2 + rng.uniform(0, 4) + _drift(rng, u0.shape, 5, 0.04)
    v0 = v0 / _PITCH + n / 2 + rng.uniform(0, 4) + _drift(rng, v0.shape, 5, 0.04)
    yarns = [_YarnSystem(rng, n, sign) for sign in (1, -1)]
    light = rng.uniform(0.88, 1.08) * (1 + _drift(rng, u0.shape, 3, 0.04))
    fibres = 1 + ndimage.gaussian_filter(rng.standard_normal(u0.shape, np.float32), 0.8, truncate=2.5) * 0.08
    colours = np.array([[0.30, 0.43, 0.53], [0.86, 0.81, 0.72]]) * rng.normal(1.0, 0.012, (2, 3))
    warp_colour, weft_colour = colours.astype(np.float32)[:, :, None, None]

    def draw(flaw: _Flaw) -> Array:
        u, v = u0, v0
        thickness: list[Array | float] = [1.0, 1.0]
        hollow: Array | float = 0.0
        kind, s, f = flaw.kind, flaw.strength, flaw.rng
        spot = f.uniform(-0.38, 0.38, 2) * size
        row, column = (size + 2 * spot).astype(int)
        du, dv = u - u[row, column], v - v[row, column]
        if kind in ("broken_yarn", "thick_yarn"):
            system = int(f.integers(2))
            across, along = ((u, dv), (v, du))[system]
            same_yarn = np.floor(across) == np.floor(across[row, column])
            window = _ramp((f.uniform(1.6, 3.0) - np.abs(along)) / 0.5)
            change = -0.8 if kind == "broken_yarn" else 0.34
            thickness[system] = np.maximum(1 + change * s * window * same_yarn, 0.02)
        elif kind == "snag":
            near = np.exp(-(du * du + dv * dv) / f.uniform(0.8, 1.1) ** 2)
            u, v = u - 0.4 * s * near * du, v - 0.4 * s * near * dv
            hollow = min(0.45 * s, 0.9) * near**4
        elif kind == "shift":
            v = v + 0.4 * s * _ramp((1 - np.hypot(du / 1.7, dv / 1.0)) / 0.3)
        warp, warp_height = yarns[0].drawn(u, v, thickness[0])
        weft, weft_height = yarns[1].drawn(v, u, thickness[1])
        over = _ramp((warp_height - weft_height) / 0.12 + 0.5)
        image = warp_colour * (warp * over) + weft_colour * (weft * (1 - over))
        if kind == "loose_thread":
            thread = _stroke(f, 2 * size, 2 * f.uniform(0.08, 0.14) * 256, 2.6)
            shadow = ndimage.shift(ndimage.gaussian_filter(thread, 1.5), (2.5, 1.5), order=1)
            image *= 1 - min(0.25 * s, 0.6) * shadow
            image += min(0.6 * s, 1.0) * thread * (0.8 * weft_colour - image)
        if kind == "stain":
            absorbed = np.array([0.11, 0.15, 0.20], np.float32)[:, None, None] * s
            blot = _blot(f, x, y, (spot[1], spot[0]), f.uniform(5, 9))
            image *= np.maximum(1 - absorbed * blot, 0)
        image *= fibres * light * (1 - hollow)
        return _shrink(image)

    return draw


class _YarnSystem:
    """The warp (``sign`` +1) or the weft (−1): its yarns' own widths, tints and twists."""

    def __init__(self, rng: np.random.Generator, n: int, sign: int) -> None:
        self.half_width = (0.48 * rng.normal(1.0, 0.04, n)).astype(np.float32)
        self.tint = rng.normal(1.0, 0.03, n).astype(np.float32)
        self.twist = rng.uniform(0, 2 * np.pi, n).astype(np.float32)
        self.lean = rng.uniform(-0.15, 0.15)
        # 2/2 twill: a warp yarn lies above two wefts, then below two.
        self.crimp = sign * np.array([1, 1, -1, -1], np.float32)

    def drawn(self, across: Array, along: Array, thickness: Array | float) -> tuple[Array, Array]:
        """Brightness and height at coordinates in yarns, ``across`` and ``along`` this system."""
        yarn_start, crossing_start = np.floor(across), np.floor(along - 0.5)
        a = across - yarn_start - 0.5
        t = _ramp(along - 0.5 - crossing_start)
        yarn = yarn_start.astype(np.intp)
        step = (yarn + crossing_start.astype(np.intp)) & 3
        crimp = self.crimp[step]
        crimp += (np.roll(self.crimp, -1)[step] - crimp) * t
        a_width = a / (self.half_width[yarn] * thickness)
        inside = np.abs(a_width) < 1
        a_width = np.clip(a_width, -1, 1)
        dome = 1 - a_width * a_width
        height = 0.4 * crimp + np.where(inside, dome * thickness, -2)
        twist = np.sin(9.4 * along + 5.0 * a + self.twist[yarn])
        bright = (0.40 + 0.60 * dome) * (0.78 + 0.22 * crimp) * (1 + self.lean * a_width + 0.06 * twist)
        return bright * self.tint[yarn], height


# --- checkerboard ------------------------------------------------------------------------------------------


def _checkerboard(rng: np.random.Generator, size: int) -> _Drawing:
    """A grey board of random scale, orientation, phase and contrast, (1, size, size)."""
    middle, contrast = rng.uniform(0.44, 0.56), rng.uniform(0.24, 0.4)
    flat = checkerboard(
        size,
        period=float(rng.choice([20.0, 28.0, 36.0]) * rng.uniform(0.95, 1.05)),
        angle=float(rng.choice([0.0, 30.0, 45.0, 60.0]) + rng.uniform(-4, 4)),
        phase=(rng.uniform(), rng.uniform()),
        dark=middle - contrast,
        light=middle + contrast,
    )
    board: Array = flat + _drift(rng, flat.shape, 3, 0.03)

    def draw(flaw: _Flaw) -> Array:
        if flaw.kind == "good":
            return board[None]
        if flaw.kind == "stroke":
            cover = _stroke(flaw.rng, size, flaw.rng.uniform(20, 50), flaw.rng.uniform(1.8, 2.8))
        else:
            cover = _dot(flaw.rng, size, flaw.rng.uniform(3.0, 5.0))
        grey: Array = board + min(0.5 * flaw.strength, 1.0) * cover * (middle - board)
        return grey[None]

    return draw


# --- part --------------------------------------------------------------------------------------------------

# In image sides, along and across the part from its centre.
_EYE_X, _EYE_R, _EYE_HOLE_R = -0.25, 0.152, 0.076
_PLATE_X, _PLATE_HALF = (-0.26, 0.065), 0.090
_HOLES = ((-0.048, 0.050, 0.019), (-0.048, -0.050, 0.019), (0.018, 0.0, 0.013))  # x, y, radius
_COLLAR_X, _COLLAR_HALF, _COLLAR_R = 0.083, 0.016, 0.070
_SHANK_END, _SHANK_R, _THREAD_START, _THREAD_PITCH = 0.415, 0.055, 0.135, 0.0235


def _part(rng: np.random.Generator, size: int) -> _Drawing:
    """A rod end (eye, plate with three holes, threaded shank) on a mat, (3, size, size).

    The part is a height field, so that light, shadow and most blemishes follow from its shape; a larger
    image shows it finer.
    """
    y, x = _grid(size, 2)
    shift_x, shift_y = rng.uniform(-0.035, 0.035, 2).tolist()
    x, y = x / size - shift_x, y / size - shift_y
    px, py = _turn(x, y, math.radians(rng.uniform(-25, 25)))
    light = _Light(rng)
    mat: Array = 1 + 0.14 * ndimage.gaussian_filter(rng.standard_normal(x.shape, np.float32), 1.6)
    mat *= 0.30 * rng.uniform(0.85, 1.15) * (1 + _drift(rng, x.shape, 3, 0.05))
    surface = _brushed(rng, px, py) * (1 + _drift(rng, x.shape, 24, 0.015))
    thread_phase = rng.uniform()
    from_eye = np.hypot(px - _EYE_X, py)

    def draw(flaw: _Flaw) -> Array:
        kind, s, f = flaw.kind, flaw.strength, flaw.rng
        spot = _place(f, on_shank=kind in ("stain", "particle"))

        # Outlines are distances to the edge, positive inside.
        half, middle = (_PLATE_X[1] - _PLATE_X[0]) / 2, (_PLATE_X[1] + _PLATE_X[0]) / 2
        flat = _filleted(_EYE_R - from_eye, _box(px - middle, py, half, _PLATE_HALF, 0.015), 0.03)
        if kind == "chip":
            edge = _place_on_edge(f)
            flat = np.minimum(flat, -_patch(f, px, py, edge, f.uniform(0.011, 0.018) * math.sqrt(s)))
        turns = px / _THREAD_PITCH + thread_phase + 0.18 * py / _SHANK_R
        if kind == "thread_pitch":
            turns = turns + 0.4 * s * np.exp(-(((px - f.uniform(0.19, 0.36)) / 0.016) ** 2))
        groove = np.abs(turns % 1.0 - 0.5) * 2 * _ramp((px - _THREAD_START) / 0.02)
        radius = _SHANK_R - 0.0065 * groove - 0.35 * np.maximum(px - _SHANK_END + 0.02, 0)
        shank = np.minimum(radius - np.abs(py), np.minimum(px - _COLLAR_X, _SHANK_END - px))
        collar = _box(px - _COLLAR_X, py, _COLLAR_HALF, _COLLAR_R, 0.004)
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
            away = _segment(f, px, py, spot, f.uniform(0.05, 0.11))
            height -= 0.0012 * s * np.exp(-((away / max(0.0022, 0.5 / size)) ** 2))

        body = np.maximum(np.maximum(flat, shank), collar)
        outline = np.minimum(body, -np.maximum.reduce(holes))
        cover = np.maximum(np.clip(outline * size * 2 + 0.5, 0, 1), plug)
        metal = light.on(height * size * 2) * surface
        if kind == "stain":
            metal *= np.maximum(1 - 0.14 * s * _blot(f, px, py, spot, f.uniform(0.018, 0.03)), 0)
        shadow = ndimage.shift(cover, [-0.028 * size * d for d in light.across], order=1)
        ground = mat * (1 - 0.55 * ndimage.gaussian_filter(shadow, 0.012 * size))
        image = _STEEL * (metal * cover) + _MAT * (ground * (1 - cover))
        if kind == "particle":
            speck = np.clip(_patch(f, px, py, spot, f.uniform(0.010, 0.014)) * size * 2 + 0.5, 0, 1)
            image += min(0.6 * s, 1.0) * speck * (_DIRT * f.uniform(0.7, 1.3) - image)
        return _shrink(image * light.level)

    return draw


_STEEL = np.array([0.98, 1.0, 1.03], np.float32)[:, None, None]
_MAT = np.array([0.80, 1.0, 1.12], np.float32)[:, None, None]
_DIRT = np.array([0.42, 0.40, 0.36], np.float32)[:, None, None]


class _Light:
    """A distant lamp above the part, seen by a camera straight overhead."""

    def __init__(self, rng: np.random.Generator) -> None:
        azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(48, 62))
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
        bright: Array = 0.14 + 0.5 * diffuse + 0.28 * shine
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


# --- shapes ------------------------------------------------------------------------------------------------


def _grid(size: int, samples: int) -> tuple[Array, Array]:
    """Rows and columns of the sample points in pixels from the centre, ``samples`` a pixel side."""
    c = ((np.arange(size * samples) + 0.5) / samples - size / 2).astype(np.float32)
    y, x = np.meshgrid(c, c, indexing="ij")
    return y, x


def _turn(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, c * y - s * x


def _ramp(t: Array) -> Array:
    """Smooth step from 0 at t <= 0 to 1 at t >= 1."""
    t = np.clip(t, 0, 1)
    smooth: Array = t * t * (3 - 2 * t)
    return smooth


def _drift(rng: np.random.Generator, shape: tuple[int, ...], knots: int, sd: float) -> Array:
    """Slow random change over the image, of mean 0."""
    grid = Image.fromarray(rng.normal(0, sd, (knots, knots)).astype(np.float32))
    return np.asarray(grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _shrink(image: Array) -> Array:
    """From two samples a pixel side to one: (C, 2H, 2W) to (C, H, W)."""
    rows = image[:, ::2] + image[:, 1::2]
    quarter: Array = (rows[:, :, ::2] + rows[:, :, 1::2]) * 0.25
    return quarter


def _box(x: Array, y: Array, half_x: float, half_y: float, corner: float) -> Array:
    """Distance to the edge of a rounded box, positive inside."""
    dx, dy = np.abs(x) - half_x + corner, np.abs(y) - half_y + corner
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    distance: Array = corner - outside - np.minimum(np.maximum(dx, dy), 0)
    return distance


def _filleted(a: Array, b: Array, radius: float) -> Array:
    """Union of two distances with a fillet where they meet."""
    t = np.maximum(radius - np.abs(a - b), 0)
    union: Array = np.maximum(a, b) + t * t / (4 * radius)
    return union


def _segment(rng: np.random.Generator, x: Array, y: Array, middle: Sequence[float], length: float) -> Array:
    """Distance to a straight line of random direction and this length."""
    along, across = _turn(x - middle[0], y - middle[1], rng.uniform(0, math.pi))
    distance: Array = np.hypot(across, np.maximum(np.abs(along) - length / 2, 0))
    return distance


def _patch(rng: np.random.Generator, x: Array, y: Array, middle: Sequence[float], radius: float) -> Array:
    """Distance to the edge of an irregular round patch, positive inside."""
    dx, dy = x - middle[0], y - middle[1]
    angle = np.arctan2(dy, dx)
    edge = np.ones_like(angle)
    for lobes in (2, 3, 5):
        edge += rng.normal(0, 0.25 / lobes) * np.cos(lobes * angle + rng.uniform(0, 2 * math.pi))
    distance: Array = radius * edge - np.hypot(dx, dy)
    return distance


def _blot(rng: np.random.Generator, x: Array, y: Array, middle: Sequence[float], radius: float) -> Array:
    """An irregular patch with soft edges, 1 inside and 0 outside."""
    return _ramp(_patch(rng, x, y, middle, radius) / (0.6 * radius) + 0.5)


def _stroke(rng: np.random.Generator, size: int, length: float, width: float) -> Array:
    """Coverage of a curved stroke somewhere inside the image."""
    t = np.linspace(0, 1, 24)
    heading = rng.uniform(0, 2 * math.pi) + rng.normal(0, 1.2) * t + rng.normal(0, 1.5) * t**2
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)]), axis=1) * length / t.size
    path -= (path.max(axis=1, keepdims=True) + path.min(axis=1, keepdims=True)) / 2
    room = np.maximum(size / 2 - path.max(axis=1) - width - 1, 0)
    path += (size / 2 + rng.uniform(-1, 1, 2) * room)[:, None]
    return _line(size, path, width)


def _dot(rng: np.random.Generator, size: int, radius: float) -> Array:
    centre = rng.uniform(radius + 1, size - radius - 1, 2)
    return _line(size, np.stack([centre, centre], axis=1), 2 * radius)


def _line(size: int, path: NDArray[np.float64], width: float) -> Array:
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


# --- from drawing to file ----------------------------------------------------------------------------------

_SCENES: dict[str, Callable[[np.random.Generator, int], _Drawing]] = {
    "weave": _weave,
    "checkerboard": _checkerboard,
    "part": _part,
}


def _changed(clean: Array, flawed: Array) -> NDArray[np.bool_]:
    """Where two drawings (C, H, W) differ noticeably, without crumbs and pinholes."""
    changed = np.abs(flawed - clean).max(axis=0) >= NOTICEABLE
    neighbours = np.ones((3, 3), dtype=bool)
    joined = ndimage.binary_closing(np.pad(changed, 2), neighbours)[2:-2, 2:-2]
    labels, _ = ndimage.label(joined, neighbours)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    mask: NDArray[np.bool_] = (areas >= 4)[labels]
    return mask


def _quantised(image: Array) -> NDArray[np.uint8]:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    encoded = Image.fromarray(image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1))
    with atomic_path(path) as partial:
        encoded.save(partial, format="PNG", compress_level=3)
