"""Figures of Rádli & Czúni 2022."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from blemish.inspection.detector import Detector
from blemish.layers.rotation import loss_at_angle, loss_by_angle, onto_canvas
from studies.protocol import Example, Request, Shown, draw_curves, draw_examples, save
from studies.radli2022_cloth import Floats
from studies.radli2022_columns import ALL_COLUMNS
from studies.radli2022_measures import CURVE_ANGLES, Tests, aligner_of, pose, reconstruct, residuals

COLOURS = dict(
    zip(
        ALL_COLUMNS,
        ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:cyan", "tab:brown"),
        strict=True,
    )
)
EXAMPLES = 3


def draw(
    request: Request,
    ending: str,
    shown: dict[str, Detector],
    detectors: dict[tuple[str, int], Detector],
    tests: Tests,
) -> list[Path]:
    """Learning curves, examples of bad patches, and what alignment does."""
    histories = {
        one.title: [detectors[key].file.training.history for key in detectors if key[0] == column]
        for column, one in ALL_COLUMNS.items()
        if column in shown
    }
    size = tests.masks.mean(axis=(1, 2))
    by_size = np.argsort(size, kind="stable")[int((size == 0).sum()) :]
    # Small, middling and large defects, always the same ones.
    chosen = by_size[(np.linspace(0.1, 0.9, EXAMPLES) * (len(by_size) - 1)).astype(int)]
    examples = [Example("bad patch", tests.bad[index], tests.masks[index]) for index in chosen]
    results: dict[str, list[Shown]] = {}
    for column, detector in shown.items():
        bad = tests.bad[chosen]
        y = reconstruct(detector, bad)
        maps = residuals(bad, y)["SSIM"]
        results[column] = [Shown(*one) for one in zip(y, maps, strict=True)]
    place = request.file if ending == "-cloth" else request.image
    drawn = [
        draw_curves(request.file(f"{ending}-curves.png"), histories),
        draw_examples(place(f"{ending}.png"), examples, results),
    ]
    if "frozen" in shown:
        drawn.append(_draw_alignment(place(f"{ending}-alignment.png"), shown, tests))
    return drawn


def _draw_alignment(path: Path, shown: dict[str, Detector], tests: Tests) -> Path:
    """Good patches before and after alignment, their loss against the angle (Figure 7), and all poses."""
    from matplotlib.figure import Figure

    clearest = _clearest(shown["frozen"], tests.good)
    turning = {name: detector for name, detector in shown.items() if not name.startswith("plain")}
    x = torch.from_numpy(tests.good[clearest])
    figure = Figure(figsize=(1.5 * len(x) + 0.4, 1.5 * (len(turning) + 4)), layout="constrained")
    grid = figure.add_gridspec(len(turning) + 4, len(x))
    angles = torch.linspace(-math.pi / 2, math.pi / 2, CURVE_ANGLES)
    with torch.inference_mode():
        flat = torch.zeros(len(x))
        images = {"as they lie": onto_canvas(x, flat)} | {
            ALL_COLUMNS[name].title: aligner_of(detector)(x).image for name, detector in turning.items()
        }
        aligner = aligner_of(shown["frozen"])
        found = {name: aligner_of(detector).angle(x) for name, detector in turning.items()}
        view = aligner.view(x)
        curves = loss_by_angle(view, angles)
        reached = {name: loss_at_angle(view, angle) for name, angle in found.items()}
    for row, (title, batch) in enumerate(images.items()):
        for column, image in enumerate(batch):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(image.mean(0).numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
            if column == 0:
                axis.set_title(title, fontsize=8, loc="left")
    for column, curve in enumerate(curves):
        axis = figure.add_subplot(grid[len(turning) + 1, column])
        axis.plot(torch.rad2deg(angles), curve, color="black", linewidth=0.9)
        for (name, angle), marker in zip(found.items(), "o+x1sD", strict=False):
            at = math.degrees(float(torch.remainder(angle[column] + math.pi / 2, math.pi) - math.pi / 2))
            axis.plot(
                at,
                float(reached[name][column]),
                marker,
                color=COLOURS[name],
                fillstyle="none",
                label=ALL_COLUMNS[name].title if column == 0 else None,
            )
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=6)
        if column == 0:
            axis.set_title("gradient loss against angle, °", fontsize=8, loc="left")
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    histograms = figure.add_subplot(grid[len(turning) + 2 :, :])
    for name, detector in shown.items():
        histograms.hist(
            pose(detector, tests.good, tests.angles).poses,
            bins=60,
            range=(-90, 90),
            histtype="step",
            color=COLOURS[name],
            label=ALL_COLUMNS[name].title,
        )
    histograms.set_title(
        "pose of all good patches from its mean, °, up to half turns", fontsize=8, loc="left"
    )
    histograms.legend(fontsize=7)
    return save(figure, path)


def _clearest(detector: Detector, images: Floats, count: int = 6) -> NDArray[np.intp]:
    """Places of some images with an orientation, spread over all."""
    with torch.inference_mode():
        strength = aligner_of(detector).modulation(torch.from_numpy(images)).numpy()
    oriented = np.flatnonzero(strength >= np.median(strength))
    places: NDArray[np.intp] = oriented[np.linspace(0, len(oriented) - 1, count).round().astype(int)]
    return places
