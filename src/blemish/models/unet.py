"""Small U-Net (Ronneberger et al. 2015), kept from copying its input by the corruption instead of a bottleneck.

Skip connections preserve fine detail, so reconstructions are sharp; the network must detect and restore what was
corrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blemish.errors import RecipeError
from blemish.models.contracts import ImageDecoder, ImageEncoder, moments
from blemish.models.initialisation import keep_variance
from blemish.models.registry import DECODERS, ENCODERS, register

WIDTHS = (16, 32, 48, 64, 64)


class _Convolutions(nn.Sequential):
    """Two 3×3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        steps: list[nn.Module] = []
        for channels in (c_in, c_out):
            layer = nn.Conv2d(channels, c_out, 3, padding=1, bias=False)
            keep_variance(layer, slope=0)
            steps += [layer, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        super().__init__(*steps)

    def forward(self, x: Tensor) -> Tensor:
        is_plain = self.training or torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)
        if is_plain or torch.compiler.is_exporting():
            found: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return found
        layers = list(self)
        for layer, norm in zip(layers[::3], layers[1::3], strict=True):
            assert isinstance(layer, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            # What is constant at inspection belongs to the convolution, and saves a pass over all values.
            gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = norm.bias - norm.running_mean * gain
            x = F.conv2d(x, layer.weight * gain[:, None, None, None], bias, padding=1).relu_()
        return x


@register(ENCODERS, "unet")
class UNet(ImageEncoder):
    """Encoder (N, C, H, W) to features (N, widths[0], H, W) of every pixel::

        x ─► down[0] ────────────────────────────► cat ─► up[-1] ─► latent
                │ ½                                 ▲ 2×, narrow[-1]
             down[1] ───────────────► cat ─► up[-2] ┘
                │ ½                    ▲
               ...                    ...

    With the default settings and one channel, it has 407 thousand parameters and takes 3.8 GFLOP (1.9 G multiply-adds)
    at 256 × 256. The features are those of the standardised image (:func:`~blemish.models.contracts.moments`), so
    they do not depend on a gain or an offset.

    Parameters
    ----------
    channels: channels of the images.
    patch: side of the training patch in pixels, a multiple of 2^(levels - 1), by default 16.
    widths: channels of each level, the finest first; each further level has half the side.
    normalise: whether images are standardised; if not, the features depend on brightness and contrast.
    """

    def __init__(
        self,
        *,
        channels: int,
        patch: int = 256,
        widths: Annotated[Sequence[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1)] = WIDTHS,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        if patch % self.stride:
            raise RecipeError(
                f"encoder 'unet' of {len(widths)} levels needs a patch that is a multiple of {self.stride}, but "
                f"patch.size is {patch}; try --set patch.size={max(1, round(patch / self.stride)) * self.stride}"
            )
        self.patch = patch
        self.latent_shape = (widths[0], patch, patch)
        self.standardises = normalise
        self.down = nn.ModuleList(
            _Convolutions(c_in, c_out) for c_in, c_out in zip((channels, *widths), widths, strict=False)
        )
        finer, coarser = list(reversed(widths[:-1])), list(reversed(widths[1:]))
        self.narrow = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 1, bias=False) for c_in, c_out in zip(coarser, finer, strict=True)
        )
        self.up = nn.ModuleList(_Convolutions(2 * width, width) for width in finer)

    def forward(self, x: Tensor) -> Tensor:
        if self.standardises:
            mean, deviation = moments(x)
            x = (x - mean) / deviation
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)  # (N, widths[level], H / 2^level, W / 2^level)
            skips.append(x)
        skips.pop()
        for narrow, block in zip(self.narrow, self.up, strict=True):
            # Reduce the channels before the upsampling: the same features for a quarter of the work.
            larger = F.interpolate(narrow(x), scale_factor=2, mode="nearest")
            x = block(torch.cat([larger, skips.pop()], 1))
        return x


@register(DECODERS, "pointwise")
class Pointwise(ImageDecoder):
    """Decoder by a 1×1 convolution from the features of every pixel to the image: (N, d, H, W) to (N, C, H, W)."""

    def __init__(self, *, channels: int, latent: int, patch: int = 256) -> None:
        super().__init__()
        self.latent_grid = (patch, patch)
        self.layer = nn.Conv2d(latent, channels, 1)
        keep_variance(self.layer)

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.layer(latent)
        return image
