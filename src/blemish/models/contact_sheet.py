"""Contact sheet of training inputs: good patches, the same patches with synthetic anomalies, and the anomaly masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blemish.models.autoencoder import Autoencoder
from blemish.models.synthetic_anomalies import SyntheticAnomalies, anomaly_mask

GAP = 4
"""Pixels between the images of a contact sheet."""


@torch.no_grad()
def contact_sheet(model: Autoencoder, batch: Tensor, seed: int = 0) -> npt.NDArray[np.uint8] | None:
    """Draw the training inputs of ``model``: one column per image, good image above corrupted image above anomaly mask.

    Here every image gets synthetic anomalies; training leaves some clean.

    Parameters
    ----------
    batch: (N, C, H, W) in [0, 1], good images; augmentation is left out.
    seed: seed of the random draws; torch's global generator is not used.

    Returns
    -------
    (3 H + 2 gaps, N W + gaps, 3), or None where the model's corruptions have no ``synthetic-anomalies``.
    """
    if not any(isinstance(corruption, SyntheticAnomalies) for corruption in model.corruptions):
        return None
    generator = torch.Generator().manual_seed(seed)
    corrupted = batch
    for corruption in model.corruptions:
        corrupted = (
            corruption.synthesise(corrupted, 0.0, generator)
            if isinstance(corruption, SyntheticAnomalies)
            else corruption(corrupted, generator)
        )
    rows = [_coloured(batch), _coloured(corrupted), _coloured(anomaly_mask(corrupted, batch))]
    height, width = batch.shape[-2:]
    sheet = torch.ones(
        3, 3 * height + 2 * GAP, len(batch) * width + (len(batch) - 1) * GAP, device=batch.device
    )
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[:, top : top + height, left : left + width] = image
    pixels: npt.NDArray[np.uint8] = (255 * sheet).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def _coloured(x: Tensor) -> Tensor:
    """Convert images to RGB (N, 3, H, W): colour images unchanged, others as the mean of their channels."""
    x = x.nan_to_num().clamp(0, 1)
    return x[:, :3] if x.shape[1] in (3, 4) else x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
