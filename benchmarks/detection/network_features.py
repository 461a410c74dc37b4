"""Features of a network that was trained on the same good images: an extractor for the comparison with others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.detectors.factory import networks
from blemish.detectors.feature_extractors import FeatureExtractor, register_extractor
from blemish.inspection.detector import load
from blemish.models.bergmann import BergmannEncoder
from blemish.models.contracts import moments
from blemish.models.unet import UNet

SIDE = 16
"""Pixels to one place of the coarser level."""


@register_extractor("network")
class NetworkFeatures(FeatureExtractor):
    """Activations of an encoder at an eighth and a sixteenth of the size, averaged over neighbours.

    As :class:`~blemish.detectors.pretrained_extractors.EfficientNetLiteFeatures` takes them.

    Parameters
    ----------
    model: folder of a model whose only network has a U-Net or the encoder of Bergmann et al.
    """

    title = "activations of a network"
    stride = 8
    offset = 3
    least_side = 32

    def __init__(self, *, model: str) -> None:
        super().__init__()
        (autoencoder,) = networks(load(model).model).values()
        self.encoder = autoencoder.encoder
        self.encoder.requires_grad_(False)
        self.encoder.eval()

    def train(self, mode: bool = True) -> NetworkFeatures:
        """Stay in evaluation mode, because the features are not trained."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (-(-side // self.stride) for side in x.shape[2:])
        padded = F.pad(x, (0, -x.shape[3] % SIDE, 0, -x.shape[2] % SIDE), mode="replicate")
        eighth, sixteenth = (F.avg_pool2d(level, 3, 1, 1) for level in levels(self.encoder, padded))
        finer = F.interpolate(sixteenth, eighth.shape[2:], mode="bilinear", align_corners=False)
        features = torch.cat([eighth, finer], 1)[:, :, :height, :width]
        return features.permute(0, 2, 3, 1)  # (N, k, h, w) -> (N, h, w, k)


def levels(encoder: torch.nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Last activations of ``encoder`` at an eighth and a sixteenth of the size of ``x``, whose sides are multiples of 16."""
    found: dict[int, Tensor] = {}
    height = x.shape[2]
    if isinstance(encoder, UNet):
        if encoder.standardises:
            mean, deviation = moments(x)
            x = (x - mean) / deviation
        for level, block in enumerate(encoder.down):
            x = block(F.max_pool2d(x, 2) if level else x)  # (N, widths[level], H / 2^level, W / 2^level)
            found[height // x.shape[2]] = x
    else:
        assert isinstance(encoder, BergmannEncoder)
        for layer in encoder.layers[:-1]:
            x = layer(x)
            found[height // x.shape[2]] = x
    return found[8], found[16]
