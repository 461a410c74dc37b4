"""Building blocks that several models share."""

from blemish.layers import torchvision_operators as torchvision_operators
from blemish.layers.contractive import jacobian_norm_estimate, jacobian_norm_exact
from blemish.layers.partial import PartialConv1d, PartialConv2d, PartialConvTranspose2d, partial_convolution
from blemish.layers.transposed import ConvTranspose2d, conv_transpose2d

__all__ = [
    "ConvTranspose2d",
    "PartialConv1d",
    "PartialConv2d",
    "PartialConvTranspose2d",
    "conv_transpose2d",
    "jacobian_norm_estimate",
    "jacobian_norm_exact",
    "partial_convolution",
]
