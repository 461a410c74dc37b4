"""Initial weights that preserve the variance of a signal through the whole network."""

from __future__ import annotations

import math

import torch
from torch import nn


def keep_variance(
    layer: nn.Conv2d | nn.ConvTranspose2d, *, slope: float = 1.0, reached: int | None = None
) -> None:
    """Initialise a layer so that it preserves the variance of its input, including the leaky ReLU after it.

    He et al. 2015 (Delving Deep into Rectifiers, equation 15), with the fan-in of a transposed convolution
    counted as the inputs that reach one output pixel, kernel² / stride² of each channel. torch's default
    attenuates a signal about sixfold in each layer; after eighteen layers the output is nearly constant, and an
    SSIM loss has no gradient there.

    Parameters
    ----------
    slope: slope of the following leaky ReLU; 1 without an activation.
    reached: number of inputs that reach one output pixel, if it differs from the size of the kernel.
    """
    if reached is None:
        reached = layer.in_channels * math.prod(layer.kernel_size)
        if isinstance(layer, nn.ConvTranspose2d):
            reached //= math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / ((1 + slope**2) * reached)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def start_grey(layer: nn.Conv2d | nn.ConvTranspose2d, contrast: float = 0.1) -> None:
    """Initialise an output layer to faint structure around mid-grey, the middle of the range of the images."""
    keep_variance(layer)
    with torch.no_grad():
        layer.weight.mul_(contrast)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, 0.5)
