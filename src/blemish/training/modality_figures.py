"""Comparison of every modality of a trained network with two baselines: a constant, and linear regression.

A decoder may stay on the plateau on which its output is a constant grey; the SSIM of a constant is high where an image is
smooth, so that the figure alone looks like a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blemish.data.modality import Modality, channel_slices
from blemish.models import Autoencoder, modal_residuals
from blemish.models.modal_similarity import ModalSSIM, modal_ssim
from blemish.recipes import Recipe
from blemish.storage.training_record import ModalityFigures
from blemish.training.patches import PatchSource, RandomPatches, raising

LEAST_GAIN = 0.02
"""SSIM above that of a constant from which a modality counts as learned."""
PATCHES = 64
"""Patches that are compared, and patches that the linear regression is fitted on."""
_BATCH = 16


def draw_patches(source: PatchSource, recipe: Recipe) -> Tensor:
    """Draw the patches (N, C, P, P) of a comparison, the same for the same seed."""
    patches = RandomPatches(source, recipe.patch.size, seed=recipe.training.seed + 2, start=0, stop=PATCHES)
    return torch.stack(list(islice(raising(patches[number] for number in range(PATCHES)), PATCHES)))


class BaselineFigures(NamedTuple):
    """SSIM of each modality by the two baselines; None where a modality is absent or there is no other."""

    constant: list[float | None]
    linear: list[float | None]


def baseline_figures(held_out: Tensor, training: Tensor, modalities: Sequence[Modality]) -> BaselineFigures:
    """SSIM of the mean of each patch, and of linear regression, as :func:`compare_modalities` takes them."""
    constant = held_out.nanmean((2, 3), keepdim=True).nan_to_num().expand_as(held_out)
    return BaselineFigures(
        _similarity(held_out, constant.contiguous(), modalities),
        _similarity(held_out, _linear(training, held_out, modalities), modalities)
        if len(modalities) > 1
        else [None] * len(modalities),
    )


@torch.no_grad()
def compare_modalities(
    autoencoder: Autoencoder,
    held_out: Tensor,
    training: Tensor,
    baselines: BaselineFigures | None = None,
) -> tuple[ModalityFigures, ...]:
    """Compare reconstruction and prediction of each modality with a constant and with linear regression.

    Parameters
    ----------
    autoencoder: for scenes, in evaluation mode.
    held_out: (N, C, P, P), NaN where absent; compared on.
    training: (n, C, P, P); the linear regression of each modality on the channels of the others is fitted on it.
    baselines: those of the same patches, if they are known.
    """
    measure = autoencoder.measure
    assert isinstance(measure, ModalSSIM)
    modalities = measure.modalities
    device = next(autoencoder.buffers(), next(autoencoder.parameters(), held_out)).device
    made, predicted = [], []
    for batch in torch.split(held_out, _BATCH):
        x = batch.to(device)
        if autoencoder.encoder.takes_absent and len(modalities) > 1:
            found = modal_residuals(autoencoder, x)
            made.append(found.reconstruction.cpu())
            predicted.append(found.predicted.cpu())
        else:
            made.append(autoencoder(x).reconstruction.float().cpu())
    constant, linear = baselines or baseline_figures(held_out, training, modalities)
    return tuple(
        ModalityFigures(name=modality.name, similarity=own, constant=flat, from_others=others, linear=line)
        for modality, own, flat, others, line in zip(
            modalities,
            _similarity(held_out, torch.cat(made), modalities),
            constant,
            _similarity(held_out, torch.cat(predicted), modalities)
            if predicted
            else [None] * len(modalities),
            linear,
            strict=True,
        )
    )


def is_learned(figures: ModalityFigures) -> bool:
    """True if the reconstruction is better than a constant, or cannot be compared."""
    if figures.similarity is None or figures.constant is None:
        return True
    # Where a constant is nearly perfect there is nothing to gain.
    return figures.similarity >= min(figures.constant + LEAST_GAIN, (1 + figures.constant) / 2)


def leave_out(autoencoder: Autoencoder, figures: Sequence[ModalityFigures]) -> None:
    """Leave modalities that were not learned out of score and maps, unless none was learned; the others are in them."""
    learned = [is_learned(one) for one in figures]
    measure = autoencoder.measure
    if isinstance(measure, ModalSSIM) and any(learned):
        measure.counted.copy_(torch.tensor(learned, dtype=measure.counted.dtype))


def modality_notes(figures: Sequence[ModalityFigures]) -> tuple[str, ...]:
    """A sentence for each modality that was not learned, or is predicted worse than by linear regression."""
    notes = []
    some = any(is_learned(one) for one in figures)
    for one in figures:
        if not is_learned(one):
            consequence = "it is left out of score and maps" if some else "no modality was learned"
            notes.append(
                f"{one.name}: not learned, its reconstruction is as good as a constant (SSIM {one.similarity:.3f}, "
                f"constant {one.constant:.3f}); {consequence}. Train longer, with another seed, with a term "
                "{name: modal-mse} in the loss, or with the recipe other-pixels."
            )
        elif one.from_others is not None and one.linear is not None and one.from_others < one.linear:
            notes.append(
                f"{one.name}: predicted from the others with SSIM {one.from_others:.3f}, linear regression on their "
                f"pixels has {one.linear:.3f}: its cross-modal map shows more of the network than of the scene. The "
                "recipe other-pixels predicts at full resolution."
            )
    return tuple(notes)


def _similarity(x: Tensor, y: Tensor, modalities: Sequence[Modality]) -> list[float | None]:
    """Mean SSIM of each modality over the patches that show it; None where none does."""
    found = modal_ssim(x, y.nan_to_num().clamp(0, 1), modalities, data_range=1.0)
    count = found.present.sum(0)
    total = (found.ssim * found.present).sum(0)
    return [float(total[index] / count[index]) if count[index] else None for index in range(len(modalities))]


def _linear(training: Tensor, held_out: Tensor, modalities: Sequence[Modality]) -> Tensor:
    """Prediction of ``held_out`` by least squares of each modality on all channels of the others."""
    flat = training.transpose(0, 1).flatten(1).T.double().numpy()  # (pixels, C)
    flat = flat[np.isfinite(flat).all(1)]
    mean = flat.mean(0) if len(flat) else np.zeros(training.shape[1])
    shown = held_out.transpose(0, 1).flatten(1).T.double().numpy()
    shown = np.where(np.isfinite(shown), shown, mean) - mean
    predicted = np.tile(mean, (len(shown), 1))
    for own in channel_slices(modalities):
        others = [number for number in range(training.shape[1]) if not own.start <= number < own.stop]
        if len(flat) > len(others):
            weights = np.linalg.lstsq(flat[:, others] - mean[others], flat[:, own] - mean[own], rcond=1e-6)[0]
            predicted[:, own] += shown[:, others] @ weights
    shape = held_out.transpose(0, 1).shape
    return torch.from_numpy(predicted.T.reshape(shape).astype(np.float32)).transpose(0, 1).contiguous()
