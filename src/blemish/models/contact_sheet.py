"""Contact sheet of what a network is trained on: good patches, the same with synthetic anomalies, and their masks."""

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
    """What ``model`` is trained on: a column for each image of ``batch``, good above spoiled above its label.

    Every image is spoiled here, though training leaves some clean.

    Parameters
    ----------
    batch: (N, C, H, W) in [0, 1], good images; augmentation is left out.
    seed: of the draws, which leave torch's global generator alone.

    Returns
    -------
    (3 H + 2 gaps, N W + gaps, 3), or None where the model's corruptions have no ``blemishes``.
    """
    if not any(isinstance(corruption, SyntheticAnomalies) for corruption in model.corruptions):
        return None
    generator = torch.Generator().manual_seed(seed)
    seen = batch
    for corruption in model.corruptions:
        seen = (
            corruption.spoil(seen, 0.0, generator)
            if isinstance(corruption, SyntheticAnomalies)
            else corruption(seen, generator)
        )
    rows = [_coloured(batch), _coloured(seen), _coloured(anomaly_mask(seen, batch))]
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
    """Images of any channels as RGB (N, 3, H, W): colour as it is, others as the mean of their channels."""
    x = x.nan_to_num().clamp(0, 1)
    return x[:, :3] if x.shape[1] in (3, 4) else x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
