"""A generated painting that five sensors saw, with the truth of what each of them shows.

The painting is built up as a real one is, and every sensor looks at the same layers:

- a wooden panel or a canvas, whose grain or weave the X-ray shows;
- a white ground, and on it an underdrawing of carbon, which infrared sees through thin paint;
- paint of pigments that differ in colour, in how much infrared they let through, in how much X-ray they stop
  (lead white above all, and so the lights of the painting) and in how they fluoresce;
- a part that was painted over: the figure below is in no photograph, but in infrared and X-ray;
- craquelure through all of it;
- losses that were retouched, a yellowed varnish above, and a window in it that has been cleaned: what the
  photograph before treatment and ultraviolet show. The photograph during treatment is without varnish and
  retouching, and shows the losses.

The eleven channels are those of Xie, Meeus, Pižurica 2019, section 1: photographs during and before treatment,
infrared reflectography, X-ray and ultraviolet fluorescence.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, spatial

from blemish.data.scene_description import MODALITIES_FILE
from blemish.errors import FileError, UsageError
from blemish.storage.atomic import atomic_path, write_text

__all__ = ["MASKS", "MODALITIES", "Painting", "make_painting", "write_painting", "write_paintings"]

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

MODALITIES = {"visible": 3, "before": 3, "infrared": 1, "xray": 1, "ultraviolet": 3}
"""Channels of each modality, in their order."""
MASKS = ("craquelure", "underdrawing", "overpainting", "losses")
SMALLEST = 64

_SIXTEEN_BITS = ("infrared", "xray")
_TILE = 256


@dataclass(frozen=True)
class Painting:
    """A generated painting, and where it has what."""

    images: dict[str, Floats]
    """By the names of ``MODALITIES``: (C, H, W) in [0, 1]."""
    masks: dict[str, Mask]
    """By the names of ``MASKS``: (H, W)."""

    @property
    def stacked(self) -> Floats:
        """All modalities as one image, (11, H, W)."""
        return np.concatenate([self.images[name] for name in MODALITIES])


def make_painting(seed: int, size: int = 512) -> Painting:
    """Draw one painting, fully determined by ``seed``.

    Parameters
    ----------
    seed: at least 0; another one is another composition, in other pigments, on another support.
    size: side of the square panel in pixels, at least 64. The composition grows with it; cracks, brush marks and
        the support keep their size in pixels.

    Raises
    ------
    UsageError
        For a value out of range.

    Examples
    --------
    >>> painting = make_painting(0, 96)
    >>> {name: image.shape for name, image in painting.images.items()}["infrared"]
    (1, 96, 96)
    >>> painting.stacked.shape, sorted(painting.masks)
    ((11, 96, 96), ['craquelure', 'losses', 'overpainting', 'underdrawing'])
    """
    if seed < 0 or size < SMALLEST:
        raise UsageError(
            f"a generated painting needs seed >= 0 and size >= {SMALLEST}, not seed {seed}, size {size}"
        )
    rng = np.random.default_rng([seed, 2019])
    canvas = _Canvas(rng, size)
    support = _support(rng, canvas)
    hidden, seen = _compose(rng, canvas)
    covered = _covered(rng, canvas, seen.hidden_at)
    above = _paint(canvas, seen.layers)
    below = _Paint(*(_mix(a, b, covered) for a, b in zip(above, _paint(canvas, hidden), strict=True)))
    drawing = _underdrawing(canvas, hidden)
    losses = _losses(rng, canvas, covered)
    cracks = _craquelure(rng, canvas, along_grain=support.wood) * (1 - losses)
    varnish = _varnish(rng, canvas)

    # The photographs see the upper paint. Where it covers something its colour was not matched quite.
    matched = 1 + 0.05 * rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32) * covered
    colour = above.colour * matched
    colour = _mix(colour, colour * np.array([0.33, 0.30, 0.27], np.float32)[:, None, None], 0.8 * cracks)
    chalk = np.array([0.86, 0.81, 0.71], np.float32)[:, None, None] * (0.94 + 0.06 * canvas.grain)
    visible = _mix(colour, chalk, losses)
    retouching = colour * np.array([1.05, 0.98, 0.92], np.float32)[:, None, None]
    retouching = ndimage.gaussian_filter(retouching, (0, 2.5, 2.5))  # its brush does not follow the old one's
    yellowed = np.exp(-varnish * np.array([0.16, 0.34, 0.85], np.float32)[:, None, None])
    before = _mix(colour, retouching, losses) * yellowed

    # Infrared: what the paint reflects itself, and what it lets through, there and back, of ground and drawing.
    thin_below = np.exp(-2 * below.infrared_stop)
    thin_above = np.exp(-1.1 * above.infrared_stop)
    ground = 0.9 * (1 - 0.85 * drawing)
    infrared = below.infrared * (1 - thin_below) + ground * thin_below
    over = above.infrared * (1 - thin_above) + infrared * thin_above
    infrared = _mix(infrared, over, covered)
    infrared = _mix(infrared, 0.45 * infrared, 0.7 * cracks)
    infrared = _mix(infrared, 0.55 + 0.1 * infrared, losses)

    # X-ray: what stops it adds up, layer by layer; where paint is lost or cracked there is less of it.
    paint = below.xray_stop + 0.55 * above.xray_stop * covered
    stopped = support.xray_stop + 0.10 + paint * (1 - 0.75 * cracks) * (1 - 0.9 * losses)
    xray = 1 - np.exp(-1.15 * stopped)

    # Ultraviolet: varnish glows and hides the paint's own glow; retouching on top of it is dark.
    hiding = np.exp(-0.7 * varnish)
    glow = above.fluorescence * hiding
    glow += np.array([0.42, 0.66, 0.55], np.float32)[:, None, None] * (1 - hiding)
    glow *= 1 - 0.5 * cracks
    ultraviolet = _mix(glow, np.broadcast_to(np.float32(0.07), glow.shape), 0.85 * losses)

    images = {
        "visible": _sensed(rng, visible, blur=0.0, noise=0.006),
        "before": _sensed(rng, before, blur=0.0, noise=0.006),
        "infrared": _sensed(rng, infrared[None], blur=0.7, noise=0.007),
        "xray": _sensed(rng, xray[None], blur=0.8, noise=0.010),
        "ultraviolet": _sensed(rng, ultraviolet, blur=0.6, noise=0.008),
    }
    masks = {
        "craquelure": cracks > 0.5,
        "underdrawing": drawing > 0.4,
        "overpainting": covered > 0.5,
        "losses": losses > 0.5,
    }
    return Painting(images, masks)


def write_painting(folder: str | Path, *, seed: int = 0, size: int = 512) -> Path:
    """Write one painting as a scene: tiled TIFFs, a ``modalities.yaml``, and ``masks/`` as PNG (0 or 255).

    Infrared and X-ray have 16 bits, the others 8. The same arguments give the same bytes.

    Raises
    ------
    FileError
        When the folder is there already and not empty, or cannot be written.
    UsageError
        As :func:`make_painting`.
    """
    folder = _claimed(Path(folder))
    _write_scene(folder, make_painting(seed, size))
    _write_description(folder)
    return folder


def write_paintings(root: str | Path, count: int, *, seed: int = 0, size: int = 512) -> Path:
    """Write ``count`` paintings as ``root/painting-000`` …, with one ``root/modalities.yaml`` for all.

    Raises
    ------
    FileError, UsageError
        As :func:`write_painting`.
    """
    root = _claimed(Path(root))
    for number in range(count):
        _write_scene(root / f"painting-{number:03d}", make_painting(seed + number, size))
    _write_description(root)
    return root


# -- what everything is drawn with ---------------------------------------------------------------------


class _Canvas:
    """Coordinates of the pixels, and textures that several layers share."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        self.rows, self.columns = rows, columns
        # Of the composition: 0 to 1 over the panel, with the unsteadiness of a hand.
        self.x = (columns + 0.5) / size + 0.012 * _smooth(rng, size, size / 6)
        self.y = (rows + 0.5) / size + 0.012 * _smooth(rng, size, size / 6)
        self.grain = _smooth(rng, size, 0.8)
        self._strokes = rng.standard_normal((512, 512), np.float32)

    def brush(self, angle: float) -> Floats:
        """Marks of a brush moved at ``angle``, of variance 1."""
        c, s = math.cos(angle), math.sin(angle)
        along = (c * self.columns + s * self.rows) / 9 + 0.4 * self.grain
        across = (-s * self.columns + c * self.rows) / 1.7
        marks: Floats = ndimage.map_coordinates(self._strokes, [across, along], order=1, mode="grid-wrap")
        return marks


def _smooth(rng: np.random.Generator, size: int, sigma: float) -> Floats:
    """Gaussian noise (size, size) of so many pixels' extent, of mean 0 and variance 1."""
    # Coarse noise is drawn coarsely, so that a wide filter is no cost.
    step = max(1, int(sigma / 3))
    side = size // step + 8
    noise = ndimage.gaussian_filter(rng.standard_normal((side, side), np.float32), sigma / step, mode="wrap")
    noise = (noise - noise.mean()) / noise.std()
    if step > 1:
        at = (np.arange(size, dtype=np.float32) + 0.5) / step + 3
        noise = ndimage.map_coordinates(noise, np.meshgrid(at, at, indexing="ij"), order=1)
    return np.ascontiguousarray(noise[:size, :size], np.float32)


def _ramp(values: Floats) -> Floats:
    """0 below −½, 1 above ½: how much of a pixel lies inside, for signed distances in pixels."""
    covered: Floats = np.clip(values + 0.5, 0, 1)
    return covered


def _mix(below: Floats, above: Floats, cover: Floats) -> Floats:
    mixed: Floats = below + (above - below) * cover
    return mixed


# -- support -------------------------------------------------------------------------------------------


class _Support(NamedTuple):
    wood: bool
    xray_stop: Floats


def _support(rng: np.random.Generator, canvas: _Canvas) -> _Support:
    """A panel with its grain, or a canvas with its weave."""
    if rng.random() < 0.5:
        # Rings of a plank, bent along it; the late wood is narrow and dense.
        bent = canvas.columns + 7 * _smooth(rng, canvas.size, 60) + canvas.rows * rng.uniform(-0.06, 0.06)
        ring = (bent / rng.uniform(9, 15)) % 1.0
        return _Support(True, (0.10 + 0.16 * ring**3 + 0.015 * canvas.grain).astype(np.float32))
    pitch = rng.uniform(4.5, 6.5)
    u = canvas.columns / pitch + 0.25 * _smooth(rng, canvas.size, 18)
    v = canvas.rows / pitch + 0.25 * _smooth(rng, canvas.size, 18)
    weave = np.sin(2 * np.pi * u) ** 2 + np.sin(2 * np.pi * v) ** 2
    return _Support(False, (0.10 + 0.07 * weave + 0.02 * canvas.grain).astype(np.float32))


# -- pigments and paint --------------------------------------------------------------------------------


class _Pigment(NamedTuple):
    colour: tuple[float, float, float]
    infrared: float
    """What a thick layer of it reflects there."""
    infrared_stop: float
    xray_stop: float
    fluorescence: tuple[float, float, float]


_PIGMENTS = {
    "lead white": _Pigment((0.90, 0.87, 0.79), 0.92, 1.1, 1.60, (0.42, 0.43, 0.46)),
    "vermilion": _Pigment((0.66, 0.15, 0.09), 0.80, 0.5, 1.10, (0.13, 0.05, 0.05)),
    "madder": _Pigment((0.42, 0.07, 0.11), 0.74, 0.25, 0.10, (0.42, 0.22, 0.20)),
    "azurite": _Pigment((0.14, 0.29, 0.47), 0.36, 0.9, 0.40, (0.06, 0.08, 0.14)),
    "ultramarine": _Pigment((0.12, 0.16, 0.46), 0.68, 0.35, 0.12, (0.09, 0.09, 0.18)),
    "verdigris": _Pigment((0.10, 0.34, 0.22), 0.30, 0.8, 0.45, (0.04, 0.08, 0.07)),
    "lead-tin yellow": _Pigment((0.82, 0.69, 0.26), 0.88, 0.6, 1.30, (0.30, 0.30, 0.20)),
    "umber": _Pigment((0.29, 0.20, 0.12), 0.42, 0.6, 0.22, (0.09, 0.08, 0.07)),
    "bone black": _Pigment((0.08, 0.07, 0.07), 0.10, 1.6, 0.14, (0.05, 0.05, 0.06)),
}
_DRAPERIES = ("vermilion", "madder", "ultramarine", "verdigris", "azurite", "lead-tin yellow")


class _Layer(NamedTuple):
    """One thing in the composition."""

    inside: Floats
    """Signed distance to its edge in pixels, about; positive inside."""
    pigment: str
    light: Floats
    """From −1, where it is shaded with black, to 1, where it is raised with lead white."""
    angle: float
    """Of the brush."""
    thickness: float = 1.0


class _Paint(NamedTuple):
    """What the sensors meet in a painted layer: (3, H, W) or (H, W)."""

    colour: Floats
    infrared: Floats
    infrared_stop: Floats
    xray_stop: Floats
    fluorescence: Floats


def _paint(canvas: _Canvas, layers: list[_Layer]) -> _Paint:
    """``layers`` one over the other, each hiding what is below."""
    side = canvas.size
    properties = np.zeros((9, side, side), np.float32)
    for layer in layers:
        own, white, black = (
            np.array([*p.colour, p.infrared, p.infrared_stop, p.xray_stop, *p.fluorescence], np.float32)
            for p in (_PIGMENTS[layer.pigment], _PIGMENTS["lead white"], _PIGMENTS["bone black"])
        )
        marks = canvas.brush(layer.angle)
        light = layer.light + 0.06 * marks
        lit, shaded = 0.75 * np.clip(light, 0, 1), 0.7 * np.clip(-light, 0, 1)
        mixed = own[:, None, None] * (1 - lit - shaded)
        mixed += white[:, None, None] * lit + black[:, None, None] * shaded  # (9, H, W)
        # What stops light grows with the thickness, thicker in the lights.
        thick = layer.thickness * (0.75 + 0.35 * np.clip(light, -0.6, 1) + 0.12 * marks)
        mixed[4:6] *= np.maximum(thick, 0.15)
        mixed[:4] *= 1 + 0.035 * marks
        cover = _ramp(layer.inside)
        properties += (mixed - properties) * cover
    return _Paint(properties[:3], properties[3], properties[4], properties[5], properties[6:])


# -- composition ---------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    layers: list[_Layer]
    hidden_at: tuple[float, float, float, float]
    """Middle x, y and half axes of what the upper paint hides."""


def _compose(rng: np.random.Generator, canvas: _Canvas) -> tuple[list[_Layer], _Seen]:
    """The first version, with a figure that the second one is without."""
    background = _background(rng, canvas)
    left = bool(rng.random() < 0.5)
    standing = rng.uniform(0.30, 0.38) if left else rng.uniform(0.62, 0.70)
    figure = _figure(rng, canvas, standing, rng.uniform(0.22, 0.30), rng.uniform(0.95, 1.1))
    beside = rng.uniform(0.72, 0.80) if left else rng.uniform(0.20, 0.28)
    top = rng.uniform(0.36, 0.46)
    other = _figure(rng, canvas, beside, top, rng.uniform(0.55, 0.7))
    table = _parapet(rng, canvas)
    seen = [*background, *figure, *table]
    hidden = [*background, *other, *figure, *table]
    return hidden, _Seen(seen, (beside, top + 0.20, 0.16, 0.30))


def _shade(rng: np.random.Generator, canvas: _Canvas, extent: float, strength: float) -> Floats:
    return (strength * _smooth(rng, canvas.size, extent * canvas.size)).astype(np.float32)


def _background(rng: np.random.Generator, canvas: _Canvas) -> list[_Layer]:
    """Sky and hills, or a dark room with a cloth of honour."""
    x, y, size = canvas.x, canvas.y, canvas.size
    everywhere = np.full((size, size), 1.0, np.float32)
    if rng.random() < 0.6:
        horizon = rng.uniform(0.42, 0.55)
        clouds = _shade(rng, canvas, 0.07, 0.16) * np.clip(1.4 - y, 0, 1)
        sky = _Layer(everywhere, "azurite", (-0.15 + 1.1 * y / horizon + clouds).astype(np.float32), 0.05)
        layers = [sky]
        for number, pigment in enumerate(("azurite", "verdigris", "umber")):
            at = horizon + 0.09 * number
            ridge = sum(
                rng.uniform(0.01, 0.03) * np.sin(2 * np.pi * (f * x + rng.random())) for f in (1.3, 2.9, 6.1)
            )
            light = 0.45 - 0.3 * number + _shade(rng, canvas, 0.03, 0.18)
            inside = ((y - at - ridge) * size).astype(np.float32)
            layers.append(_Layer(inside, pigment, light, rng.uniform(-0.3, 0.3), 0.8))
        return layers
    room = _Layer(everywhere, "umber", _shade(rng, canvas, 0.15, 0.2) - 0.35, 1.2, 0.8)
    pattern = 0.35 * np.sign(np.sin(24 * np.pi * (x + y)) * np.sin(24 * np.pi * (x - y)))
    half = rng.uniform(0.26, 0.34)
    inside = (np.minimum(half - np.abs(x - 0.5), 0.8 - y) * size).astype(np.float32)
    light = (pattern * 0.5 + _shade(rng, canvas, 0.1, 0.15)).astype(np.float32)
    return [room, _Layer(inside, str(rng.choice(["verdigris", "madder"])), light, 1.5, 0.7)]


def _figure(
    rng: np.random.Generator, canvas: _Canvas, middle: float, top: float, scale: float
) -> list[_Layer]:
    """A draped figure with a head, lit from the left; ``top`` is the middle of the head."""
    x, y, size = (canvas.x - middle) / scale, (canvas.y - top) / scale, canvas.size
    pixels = np.float32(size * scale)

    def ellipse(cx: float, cy: float, a: float, b: float) -> Floats:
        r = np.hypot((x - cx) / a, (y - cy) / b)
        return np.asarray((1 - r) * min(a, b) * pixels, np.float32)

    shoulders = 0.07 + 0.20 * np.sqrt(np.clip((y - 0.10) / 0.55, 0, 1.4))
    body = np.minimum(shoulders - np.abs(x), y - 0.10) * pixels
    bend = x + 0.05 * np.sin(7 * y + rng.uniform(0, 6)) + 0.03 * _smooth(rng, size, size * scale / 12)
    turns = rng.uniform(38, 52)
    folds = np.sin(turns * bend * (1 + 0.4 * y) + rng.uniform(0, 6))
    drapery = (0.1 + 0.34 * folds - 1.3 * x).astype(np.float32)
    cloth, lining = rng.choice(_DRAPERIES, 2, replace=False)
    mantle = np.minimum(body, (x + 0.05 + 0.25 * np.sin(3 * y)) * pixels)
    round_face = (0.75 - 5.0 * x - 2.2 * np.abs(y) + 0.1 * folds).astype(np.float32)
    hair = (-0.2 + 0.3 * np.sin(90 * (x + 0.4 * y * np.sign(x)))).astype(np.float32)
    flesh = "lead-tin yellow" if rng.random() < 0.3 else "vermilion"
    layers = []
    if rng.random() < 0.6:
        layers.append(_Layer(ellipse(0, -0.01, 0.15, 0.15), "lead-tin yellow", (0.2 - 2 * x), 0.8, 0.6))
    layers += [
        _Layer(body.astype(np.float32), str(cloth), drapery, 1.45),
        _Layer(mantle.astype(np.float32), str(lining), drapery + 0.1, 1.7, 1.1),
        _Layer(ellipse(0, -0.015, 0.092, 0.115), "umber", hair, 1.3),
        _Layer(ellipse(0.005, 0.005, 0.066, 0.088), flesh, round_face * 0.5 + 0.72, 0.9, 1.2),
    ]
    for side in (-1, 1):  # eyes, then hands
        layers.append(_Layer(ellipse(0.025 * side, -0.008, 0.012, 0.006), "bone black", -0.2 + 0 * x, 0.0))
    layers.append(_Layer(ellipse(0.004, 0.048, 0.018, 0.006), "vermilion", 0.1 + 0 * x, 0.0))
    layers.append(
        _Layer(
            ellipse(-0.05, 0.36, 0.055, 0.032), flesh, (0.65 - 3 * (x + 0.05)).astype(np.float32), 0.4, 1.2
        )
    )
    return layers


def _parapet(rng: np.random.Generator, canvas: _Canvas) -> list[_Layer]:
    """A stone ledge in front, and a fruit on it."""
    x, y, size = canvas.x, canvas.y, canvas.size
    top = rng.uniform(0.84, 0.88)
    stone = _shade(rng, canvas, 0.012, 0.12) + 0.35 - 1.5 * (y - top)
    ledge = _Layer(((y - top) * size).astype(np.float32), "umber", stone.astype(np.float32), 0.0, 0.9)
    cx, r = rng.uniform(0.15, 0.85), rng.uniform(0.045, 0.06)
    cy = top - 0.3 * r
    fruit = (r - np.hypot(x - cx, y - cy)) * size
    light = 0.4 - 9 * ((x - cx) + (y - cy))
    pigment = str(rng.choice(["lead-tin yellow", "vermilion"]))
    return [ledge, _Layer(fruit.astype(np.float32), pigment, light.astype(np.float32), 0.8)]


def _underdrawing(canvas: _Canvas, layers: list[_Layer]) -> Floats:
    """Outlines of the first version and hatching in its shadows, in [0, 1]."""
    pressure = 0.75 + 0.25 * np.clip(canvas.brush(0.7), -1, 1)
    hatching = _ramp(0.9 - np.abs((canvas.columns + canvas.rows) % 9.0 - 4.5))
    drawing = np.zeros_like(pressure)
    for layer in layers:
        inside = _ramp(layer.inside)
        drawing *= 1 - inside  # what a thing hides was not drawn
        drawing = np.maximum(drawing, _ramp(1.2 - np.abs(layer.inside + 0.8)) * pressure)
        shadow = np.clip((-0.05 - layer.light) / 0.3, 0, 1)
        drawing = np.maximum(drawing, 0.85 * hatching * shadow * inside * pressure)
    return drawing.astype(np.float32)


def _covered(rng: np.random.Generator, canvas: _Canvas, at: tuple[float, float, float, float]) -> Floats:
    """Where there is a second layer of paint, in [0, 1]."""
    x, y, a, b = at
    r = np.hypot((canvas.x - x) / a, (canvas.y - y) / b) + 0.07 * _smooth(rng, canvas.size, canvas.size / 14)
    return _ramp(((1.15 - r) * a * canvas.size / 3).astype(np.float32))


# -- what time did -------------------------------------------------------------------------------------


def _craquelure(rng: np.random.Generator, canvas: _Canvas, *, along_grain: bool) -> Floats:
    """A network of cracks, in [0, 1]: edges between islands of paint, not all of them open.

    The islands are the Voronoi cells of jittered points, in coordinates that are bent, and drawn out along the grain
    of a panel.
    """
    size, pitch = canvas.size, float(rng.uniform(26, 36))
    stretch = 1.9 if along_grain else 1.15
    v = (canvas.rows + 5 * _smooth(rng, size, 14) + 1.2 * _smooth(rng, size, 3)) / (pitch * stretch)
    u = (canvas.columns + 5 * _smooth(rng, size, 14) + 1.2 * _smooth(rng, size, 3)) / pitch
    across = np.arange(-2, size / pitch + 3)
    down = np.arange(-2, size / pitch / stretch + 3)
    cells = np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2)
    points = cells + rng.uniform(-0.46, 0.46, cells.shape)
    found = spatial.cKDTree(points).query(np.stack([v, u], axis=-1).reshape(-1, 2), k=2)
    distance, index = np.asarray(found[0], np.float64), np.asarray(found[1], np.intp)  # (pixels, 2)
    first, second = points[index[:, 0]], points[index[:, 1]]
    apart = np.hypot(*(first - second).T)
    # From the bisector of the two nearest points, in pixels.
    off = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart) * pitch
    pair = np.sort(index, axis=1).astype(np.uint64)
    chance = (pair[:, 0] * np.uint64(2654435761) + pair[:, 1] * np.uint64(40503)) % np.uint64(9973) / 9973.0
    width = np.where(chance < 0.24, 0.0, 0.4 + 1.4 * chance)
    cover = np.where(width > 0, np.clip(width / 2 - off + 0.5, 0, 1), 0).reshape(size, size)
    fading = np.clip(0.85 + 0.45 * _smooth(rng, size, 22), 0, 1)
    return np.asarray(cover * fading, np.float32)


def _losses(rng: np.random.Generator, canvas: _Canvas, covered: Floats) -> Floats:
    """Where paint fell off and was retouched, in [0, 1]; some flakes, more of them in one corner."""
    corner = rng.choice([0.15, 0.85], 2)
    near = np.exp(-((canvas.x - corner[0]) ** 2 + (canvas.y - corner[1]) ** 2) / 0.06)
    flakes = _smooth(rng, canvas.size, 7) + 0.35 * _smooth(rng, canvas.size, 2)
    lost: Floats = _ramp(((flakes + 0.9 * near - 2.15) * 5).astype(np.float32)) * (1 - covered)
    return lost


def _varnish(rng: np.random.Generator, canvas: _Canvas) -> Floats:
    """Thickness of the varnish, about 1; 0 in the window that has been cleaned."""
    patchy = 1 + 0.30 * _smooth(rng, canvas.size, canvas.size / 9) + 0.10 * canvas.brush(0.15)
    drips = np.clip(_smooth(rng, canvas.size, 4)[0] - 1, 0, 1)[None] * np.clip(canvas.y - 0.2, 0, 1)
    x, y = rng.uniform(0.25, 0.7), rng.uniform(0.3, 0.75)
    half = rng.uniform(0.06, 0.09)
    cleaned = _ramp((half - np.maximum(np.abs(canvas.x - x), np.abs(canvas.y - y))) * canvas.size)
    return np.asarray(np.maximum(patchy + drips, 0.25) * (1 - cleaned), np.float32)


def _sensed(rng: np.random.Generator, image: Floats, *, blur: float, noise: float) -> Floats:
    """(C, H, W) as a sensor gives it, in [0, 1]."""
    if blur:
        image = ndimage.gaussian_filter(image, (0, blur, blur))
    noisy = image + noise * rng.standard_normal(image.shape, np.float32)
    return np.clip(noisy, 0, 1).astype(np.float32)


# -- files ---------------------------------------------------------------------------------------------


def _claimed(folder: Path) -> Path:
    if os.path.lexists(folder) and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise FileError(folder, "is there already", "name a new folder or remove this one")
    return folder


def _write_scene(folder: Path, painting: Painting) -> None:
    for name, image in painting.images.items():
        top = 65535 if name in _SIXTEEN_BITS else 255
        counts = np.rint(image * top).astype(np.uint16 if name in _SIXTEEN_BITS else np.uint8)
        with atomic_path(folder / f"{name}.tif") as partial:
            tifffile.imwrite(
                partial,
                counts[0] if len(counts) == 1 else np.moveaxis(counts, 0, -1),
                photometric="minisblack" if len(counts) == 1 else "rgb",
                tile=(_TILE, _TILE),
                compression="zlib",
                metadata=None,
            )
    for name, mask in painting.masks.items():
        with atomic_path(folder / "masks" / f"{name}.png") as partial:
            Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(partial, format="PNG")


def _write_description(folder: Path) -> None:
    listed = [
        {"name": name, "file": f"{name}.tif", "channels": channels} for name, channels in MODALITIES.items()
    ]
    write_text(folder / MODALITIES_FILE, yaml.safe_dump({"modalities": listed}, sort_keys=False))
