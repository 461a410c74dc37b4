"""Figures of Liu et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.records import CodecEvaluation
from blemish.jpeg.quality import Measure
from blemish.storage.training_record import TrainingLook
from studies.liu2022_plan import BASELINE_NAMES, OURS
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


def draw_rates(path: Path, evaluation: CodecEvaluation, fits: Sequence[str]) -> Path:
    """One panel a measure: its mean over the images against bits per pixel, for both anchors, ours and ``fits``.

    Of measures that have a value at every point; where there are none, the figure says so.
    """
    from matplotlib.figure import Figure

    low, high = evaluation.bpp_range
    colours = dict(zip(fits, (_COLOURS * len(fits))[: len(fits)], strict=True))
    shown = [one for one in evaluation.encoders if one.name in (*BASELINE_NAMES, OURS.name, *fits)]
    taken = [
        measure
        for measure in _SCALES
        if all(point.measures.get(measure) is not None for one in shown for point in one.points)
    ]
    if not taken:
        figure = Figure(figsize=(5.2, 1.2), layout="constrained")
        figure.text(0.5, 0.5, "No measure has a value for every file.", ha="center", va="center", fontsize=9)
        return save(figure, path)
    figure = Figure(figsize=(5.2 * len(taken), 4.6), layout="constrained")
    for axis, measure in zip(figure.subplots(1, len(taken), squeeze=False)[0], taken, strict=True):
        for one in shown:
            points = [
                (point.bits_per_pixel, point.measures[measure])
                for point in one.points
                if low / 2 <= point.bits_per_pixel <= 1.5 * high
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
    return save(figure, path)


def draw_terms(path: Path, histories: Mapping[str, Sequence[TrainingLook]]) -> Path:
    """One panel a fit: each held-out term of the loss against steps, as a share of what it was at the first look."""
    from matplotlib.figure import Figure

    columns = min(3, len(histories))
    rows = -(-len(histories) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, history) in zip(axes, histories.items(), strict=False):
        first = {name: value for name, value in history[0].terms.items() if value > 0}
        for (term, value), colour in zip(first.items(), _COLOURS, strict=False):
            axis.plot(
                [look.step for look in history],
                [look.terms[term] / value for look in history],
                label=term,
                color=colour,
                marker="." if len(history) < 3 else None,
            )
        axis.set_title(name, fontsize=9)
        _label(axis, "", "")
    axes[0].legend(fontsize=7)
    for axis in axes[len(histories) :]:
        axis.set_axis_off()
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("held-out term of the loss, 1 at the first look", fontsize=9)
    return save(figure, path)


def _label(axis: Axes, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
