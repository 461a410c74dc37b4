"""Small charts drawn as inline SVG: histograms of scores, ROC and precision-recall curves.

A chart is data; its ``drawing`` method computes every position, and ``templates/charts.html`` only writes the
marks. Colours are CSS variables of the page, so a chart adapts to light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from blemish.report.numbers import aligned, number


@dataclass(frozen=True)
class Series:
    """Values of one group of images, for a histogram."""

    name: str
    values: Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True)
class Line:
    """Line through points (x, y), in the given order."""

    name: str
    points: Sequence[tuple[float, float]]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Compute round numbers inside [low, high], in steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(0.03, 0.41, about=4)
    [0.1, 0.2, 0.3, 0.4]
    """
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _axis(name: str, position: Callable[[float], float], values: list[float]) -> list[dict[str, Any]]:
    return [{name: position(v), "label": text} for v, text in zip(values, aligned(values), strict=True)]


@dataclass(frozen=True)
class Histogram:
    """Histogram of scores with one strip per series; the strips share bins and axis.

    ``marks`` are (value, label) lines through all strips; the first is the threshold: an edge of the bins
    lies just above it, and bins above it are coloured as rejected. Values that are not finite are left out.
    """

    title: str
    series: Sequence[Series]
    marks: Sequence[tuple[float, str]] = ()
    x_label: str = "score"

    def edges(self, bins: int = 48) -> npt.NDArray[np.float64]:
        """Compute the edges of the shared bins, which have equal widths."""
        values = np.concatenate([*self._finite(), [value for value, _ in self.marks]])
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        if not high - low > 1e-12 * max(abs(low), abs(high)):  # a single value: place it in the middle
            low, high = low - max(abs(low), 1e-6) / 2, high + max(abs(high), 1e-6) / 2
        if not self.marks:
            return np.linspace(low, high, bins + 1)
        width = (high - low) / bins
        # A score equal to the threshold is accepted, and bins are closed on the left: the edge is just above it.
        edge = float(np.nextafter(self.marks[0][0], np.inf))
        first, last = math.floor((low - edge) / width), math.ceil((high - edge) / width)
        steps = np.arange(first - 1, last + 2)
        return np.where(steps == 0, edge, edge + width * steps)

    def counts(self) -> list[npt.NDArray[np.intp]]:
        """Count the images in each bin, one array per series."""
        edges = self.edges()
        return [np.histogram(values, edges)[0] for values in self._finite()]

    def _finite(self) -> list[npt.NDArray[np.float64]]:
        arrays = [np.asarray(s.values, dtype=np.float64).ravel() for s in self.series]
        return [a[np.isfinite(a)] for a in arrays]

    def drawing(self) -> dict[str, Any]:
        """Compute the positions of all marks in a drawing 880 units wide."""
        left, right, strip, head, gap = 14.0, 866.0, 74.0, 24.0, 10.0
        top = 30.0 if self.marks else 6.0
        edges, counts = self.edges(), self.counts()
        low, high = float(edges[0]), float(edges[-1])

        def x(value: float) -> float:
            return round(left + (value - low) / (high - low) * (right - left), 2)

        threshold = self.marks[0][0] if self.marks else math.inf
        strips = []
        for i, (series, count) in enumerate(zip(self.series, counts, strict=True)):
            base = top + (i + 1) * (head + strip) + i * gap
            most = int(count.max(initial=0))
            # A single image beside thousands stays visible.
            heights = np.maximum(count / max(most, 1) * strip, 1.5)
            bars = [
                {
                    "x": x(a) + 0.75,
                    "width": round(max(x(b) - x(a) - 1.5, 1.0), 2),
                    "y": round(base - h, 2),
                    "height": round(h, 2),
                    "beyond": a > threshold,
                    "title": f"{n} from {number(float(a))} to {number(float(b))}",
                }
                for a, b, h, n in zip(edges[:-1], edges[1:], heights, count, strict=True)
                if n
            ]
            total, beyond = int(count.sum()), int(count[edges[:-1] > threshold].sum())
            strips.append(
                {
                    "name": series.name,
                    "total": total,
                    "beyond": beyond if self.marks else None,
                    "most": f"tallest bar: {most}" if most else "none",
                    "top": base - strip,
                    "base": base,
                    "label_y": base - strip - 9,
                    "bars": bars,
                }
            )
        bottom = top + len(strips) * (head + strip + gap) - gap if strips else top
        marks = []
        for value, label in self.marks:
            end = x(value) > (left + right) * 0.6  # keep the label inside the drawing
            marks.append(
                {
                    "x": x(value),
                    "label": f"{label} {number(value)}",
                    "text_x": x(value) - 7 if end else x(value) + 7,
                    "anchor": "end" if end else "start",
                }
            )
        return {
            "width": 880,
            "height": bottom + 48,
            "left": left,
            "right": right,
            "top": top,
            "bottom": bottom,
            "strips": strips,
            "marks": marks,
            "ticks": _axis("x", x, ticks(low, high, 8)),
            "summary": "; ".join(
                f"{s['name']}: {s['total']} images"
                + (f", {s['beyond']} above the threshold" if s["beyond"] is not None else "")
                for s in strips
            ),
        }


@dataclass(frozen=True)
class CurveChart:
    """Chart of lines over two axes, such as ROC and precision-recall; ``diagonal`` is the label of the diagonal."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    diagonal: str | None = None

    def drawing(self) -> dict[str, Any]:
        """Compute the positions of all marks in a drawing 440 units wide."""
        left, right, top, bottom = 52.0, 428.0, 12.0, 312.0
        lines = [(line.name, [p for p in line.points if all(map(math.isfinite, p))]) for line in self.lines]
        points = [p for _, finite in lines for p in finite]
        (x_low, x_high), (y_low, y_high) = (_span([p[axis] for p in points]) for axis in (0, 1))

        def x(value: float) -> float:
            return round(left + (value - x_low) / (x_high - x_low) * (right - left), 2)

        def y(value: float) -> float:
            return round(bottom - (value - y_low) / (y_high - y_low) * (bottom - top), 2)

        drawn = [
            {
                "name": name,
                "points": [
                    {"x": x(a), "y": y(b), "title": f"{name}: {number(a)}, {number(b)}"} for a, b in finite
                ],
            }
            for name, finite in lines
        ]
        return {
            "width": 440,
            "height": 360,
            "left": left,
            "right": right,
            "top": top,
            "bottom": bottom,
            "lines": drawn,
            "dots": len(points) <= 60,
            "x_ticks": _axis("x", x, ticks(x_low, x_high)),
            "y_ticks": _axis("y", y, ticks(y_low, y_high)),
        }


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Range of the axis for ``values``: [0, 1] for ratios, otherwise the range of the values with 0."""
    if not values or (min(values) >= 0 and 0.05 < max(values) <= 1):
        return 0.0, 1.0
    low, high = min(0.0, *values), max(0.0, *values)
    return (low, high) if high > low else (low, low + 1.0)
