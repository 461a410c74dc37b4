"""Starting weights that carry a signal through the whole network."""

from __future__ import annotations

import math

import torch
from torch import nn


def keep_variance(
    layer: nn.Conv2d | nn.ConvTranspose2d, *, slope: float = 1.0, reached: int | None = None
) -> None:
    """Draw the weights so that the layer, with the leaky ReLU after it, neither shrinks nor swells its input.

    He et al. 2015 (Delving Deep into Rectifiers, equation 15), with the fan-in of a transposed convolution
    counted as the inputs that reach one output pixel, kernel² / stride² of each channel. torch's default
    shrinks a signal about sixfold in each layer; after eighteen of them an SSIM loss sees a constant image
    and has no gradient to leave it by.

    Parameters
    ----------
    slope: of the leaky ReLU that follows; 1 where none does.
    reached: inputs that reach one output pixel, where the borders make them fewer than the kernel says.
    """
    if reached is None:
        reached = layer.in_channels * math.prod(layer.kernel_size)
        if isinstance(layer, nn.ConvTranspose2d):
            reached //= math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / ((1 + slope**2) * reached)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def start_grey(layer: nn.Conv2d | nn.ConvTranspose2d, contrast: float = 0.1) -> None:
    """Let an output layer begin with faint structure around mid-grey, the middle of the images' range."""
    keep_variance(layer)
    with torch.no_grad():
        layer.weight.mul_(contrast)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, 0.5)
