"""Generated images of the demo: families of good surfaces and parts, and their small defects.

Every image is rendered twice from the same seed, once good and once defective, and the mask is where the
two differ noticeably; so image and mask agree by construction. Everything that varies between good images
(light, pose, yarn, noise) changes any statistic of the whole image more than a defect does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from blemish.demo.drawing import Array, Drawing, Flaw, blot, dot, drift, grid, ramp, shrink, stroke, turn
from blemish.demo.generated_figures import OTHER_KINDS as OTHER_FIGURES
from blemish.demo.generated_figures import figures
from blemish.demo.generated_parts import BELT, BENCH, rod_end
from blemish.demo.generated_surfaces import surface
from blemish.errors import FileError, UsageError, nearest
from blemish.storage.atomic import atomic_path

__all__ = [
    "DEFECTS",
    "FAMILIES",
    "NOTICEABLE",
    "OTHER_KINDS",
    "Sample",
    "checkerboard",
    "make_sample",
    "strokes_and_dots",
    "write_dataset",
]

FAMILIES = ("weave", "checkerboard", "part", "rod", "surface", "figures", "mouldings")

DEFECTS: dict[str, tuple[str, ...]] = {
    "weave": ("broken_yarn", "thick_yarn", "loose_thread", "stain", "snag", "shift"),
    "checkerboard": ("stroke", "dot"),
    "part": ("scratch", "dent", "chip", "filled_hole", "stain", "particle", "thread_pitch"),
    "rod": ("scratch", "dent", "chip", "filled_hole", "stain", "particle"),
    "surface": ("crack", "scratch", "pit", "stain"),
    "figures": ("broken", "recoloured_whole", "recoloured_part", "scratch", "stain"),
    "mouldings": ("broken", "recoloured_whole", "darkened", "scratch", "stain"),
}

OTHER_KINDS: dict[str, tuple[str, ...]] = {"figures": OTHER_FIGURES}
"""Images of another kind than good ones, without a mask: families that have none are not named."""

NOTICEABLE = 4 / 255
"""A pixel counts as defective from this change on, in any channel, noise apart."""

# Defects outside these shares of the image are drawn again.
_SMALLEST, _LARGEST = 0.0004, 0.01
_LARGEST_OF = {"recoloured_whole": 0.2, "recoloured_part": 0.08, "darkened": 0.2}
_SMALLEST_SIDE = 64


@dataclass(frozen=True)
class Sample:
    """A generated image, the mask of its defect, and the kind of defect.

    ``image`` is uint8 (C, H, W), one channel for ``checkerboard``, ``rod`` and ``surface`` and three for the others;
    ``mask`` is bool (H, W), True where defective; ``kind`` is ``"good"``, one of the family's ``DEFECTS``, or one of its
    ``OTHER_KINDS``, whose mask is empty.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    kind: str


def make_sample(family: str, kind: str, *, seed: int, size: int = 256, strength: float = 1.0) -> Sample:
    """Draw one image of ``family``, good or with one defect, fully determined by the arguments.

    Parameters
    ----------
    family: one of ``FAMILIES``.
    kind: ``"good"`` (the mask is empty), one of ``DEFECTS[family]``, or one of ``OTHER_KINDS`` of the family.
    seed: the scene, at least 0: the same seed shows the same object, with or without a defect.
    size: side of the square image in pixels, at least 64.
    strength: contrast of the defect, above 0; 1 is faint and 3 plain to see, of ``rod``, ``figures`` and ``mouldings`` 1 is plain to see.

    Raises
    ------
    UsageError
        For an unknown family or kind, a value out of range, or a defect too weak to be noticed anywhere.

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
    others = OTHER_KINDS.get(family, ())
    kinds = ("good", *DEFECTS[family], *others)
    if kind not in kinds:
        raise UsageError(f"{family} has no kind {kind!r}; {nearest(kind, kinds)}")
    if seed < 0 or size < _SMALLEST_SIDE or not strength > 0:
        raise UsageError(
            f"a generated image needs seed >= 0, size >= {_SMALLEST_SIDE} and strength > 0, "
            f"not seed {seed}, size {size}, strength {strength}"
        )
    number = FAMILIES.index(family)
    draw = _SCENES[family](np.random.default_rng([seed, number]), size)
    clean = draw(Flaw("good", np.random.default_rng(0), 1.0))
    sensor = np.random.default_rng([seed, number, 1])
    noise = sensor.uniform(0.008, 0.014) * sensor.standard_normal(clean.shape, np.float32)
    if kind == "good" or kind in others:
        image = clean if kind == "good" else draw(Flaw(kind, np.random.default_rng(0), 1.0))
        return Sample(_quantised(image + noise), np.zeros((size, size), dtype=bool), kind)
    # The part grows with the image; yarns, fields and what is wrong with them keep their size in pixels.
    area = (size if family in ("part", "rod", "figures", "mouldings") else 256) ** 2
    for attempt in range(40):
        rng = np.random.default_rng([seed, number, 2, kinds.index(kind), attempt])
        flawed = draw(Flaw(kind, rng, strength))
        mask = _changed(clean, flawed)
        if _SMALLEST * area <= mask.sum() <= _LARGEST_OF.get(kind, _LARGEST) * area:
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
    strength: float = 1.0,
) -> Path:
    """Write a data set of one family in the MVTec layout and return its folder ``root/family``.

    ``train/good/000.png`` …, ``test/good``, ``test/<kind>`` and, of defects, ``ground_truth/<kind>/000_mask.png`` (0 or
    255); ``per_blemish`` images of each kind of defect and of each other kind; ``strength`` as in :func:`make_sample`; the same arguments give the same bytes. No two images of a data set share a scene.

    Raises
    ------
    FileError
        When the folder is there already and not empty, or an image cannot be written.
    """
    if family not in FAMILIES:
        raise UsageError(f"unknown family {family!r}; {nearest(family, FAMILIES)}")
    folder = Path(root) / family
    plan = [("train", "good", i) for i in range(good)] + [("test", "good", i) for i in range(test_good)]
    kinds = (*DEFECTS[family], *OTHER_KINDS.get(family, ()))
    plan += [("test", kind, i) for kind in kinds for i in range(per_blemish)]
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise FileError(folder, "is there already", "name a new folder or remove this one")
    samples = _drawn(
        family, [kind for _, kind, _ in plan], seed=seed * 1_000_003, size=size, strength=strength
    )
    for (split, kind, i), sample in zip(plan, samples, strict=True):
        _write_png(folder / split / kind / f"{i:03d}.png", sample.image)
        if kind in DEFECTS[family]:
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
    y, x = grid(size, 1)
    u, v = turn(x + size / 2, y + size / 2, math.radians(angle))
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
    marks = [stroke(rng, size, rng.uniform(0.15, 0.3) * size, width) for _ in range(strokes)]
    marks += [dot(rng, size, width * rng.uniform(0.7, 1.3)) for _ in range(dots)]
    cover = np.zeros((size, size), np.float32)
    for mark in marks:
        np.maximum(cover, mark, out=cover)
    return cover


# --- weave -------------------------------------------------------------------------------------------------

_PITCH = 8.0  # pixels between neighbouring yarns


def _weave(rng: np.random.Generator, size: int) -> Drawing:
    """A 2/2 twill of two colours, (3, size, size); a larger image shows more of the cloth."""
    y, x = grid(size, 2)
    u0, v0 = turn(x, y, math.radians(rng.uniform(-2, 2)))
    n = 2 * (int(size / _PITCH) + 8)  # yarns of either system, enough for any rotation and phase
    u0 = u0 / _PITCH + n / 2 + rng.uniform(0, 4) + drift(rng, u0.shape, 5, 0.04)
    v0 = v0 / _PITCH + n / 2 + rng.uniform(0, 4) + drift(rng, v0.shape, 5, 0.04)
    yarns = [_YarnSystem(rng, n, sign) for sign in (1, -1)]
    light = rng.uniform(0.88, 1.08) * (1 + drift(rng, u0.shape, 3, 0.04))
    fibres = 1 + ndimage.gaussian_filter(rng.standard_normal(u0.shape, np.float32), 0.8, truncate=2.5) * 0.08
    colours = np.array([[0.30, 0.43, 0.53], [0.86, 0.81, 0.72]]) * rng.normal(1.0, 0.012, (2, 3))
    warp_colour, weft_colour = colours.astype(np.float32)[:, :, None, None]

    def draw(flaw: Flaw) -> Array:
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
            window = ramp((f.uniform(1.6, 3.0) - np.abs(along)) / 0.5)
            change = -0.8 if kind == "broken_yarn" else 0.34
            thickness[system] = np.maximum(1 + change * s * window * same_yarn, 0.02)
        elif kind == "snag":
            near = np.exp(-(du * du + dv * dv) / f.uniform(0.8, 1.1) ** 2)
            u, v = u - 0.4 * s * near * du, v - 0.4 * s * near * dv
            hollow = min(0.45 * s, 0.9) * near**4
        elif kind == "shift":
            v = v + 0.4 * s * ramp((1 - np.hypot(du / 1.7, dv / 1.0)) / 0.3)
        warp, warp_height = yarns[0].drawn(u, v, thickness[0])
        weft, weft_height = yarns[1].drawn(v, u, thickness[1])
        over = ramp((warp_height - weft_height) / 0.12 + 0.5)
        image = warp_colour * (warp * over) + weft_colour * (weft * (1 - over))
        if kind == "loose_thread":
            thread = stroke(f, 2 * size, 2 * f.uniform(0.08, 0.14) * 256, 2.6)
            shadow = ndimage.shift(ndimage.gaussian_filter(thread, 1.5), (2.5, 1.5), order=1)
            image *= 1 - min(0.25 * s, 0.6) * shadow
            image += min(0.6 * s, 1.0) * thread * (0.8 * weft_colour - image)
        if kind == "stain":
            absorbed = np.array([0.11, 0.15, 0.20], np.float32)[:, None, None] * s
            absorbing = blot(f, x, y, (spot[1], spot[0]), f.uniform(5, 9))
            image *= np.maximum(1 - absorbed * absorbing, 0)
        image *= fibres * light * (1 - hollow)
        return shrink(image)

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
        t = ramp(along - 0.5 - crossing_start)
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


def _checkerboard(rng: np.random.Generator, size: int) -> Drawing:
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
    board: Array = flat + drift(rng, flat.shape, 3, 0.03)

    def draw(flaw: Flaw) -> Array:
        if flaw.kind == "good":
            return board[None]
        if flaw.kind == "stroke":
            cover = stroke(flaw.rng, size, flaw.rng.uniform(20, 50), flaw.rng.uniform(1.8, 2.8))
        else:
            cover = dot(flaw.rng, size, flaw.rng.uniform(3.0, 5.0))
        grey: Array = board + min(0.5 * flaw.strength, 1.0) * cover * (middle - board)
        return grey[None]

    return draw


# --- from drawing to file ----------------------------------------------------------------------------------

_SCENES: dict[str, Callable[[np.random.Generator, int], Drawing]] = {
    "weave": _weave,
    "checkerboard": _checkerboard,
    "part": partial(rod_end, station=BENCH),
    "rod": partial(rod_end, station=BELT),
    "surface": surface,
    "figures": figures,
    "mouldings": partial(figures, is_moulding=True),
}


def _drawn(family: str, kinds: Sequence[str], *, seed: int, size: int, strength: float) -> Iterator[Sample]:
    """A sample of each of ``kinds``, with the seeds from ``seed`` on, drawn by all cores a few ahead."""

    def draw(number: int) -> Sample:
        return make_sample(family, kinds[number], seed=seed + number, size=size, strength=strength)

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(kinds), 8 * threads):
            yield from pool.map(draw, range(first, min(first + 8 * threads, len(kinds))))


def _changed(clean: Array, flawed: Array) -> NDArray[np.bool_]:
    """Mask of noticeable differences between two drawings (C, H, W), without crumbs and pinholes."""
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
