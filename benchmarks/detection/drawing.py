"""Rows in groups, and axes with curves and bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def grouped(rows: Iterable[dict[str, Any]], key: str) -> list[tuple[Any, list[dict[str, Any]]]]:
    """``rows`` by their value of ``key``, in the order of the first of each."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return list(found.items())


def axes(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2 * count, 3.8), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def curve(
    axis: Axes, x: Sequence[float], values: Sequence[Sequence[float]], name: str, colour: str | None = None
) -> None:
    """The mean of ``values`` at each of ``x``, with their range."""
    means = [fmean(some) for some in values]
    (line,) = axis.plot(x, means, marker="o", markersize=4, color=colour, label=name)
    low, high = [min(some) for some in values], [max(some) for some in values]
    axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def finish_axes(all_axes: Sequence[Axes], labels: Sequence[str]) -> None:
    for axis, label in zip(all_axes, labels, strict=True):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
