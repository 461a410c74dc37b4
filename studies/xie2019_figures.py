"""Figures of Xie et al. 2019."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from blemish.data.scene_reader import SceneReader
from blemish.models.modal_similarity import modal_residuals
from studies.protocol import autoencoder_of, save
from studies.xie2019_measures import WINDOW, Floats, Results
from studies.xie2019_rows import ROWS, WITH_DROPOUT

_EXAMPLES = 5
_SHOWN_SIDE = 512


def draw_corners(path: Path, results: Results) -> Path:
    """Figure 6, and the same for Table 2: local SSIM against d, the mean over seeds and their range."""
    from matplotlib.figure import Figure as Drawing

    figure = Drawing(figsize=(9.6, 3.8), layout="constrained")
    for axis, number in zip(figure.subplots(1, 2), (1, 2), strict=True):
        for row in ROWS:
            if number not in row.tables:
                continue
            curves = results.by_distance(row.name)
            d = np.arange(curves.shape[1])
            (line,) = axis.plot(d, curves.mean(axis=0), label=row.words, linewidth=1.3)
            if len(curves) > 1:
                ends = curves.min(axis=0), curves.max(axis=0)
                axis.fill_between(d, *ends, color=line.get_color(), alpha=0.2, linewidth=0)
        axis.set_title("Stacked (Table 1, Figure 6)" if number == 1 else "Separated (Table 2)", fontsize=10)
        axis.set_xlabel("d, distance to the corners in pixels", fontsize=9)
        axis.set_ylabel(f"SSIM of {WINDOW} × {WINDOW} windows", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    return save(figure, path)


def draw_patches(path: Path, results: Results) -> Path:
    """Figures 7 and 8: the liveliest test patch of some scenes, and what each row makes of it, with its SSIM."""
    from matplotlib.figure import Figure as Drawing

    patches, modalities = results.tested.halves, results.modalities
    lively = patches.pixels.std(axis=(2, 3)).mean(axis=1)
    chosen = [
        max(np.flatnonzero(patches.scene == number), key=lambda place: float(lively[place]))
        for number in np.unique(patches.scene)[:_EXAMPLES]
    ]
    x = torch.from_numpy(patches.pixels[chosen])
    figure = Drawing(figsize=(1.3 * (1 + len(ROWS)), 1.5 * len(chosen) + 0.2), layout="constrained")
    axes = figure.subplots(len(chosen), 1 + len(ROWS), squeeze=False)
    first = modalities[0]
    for column, title in enumerate(["measured", *(row.name for row in ROWS)]):
        if column:
            fit = results.of(title)[0]
            with torch.no_grad():
                y = autoencoder_of(fit.detector)(x).reconstruction.numpy()
            similar = fit.halves.ssim[chosen, 0]
        for place, axis in enumerate(axes[:, column]):
            axis.set_axis_off()
            _show(axis, (y if column else x.numpy())[place, : first.channels])
            head = f"{title}\n" if place == 0 else ""
            axis.set_title(head + (f"{similar[place]:.3f}" if column else first.name), fontsize=7)
    return save(figure, path)


def draw_crossed(path: Path, results: Results, shown: tuple[SceneReader, slice]) -> Path:
    """Each modality of a part of a scene: measured, reconstructed from all, predicted from the others, and how that differs."""
    from matplotlib.figure import Figure as Drawing

    reader, columns = shown
    height, width = min(reader.height, _SHOWN_SIDE), min(columns.stop - columns.start, _SHOWN_SIDE)
    left = columns.start + (columns.stop - columns.start - width) // 2
    window = reader.read((reader.height - height) // 2, left, height, width)
    fit = results.of(WITH_DROPOUT)[0]
    found = modal_residuals(autoencoder_of(fit.detector), torch.from_numpy(window)[None])
    modalities = results.modalities
    figure = Drawing(figsize=(8.0, 1.9 * len(modalities) * height / width + 0.4), layout="constrained")
    axes = figure.subplots(len(modalities), 4, squeeze=False)
    titles = ("measured", "reconstructed", "predicted from the others", "1 − SSIM of the prediction")
    first = 0
    for number, modality in enumerate(modalities):
        taken = slice(first, first + modality.channels)
        first = taken.stop
        images = (
            window[taken],
            *(one[0, taken].numpy() for one in (found.reconstruction, found.predicted)),
        )
        for axis, image in zip(axes[number], images, strict=False):
            _show(axis, image)
        axes[number, 3].imshow(found.crossed[0, number].numpy(), cmap="inferno", vmin=0, vmax=1)
        axes[number, 0].set_title(modality.name, fontsize=8)
        for axis, title in zip(axes[number], titles, strict=True):
            axis.set_axis_off()
            if number == 0:
                axis.set_title(f"{modality.name}, {title}" if title == titles[0] else title, fontsize=8)
    figure.suptitle(f"{reader.name}: {fit.row.words}", fontsize=9)
    return save(figure, path)


def _show(axis: Any, image: Floats) -> None:
    """(c, H, W), as colours where there are three channels; absent values white."""
    values = np.nan_to_num(np.clip(image, 0, 1), nan=1.0)
    shown = np.moveaxis(values, 0, -1) if len(values) == 3 else values.mean(axis=0)
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1)
