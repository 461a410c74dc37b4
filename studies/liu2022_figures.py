"""Figures of Liu et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.records import CodecEvaluation
from blemish.jpeg.quality import Measure
from blemish.storage.training_record import TrainingLook
from studies.liu2022_plan import BASELINE_NAMES, CONTROL, OURS
from studies.protocol import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BASELINE_LINES = {PILLOW_420.name: "--", PILLOW_444.name: ":", OURS.name: "-."}
_SCALES: dict[Measure, str] = {"psnr_rgb": "PSNR of RGB (dB)", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}
_COLOURS = (
    "tab:blue",
    "tab:orange",
    "tab:green",
    "tab:red",
    "tab:purple",
    "tab:brown",
    "tab:pink",
    "tab:cyan",
)


def draw_rates(path: Path, evaluation: CodecEvaluation, groups: Mapping[str, Sequence[str]]) -> Path:
    """A row a group of fits and a panel a measure: its mean over the images against bits per pixel, with both anchors.

    Of measures that have a value at every point; where there are none, the figure says so.
    """
    from matplotlib.figure import Figure

    taken = [
        measure
        for measure in _SCALES
        if all(point.measures.get(measure) is not None for one in evaluation.encoders for point in one.points)
    ]
    if not taken:
        figure = Figure(figsize=(5.2, 1.2), layout="constrained")
        figure.text(0.5, 0.5, "No measure has a value for every file.", ha="center", va="center", fontsize=9)
        return save(figure, path)
    figure = Figure(figsize=(5.2 * len(taken), 4.6 * len(groups)), layout="constrained")
    rows = figure.subplots(len(groups), len(taken), squeeze=False)
    for axes, (title, fits) in zip(rows, groups.items(), strict=True):
        for axis, measure in zip(axes, taken, strict=True):
            _draw_curves(axis, evaluation, fits, measure)
        axes[0].set_title(title, fontsize=9, loc="left")
    return save(figure, path)


def _draw_curves(axis: Axes, evaluation: CodecEvaluation, fits: Sequence[str], measure: Measure) -> None:
    low, high = evaluation.bpp_range
    colours = dict(zip(fits, (_COLOURS * len(fits))[: len(fits)], strict=True))
    for one in evaluation.encoders:
        if one.name not in (*BASELINE_NAMES, OURS.name, *fits):
            continue
        points = [
            (point.bits_per_pixel, value)
            for point in one.points
            if (value := point.measures[measure]) is not None
            and low / 2 <= point.bits_per_pixel <= 1.5 * high
        ]
        is_fit = one.name in colours
        axis.plot(
            [rate for rate, _ in points],
            [value for _, value in points],
            label=one.name,
            color=colours.get(one.name, "black"),
            linestyle="-" if is_fit else _BASELINE_LINES[one.name],
            marker="o" if is_fit else None,
            markersize=3,
            linewidth=1.2,
        )
    _label(axis, "bits per pixel of the file", _SCALES[measure])
    axis.legend(fontsize=7)


_HELD_OUT = {"bits per pixel": "bits per pixel", "mse": "MSE (squared levels)", "ms-ssim": "MS-SSIM"}


def draw_steps(path: Path, histories: Mapping[str, Sequence[TrainingLook]]) -> Path:
    """Figures 13 and 14: bits per pixel, MSE and MS-SSIM of the held-out patches against steps, a line a fit.

    Of trainings that began before these were measured, the terms of the loss, as shares of what they were at first.
    """
    from matplotlib.figure import Figure

    looks = [look for history in histories.values() for look in history]
    shown = [name for name in _HELD_OUT if all(name in look.measures for look in looks)]
    terms = [] if shown else list(dict.fromkeys(term for look in looks for term in look.terms))
    figure = Figure(figsize=(4.6 * len(shown or terms), 4.2), layout="constrained")
    axes = figure.subplots(1, len(shown or terms), squeeze=False)[0]
    for axis, name in zip(axes, shown or terms, strict=True):
        for (fit, history), colour in zip(histories.items(), _COLOURS * len(histories), strict=False):
            values = [look.measures[name] if shown else look.terms.get(name, 0.0) for look in history]
            scale = 1.0 if shown else values[0] or 1.0
            steps = [look.step for look in history]
            axis.plot(
                steps,
                [value / scale for value in values],
                label=fit,
                color=colour,
                linestyle="--" if fit == CONTROL else "-",
                marker="." if len(history) < 3 else None,
            )
        _label(axis, "step", _HELD_OUT[name] if shown else f"{name}, 1 at the first look")
    axes[0].legend(fontsize=7)
    return save(figure, path)


def _label(axis: Axes, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
