"""Building blocks that several models share."""

from blemish.layers.transposed import ConvTranspose2d, conv_transpose2d

__all__ = ["ConvTranspose2d", "conv_transpose2d"]
