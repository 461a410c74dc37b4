"""Layers of a generated painting: support, pigments, figures and the drawing below them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]


Mask = NDArray[np.bool_]


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


class _Pigment(NamedTuple):
    colour: tuple[float, float, float]
    infrared: float
    """Infrared reflectance of a thick layer."""
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
    """One object in the composition."""

    inside: Floats
    """Signed distance to its edge in pixels, about; positive inside."""
    pigment: str
    light: Floats
    """From −1, where it is shaded with black, to 1, where it is raised with lead white."""
    angle: float
    """Angle of the brush."""
    thickness: float = 1.0


class _Paint(NamedTuple):
    """Optical properties of a painted layer: (3, H, W) or (H, W)."""

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
        drawing *= 1 - inside  # nothing is drawn behind an object
        drawing = np.maximum(drawing, _ramp(1.2 - np.abs(layer.inside + 0.8)) * pressure)
        shadow = np.clip((-0.05 - layer.light) / 0.3, 0, 1)
        drawing = np.maximum(drawing, 0.85 * hatching * shadow * inside * pressure)
    return drawing.astype(np.float32)


def _covered(rng: np.random.Generator, canvas: _Canvas, at: tuple[float, float, float, float]) -> Floats:
    """Coverage by a second layer of paint, in [0, 1]."""
    x, y, a, b = at
    r = np.hypot((canvas.x - x) / a, (canvas.y - y) / b) + 0.07 * _smooth(rng, canvas.size, canvas.size / 14)
    return _ramp(((1.15 - r) * a * canvas.size / 3).astype(np.float32))
