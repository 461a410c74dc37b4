"""Generated toy figures in flat paint, each lying anyhow on a plain ground; and mouldings, the same in one paint.

A flat colour has no structure: what is recoloured evenly keeps every edge. On a figure of several paints the contrast of
its edges changes; on a moulding only the outline has any, and an even change shows in colour alone. Figures lie
in any direction, and one in seven touches the border of its image or nearly does, so that the crop around it reaches beyond.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from blemish.demo.drawing import (
    Array,
    Drawing,
    Flaw,
    blot,
    box,
    drift,
    grid,
    patch,
    segment,
    shrink,
    turn,
)

OTHER_KINDS = ("empty", "lamp_off", "two")
"""Images of another kind than good ones, and no defects: an empty place, a lamp that is off, two figures."""

AT_THE_BORDER = 0.15
"""Share of the figures that lie at the border."""
_SHORT = (-0.004, 0.014)
"""From the end of such a figure to the border, in image sides."""
# In image sides, along and across the figure from its middle; it stands upright along x, its head at the small end.
_LENGTH = 0.50
_BODY_X, _BODY_HALF, _BODY_WIDE = 0.03, 0.105, 0.085
_HEAD_X, _HEAD_LONG, _HEAD_WIDE = -0.125, 0.066, 0.058
_FEET_X, _FEET_HALF, _FEET_WIDE, _FEET_Y = 0.185, 0.055, 0.044, 0.046
_BELT_X, _BELT_HALF = 0.072, 0.017
_BADGE_X, _BADGE_R = -0.010, 0.026
_ARM_X, _ARM_HALF, _ARM_WIDE, _ARM_Y = 0.0, 0.062, 0.018, 0.098
_EYE_X, _EYE_Y, _EYE_R = -0.135, 0.024, 0.013
_ANTENNA_X, _ANTENNA_HALF, _ANTENNA_WIDE = -0.215, 0.036, 0.017


class _Part(NamedTuple):
    """A part of the figure in one paint: distance to its edge, positive inside, and its colour."""

    name: str
    inside: Array
    colour: Array


_PAINTS = {
    "antenna": (0.56, 0.30, 0.10),
    "arms": (0.14, 0.48, 0.44),
    "feet": (0.18, 0.26, 0.56),
    "body": (0.25, 0.55, 0.27),
    "head": (0.40, 0.56, 0.16),
    "belt": (0.72, 0.20, 0.16),
    "badge": (0.86, 0.72, 0.20),
    "eyes": (0.10, 0.10, 0.12),
}
_MOULDED = (0.24, 0.44, 0.56)
"""Paint of a whole moulding."""
_OF_MOULDING = ("antenna", "arms", "feet", "body", "head")
_RECOLOURED = ("feet", "body", "head", "belt", "badge")
"""Parts that a defect may recolour."""
_GROUND = np.array([0.80, 0.79, 0.76], np.float32)[:, None, None]
_BARE = np.array([0.88, 0.85, 0.78], np.float32)[:, None, None]
"""What a scratch lays bare."""


def figures(rng: np.random.Generator, size: int, *, is_moulding: bool = False) -> Drawing:
    """A figure on a plain ground, (3, size, size); a larger image shows it finer.

    Parameters
    ----------
    is_moulding: whether it is a silhouette of one paint.
    """
    y, x = grid(size, 2)
    x, y = x / size, y / size
    angle = float(rng.uniform(0, 2 * math.pi))
    middle = _middle(rng, angle)
    tints = 1 + rng.normal(0, 0.012, (len(_PAINTS), 3, 1, 1)).astype(np.float32)
    jitter = rng.normal(0, 0.0012, (len(_PAINTS), 2)).tolist()
    light = rng.uniform(0.88, 1.06) * (1 + rng.normal(0, 0.008, (3, 1, 1)).astype(np.float32))
    light = light * (1 + drift(rng, x.shape, 3, 0.025))
    cloth = 1 + 0.012 * ndimage.gaussian_filter(rng.standard_normal(x.shape, np.float32), 1.5) / 0.19

    def draw(flaw: Flaw) -> Array:
        kind, s, f = flaw.kind, flaw.strength, flaw.rng
        places = [] if kind == "empty" else _beside(angle) if kind == "two" else [middle]
        seen = _GROUND * cloth
        for place in places:
            px, py = turn(x - place[0], y - place[1], angle)
            parts = _parts(px, py, jitter, tints)
            if is_moulding:
                paint_of_all = np.array(_MOULDED, np.float32)[:, None, None] * tints[0]
                parts = [one._replace(colour=paint_of_all) for one in parts if one.name in _OF_MOULDING]
            cover, paint = _painted(parts, px, py, Flaw(kind, f, s), 2 * size)
            # A soft shadow, under lights all around.
            seen = seen * (1 - 0.25 * ndimage.gaussian_filter(cover, 0.016 * size))
            seen = seen + cover * (paint - seen)
        return shrink(seen * light) * (0.06 if kind == "lamp_off" else 1.0)

    return draw


def _painted(parts: list[_Part], px: Array, py: Array, flaw: Flaw, samples: int) -> tuple[Array, Array]:
    """Coverage (h, w) and paint (3, h, w) of a figure of ``parts``; edges are one of ``samples`` a side wide."""
    kind, s, f = flaw.kind, flaw.strength, flaw.rng
    if kind in ("recoloured_whole", "recoloured_part"):
        names = [str(f.choice(_RECOLOURED))] if kind == "recoloured_part" else list(_PAINTS)
        angle = f.uniform(0.9, 2.6) * f.choice([-1, 1])
        parts = [
            one._replace(colour=_turned(one.colour, angle, s)) if one.name in names else one for one in parts
        ]
    elif kind == "darkened":
        parts = [one._replace(colour=one.colour * (1 - min(0.5 * s, 0.95))) for one in parts]
    outline: Array = np.maximum.reduce([one.inside for one in parts])
    if kind == "broken":
        missing = patch(f, px, py, _on_edge(f), f.uniform(0.030, 0.042) * math.sqrt(s))
        outline = np.minimum(outline, -missing)
    paint = np.zeros((3, *px.shape), np.float32)
    for one in parts:
        paint += np.clip(one.inside * samples + 0.5, 0, 1) * (one.colour - paint)
    if kind == "scratch":
        away = segment(f, px, py, _inside(f), f.uniform(0.05, 0.10))
        paint += min(0.9 * s, 1.0) * np.clip((0.0035 - away) * samples + 0.5, 0, 1) * (_BARE - paint)
    elif kind == "stain":
        paint *= 1 - min(0.4 * s, 0.95) * blot(f, px, py, _inside(f), f.uniform(0.016, 0.024))
    return np.clip(outline * samples + 0.5, 0, 1), paint


def _parts(px: Array, py: Array, jitter: list[list[float]], tints: Array) -> list[_Part]:
    """Parts of a figure, the lowest first; the hand that painted it is never quite the same."""
    side = np.abs(py)
    shapes = {
        "antenna": box(px - _ANTENNA_X, py, _ANTENNA_HALF, _ANTENNA_WIDE, 0.012),
        "arms": box(px - _ARM_X, side - _ARM_Y, _ARM_HALF, _ARM_WIDE, 0.016),
        "feet": box(px - _FEET_X, side - _FEET_Y, _FEET_HALF, _FEET_WIDE, 0.03),
        "body": box(px - _BODY_X, py, _BODY_HALF, _BODY_WIDE, 0.05),
        "head": _HEAD_WIDE * (1 - np.hypot((px - _HEAD_X) / _HEAD_LONG, py / _HEAD_WIDE)),
    }
    for name, (wider, _) in zip(shapes, jitter, strict=False):
        shapes[name] = shapes[name] + wider
    (bx, by), (gx, gy), (ex, ey) = jitter[-3:]
    # What is painted on the body ends where it does.
    shapes["belt"] = np.minimum(_BELT_HALF + by - np.abs(px - _BELT_X - bx), shapes["body"])
    shapes["badge"] = _BADGE_R - np.hypot(px - _BADGE_X - gx, py - gy)
    shapes["eyes"] = _EYE_R - np.hypot(px - _EYE_X - ex, side - _EYE_Y - ey)
    return [
        _Part(name, inside, np.array(_PAINTS[name], np.float32)[:, None, None] * tint)
        for (name, inside), tint in zip(shapes.items(), tints, strict=True)
    ]


def _turned(colour: Array, angle: float, share: float) -> Array:
    """``colour`` (3, 1, 1) turned about the grey axis, so that its mean stays; ``share`` of the way, at most all of it."""
    c, s = math.cos(angle), math.sin(angle) / math.sqrt(3)
    same, after, before = (1 + 2 * c) / 3, (1 - c) / 3 - s, (1 - c) / 3 + s
    turned = same * colour + after * np.roll(colour, -1, 0) + before * np.roll(colour, 1, 0)
    found: Array = np.clip(colour + min(share, 1.0) * (turned - colour), 0.02, 1).astype(np.float32)
    return found


def _middle(rng: np.random.Generator, angle: float) -> tuple[float, float]:
    """Middle (x, y) of a figure that lies anywhere inside, or now and then with one end at the border."""
    place = rng.uniform(-0.16, 0.16, 2).tolist()
    is_at_border, short, at_feet = rng.uniform() < AT_THE_BORDER, rng.uniform(*_SHORT), rng.uniform() < 0.5
    if is_at_border:
        ahead = (math.cos(angle), math.sin(angle)) if at_feet else (-math.cos(angle), -math.sin(angle))
        axis = int(abs(ahead[1]) > abs(ahead[0]))
        wide = _FEET_Y + _FEET_WIDE if at_feet else _ANTENNA_WIDE
        reach = _LENGTH / 2 * abs(ahead[axis]) + wide * abs(ahead[1 - axis])
        place[axis] = math.copysign(0.5 - short - reach, ahead[axis])
    return place[0], place[1]


def _beside(angle: float) -> list[tuple[float, float]]:
    """Middles of two figures side by side."""
    return [(-sign * 0.16 * math.sin(angle), sign * 0.16 * math.cos(angle)) for sign in (-1, 1)]


def _inside(rng: np.random.Generator) -> tuple[float, float]:
    """A point on the body, the head or the feet."""
    where = rng.integers(4)
    if where == 0:
        return _HEAD_X + rng.uniform(0.0, 0.02), float(rng.uniform(-0.02, 0.02))
    if where == 1:
        return _FEET_X + rng.uniform(0, 0.02), float(rng.choice([-1, 1])) * _FEET_Y
    return _BODY_X + rng.uniform(-0.06, 0.06), float(rng.uniform(-0.05, 0.05))


def _on_edge(rng: np.random.Generator) -> tuple[float, float]:
    """A point where a piece breaks off: a foot, an arm, or the antenna."""
    side = float(rng.choice([-1, 1]))
    places = (
        (_FEET_X + _FEET_HALF, side * _FEET_Y),
        (_ARM_X - _ARM_HALF, side * _ARM_Y),
        (_ANTENNA_X - 0.5 * _ANTENNA_HALF, 0.0),
    )
    return places[int(rng.integers(len(places)))]
