"""Convolutional encoder and decoder of Kumar, Malik and Puglisi 2025, section 3.3.

The paper states the number of layers but not their channels. Here they double from 16 to 128, which two CPU
cores can train on images of 256 × 256 pixels.
"""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field
from torch import Tensor, nn

from blemish.errors import RecipeError
from blemish.models.contracts import ImageDecoder, ImageEncoder
from blemish.models.initialisation import keep_variance, start_grey
from blemish.models.registry import DECODERS, ENCODERS, register

STRIDE = 16
Width = Annotated[int, Field(ge=1, le=4096)]
Widths = tuple[Width, Width, Width, Width]
WIDTHS: Widths = (16, 32, 64, 128)


def _check_patch(part: str, patch: int) -> None:
    if patch % STRIDE:
        raise RecipeError(
            f"{part} 'kumar' needs a patch that is a multiple of {STRIDE}, but patch.size is {patch}; "
            f"try --set patch.size={max(STRIDE, round(patch / STRIDE) * STRIDE)}"
        )


@register(ENCODERS, "kumar")
class KumarEncoder(ImageEncoder):
    """Encoder of four blocks of 3×3 convolution, ReLU and 2×2 max-pooling: (N, C, H, W) to (N, D, H/16, W/16).

    Parameters
    ----------
    channels: channels of the images.
    patch: side of the training patch in pixels, a multiple of 16; 256 in the paper.
    widths: channels after each convolution; the last is D.
    """

    stride = STRIDE

    def __init__(self, *, channels: int, patch: int = 256, widths: Widths = WIDTHS) -> None:
        super().__init__()
        _check_patch("encoder", patch)
        self.patch = patch
        self.latent_shape = (widths[-1], patch // STRIDE, patch // STRIDE)
        steps: list[nn.Module] = []
        c_in = channels
        for c_out in widths:
            layer = nn.Conv2d(c_in, c_out, 3, padding=1)
            keep_variance(layer, slope=0)
            steps += [layer, nn.ReLU(), nn.MaxPool2d(2)]
            c_in = c_out
        self.layers = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))


@register(DECODERS, "kumar")
class KumarDecoder(ImageDecoder):
    """Decoder of four blocks of 3×3 convolution, ReLU and nearest upsampling, and an output convolution.

    (N, D, h, w) to (N, C, 16 h, 16 w), linear output. The latent of an encoder with stride 32 (VGG16, ResNet50)
    is upsampled once more before the first convolution, to (N, C, 32 h, 32 w).

    Parameters
    ----------
    channels: channels of the images.
    patch: side of the training patch in pixels, a multiple of 16.
    shape: (D, P/16, P/16) or (D, P/32, P/32), the latent of one patch of side P.
    widths: channels of the convolutions of the encoder, used in reverse order.
    """

    def __init__(
        self, *, channels: int, patch: int = 256, shape: tuple[int, int, int], widths: Widths = WIDTHS
    ) -> None:
        super().__init__()
        _check_patch("decoder", patch)
        deeper = shape[1] * 2 * STRIDE == patch
        side = patch // STRIDE // (2 if deeper else 1)
        self.latent_grid = (side, side)
        steps: list[nn.Module] = [nn.Upsample(scale_factor=2)] if deeper else []
        c_in = shape[0]
        for c_out in reversed(widths):
            layer = nn.Conv2d(c_in, c_out, 3, padding=1)
            keep_variance(layer, slope=0)
            steps += [layer, nn.ReLU(), nn.Upsample(scale_factor=2)]
            c_in = c_out
        layer = nn.Conv2d(c_in, channels, 3, padding=1)
        start_grey(layer)
        self.layers = nn.Sequential(*steps, layer)

    def forward(self, latent: Tensor) -> Tensor:
        return cast(Tensor, self.layers(latent))
