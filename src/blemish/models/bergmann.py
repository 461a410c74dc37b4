"""Convolutional autoencoder of Bergmann et al. 2018.

Layer table as printed by Rádli & Czúni 2022, Table 1, for the same network; leaky ReLU of slope 0.2
after every layer but the last of each half, which are linear.
"""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field
from torch import Tensor, nn

from blemish.errors import RecipeError
from blemish.layers import ConvTranspose2d
from blemish.models.contracts import ImageDecoder, ImageEncoder
from blemish.models.initialisation import keep_variance, start_grey
from blemish.models.registry import DECODERS, ENCODERS, register

STRIDE = 16
SLOPE = 0.2
# (kernel, stride, padding, channels out), input to latent; the last layer depends on patch and latent.
LAYERS = (
    (4, 2, 1, 32),
    (4, 2, 1, 32),
    (3, 1, 1, 32),
    (4, 2, 1, 64),
    (3, 1, 1, 64),
    (4, 2, 1, 128),
    (3, 1, 1, 64),
    (3, 1, 1, 32),
)


def _check_patch(part: str, patch: int) -> None:
    if patch % STRIDE:
        raise RecipeError(
            f"{part} 'bergmann' needs a patch that is a multiple of {STRIDE}, but patch.size is {patch}; "
            f"try --set patch.size={max(STRIDE, round(patch / STRIDE) * STRIDE)}"
        )


@register(ENCODERS, "bergmann")
class BergmannEncoder(ImageEncoder):
    """Encoder of patches of side P: (N, C, P, P) to (N, latent, 1, 1); larger inputs give a grid of latents.

    Parameters
    ----------
    channels: channels of the images.
    patch: side of the training patch in pixels, a multiple of 16; 128 in the paper.
    latent: size d of the bottleneck.
    """

    stride = STRIDE

    def __init__(
        self, *, channels: int, patch: int = 128, latent: Annotated[int, Field(ge=1, le=65_536)] = 100
    ) -> None:
        super().__init__()
        _check_patch("encoder", patch)
        self.patch = patch
        self.latent_shape = (latent, 1, 1)
        steps: list[nn.Module] = []
        c_in = channels
        for kernel, stride, padding, c_out in LAYERS:
            layer = nn.Conv2d(c_in, c_out, kernel, stride, padding)
            keep_variance(layer, slope=SLOPE)
            steps += [layer, nn.LeakyReLU(SLOPE)]
            c_in = c_out
        # (N, 32, P/16, P/16) -> (N, latent, 1, 1)
        bottleneck = nn.Conv2d(c_in, latent, patch // STRIDE)
        keep_variance(bottleneck)
        steps.append(bottleneck)
        self.layers = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))


@register(DECODERS, "bergmann")
class BergmannDecoder(ImageDecoder):
    """Decoder that mirrors the encoder with transposed convolutions: (N, latent, 1, 1) to (N, C, P, P), linear output."""

    latent_grid = (1, 1)

    def __init__(self, *, channels: int, patch: int = 128, latent: int = 100) -> None:
        super().__init__()
        _check_patch("decoder", patch)
        c_in = LAYERS[-1][3]
        # (N, latent, 1, 1) -> (N, 32, P/16, P/16): every output pixel depends on one latent only
        layer = ConvTranspose2d(latent, c_in, patch // STRIDE)
        keep_variance(layer, slope=SLOPE, reached=latent)
        steps: list[nn.Module] = [layer, nn.LeakyReLU(SLOPE)]
        outputs = [channels, *(layer[3] for layer in LAYERS[:-1])]
        for (kernel, stride, padding, _), c_out in zip(reversed(LAYERS), reversed(outputs), strict=True):
            layer = ConvTranspose2d(c_in, c_out, kernel, stride, padding)
            keep_variance(layer, slope=SLOPE)
            steps += [layer, nn.LeakyReLU(SLOPE)]
            c_in = c_out
        start_grey(layer)
        self.layers = nn.Sequential(*steps[:-1])

    def forward(self, latent: Tensor) -> Tensor:
        return cast(Tensor, self.layers(latent))
