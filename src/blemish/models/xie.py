"""The autoencoders of Xie, Meeus and Pižurica 2019, for surfaces that several sensors saw.

Partial Convolution Based Multimodal Autoencoder for Art Investigation, section 3.2. A patch of 32 × 32 pixels
becomes 3 × 3 × 80 latent variables. The paper prints the two totals of its separated models, 893,643 weights
with addition and 996,043 with concatenation for modalities of 3, 3, 1, 1 and 3 channels, and no kernels. Both
totals are met, to the weight, by what stands below; of the other tables that meet them, kernels 3, 4, 3 in
the encoder with 4, 4, 5 in the decoder is one. The activation is ours: leaky ReLU of slope 0.2 after every
layer but the one that gives the latent and the one that gives the image.

NaN in an image says *absent*. Encoders of partial convolutions take it as a hole; what the networks give is
never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.data.modality import Modality
from blemish.errors import RecipeError
from blemish.layers import ConvTranspose2d, PartialConv2d, PartialConvTranspose2d
from blemish.models.autoencoder import (
    ImageDecoder,
    ImageEncoder,
)
from blemish.models.initialisation import keep_variance, start_grey
from blemish.models.registry import DECODERS, ENCODERS, register

STRIDE = 8
SLOPE = 0.2
LATENT = 80
# (kernel, stride, padding, channels out): 32 -> 16 -> 8 -> 3
ENCODER = ((5, 2, 2, 48), (4, 2, 1, 48), (3, 2, 0, LATENT))
# (kernel, stride, padding, output padding, channels out): 3 -> 8 -> 16 -> 32; the image's channels come last.
DECODER = ((4, 2, 0, 0, 48), (4, 2, 1, 0, 48), (3, 2, 1, 1, 0))
INTERMODAL_KERNEL = 2

Convolution = Literal["partial", "normal"]
Deconvolution = Literal["partial", "normal", "upsampled"]


def _check_patch(part: str, patch: int) -> None:
    if patch % STRIDE or patch < 2 * STRIDE:
        raise RecipeError(
            f"{part} needs a patch that is a multiple of {STRIDE} and at least {2 * STRIDE}, but patch.size is "
            f"{patch}; try --set patch.size={max(2 * STRIDE, round(patch / STRIDE) * STRIDE)}"
        )


def _grid(patch: int) -> tuple[int, int]:
    """Sides of the latent of one patch: the last convolution has no padding, so that one place is lost."""
    return patch // STRIDE - 1, patch // STRIDE - 1


def _convolved(layer: nn.Module, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if mask is None:
        return cast(Tensor, layer(x)), None
    return cast("tuple[Tensor, Tensor]", layer(x, mask=mask))


def _presence(x: Tensor) -> Tensor | None:
    """Where ``x`` (N, C, H, W) is not NaN, in its shape; None where it is so everywhere, which is the quick way."""
    absent = x.isnan()
    return ~absent if absent.any() else None


class _Halving(nn.Module):
    """The three convolutions of one encoder: (N, C, H, W) to (N, 80, H / 8 − 1, W / 8 − 1), and its mask."""

    def __init__(self, channels: int, convolution: Convolution, *, linear: bool) -> None:
        super().__init__()
        kind = PartialConv2d if convolution == "partial" else nn.Conv2d
        layers: list[nn.Module] = []
        c_in = channels
        for kernel, stride, padding, c_out in ENCODER:
            layer = kind(c_in, c_out, kernel, stride, padding)
            keep_variance(layer, slope=SLOPE)
            layers.append(layer)
            c_in = c_out
        if linear:
            keep_variance(layer)
        self.layers = nn.ModuleList(layers)
        self.activated = len(layers) - linear

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for place, layer in enumerate(self.layers):
            x, mask = _convolved(layer, x, mask)
            if place < self.activated:
                x = F.leaky_relu(x, SLOPE)
        return x, mask


@register(ENCODERS, "stacked")
class StackedEncoder(ImageEncoder):
    """All channels through one encoder (Figure 4): (N, C, H, W) to (N, 80, H / 8 − 1, W / 8 − 1).

    Parameters
    ----------
    channels: of the images, all modalities together.
    patch: side of the training patch in pixels, a multiple of 8 and 16 at least; the paper's is 32.
    convolution: ``partial``, which takes absent values channel by channel, or ``normal``, which takes none.
    """

    stride = STRIDE

    def __init__(self, *, channels: int, patch: int = 32, convolution: Convolution = "partial") -> None:
        super().__init__()
        _check_patch("encoder 'stacked'", patch)
        self.patch = patch
        self.latent_shape = (LATENT, *_grid(patch))
        self.takes_absent = convolution == "partial"
        self.halving = _Halving(channels, convolution, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.halving(x, _presence(x) if self.takes_absent else None)[0])


class Seen(NamedTuple):
    """What the encoder of one modality finds in it."""

    features: Tensor
    """(N, 80, h, w), 0 where they rest on nothing."""
    mask: Tensor | None
    """(N, 1, h, w) booleans, where they rest on anything; None where they do everywhere."""

    def held(self) -> Tensor:
        """The mask, written out."""
        if self.mask is not None:
            return self.mask
        return torch.ones_like(self.features[:, :1], dtype=torch.bool)

    def absent(self) -> Seen:
        """What would be found had the modality never been taken."""
        return Seen(torch.zeros_like(self.features), torch.zeros_like(self.held()))


@register(ENCODERS, "separated")
class SeparatedEncoder(ImageEncoder):
    """An encoder for each modality, and a convolution that finds what they share (Figure 5).

    ::

        x ─┬─► encoders[0] ─┐
           ├─► encoders[1] ─┼─► concat or add ─► intermodal ─► latent (N, 80, H / 8 − 1, W / 8 − 1)
           └─► …           ─┘

    An absent modality contributes nothing, and the others stand in for it. Concatenated, its features are a
    hole to the inter-modal partial convolution, which scales up what is left. Added, the sum of those that are
    present is multiplied by (number of modalities) / (number present), at each place of the grid. Where all are
    absent the latent is 0.

    Parameters
    ----------
    modalities: whose channels make up the images'.
    patch: side of the training patch in pixels, a multiple of 8 and 16 at least; the paper's is 32.
    fusion: ``add`` or ``concat``.
    convolution: ``partial``, which takes absent values, or ``normal``, which takes none.
    """

    stride = STRIDE

    def __init__(
        self,
        *,
        modalities: Sequence[Modality],
        patch: int = 32,
        fusion: Literal["add", "concat"] = "add",
        convolution: Convolution = "partial",
    ) -> None:
        super().__init__()
        _check_patch("encoder 'separated'", patch)
        self.patch = patch
        self.latent_shape = (LATENT, *_grid(patch))
        self.takes_absent = convolution == "partial"
        self.fusion = fusion
        self.sizes = [modality.channels for modality in modalities]
        self.encoders = nn.ModuleList(_Halving(size, convolution, linear=False) for size in self.sizes)
        kind = PartialConv2d if convolution == "partial" else nn.Conv2d
        fused = LATENT * (len(self.sizes) if fusion == "concat" else 1)
        self.intermodal = kind(fused, LATENT, INTERMODAL_KERNEL, padding=INTERMODAL_KERNEL - 1)
        # A sum of as many features has their variances in it.
        reached = INTERMODAL_KERNEL**2 * LATENT * len(self.sizes)
        keep_variance(self.intermodal, reached=reached)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.see(x))

    def see(self, x: Tensor) -> list[Seen]:
        """What each encoder finds in its part of ``x`` (N, C, H, W), before anything is shared."""
        present = _presence(x) if self.takes_absent else None
        masks: Sequence[Tensor | None] = [None] * len(self.sizes)
        if present is not None:
            masks = torch.split(present, self.sizes, 1)
        return [
            Seen(*encoder(part, mask))
            for encoder, part, mask in zip(self.encoders, torch.split(x, self.sizes, 1), masks, strict=True)
        ]

    def fuse(self, seen: Sequence[Seen], *, without: int | None = None) -> Tensor:
        """The latent of what was seen, as if the modality of number ``without`` were absent."""
        if without is not None:
            seen = [one.absent() if place == without else one for place, one in enumerate(seen)]
        whole = all(one.mask is None for one in seen)
        features = [one.features for one in seen]  # each (N, 80, h, w)
        mask = None
        if self.fusion == "concat":
            fused = torch.cat(features, 1)
            if not whole:
                mask = torch.cat([one.held().expand_as(one.features) for one in seen], 1)
        else:
            fused = torch.stack(features).sum(0)
            if not whole:
                count = torch.stack([one.held() for one in seen]).sum(0)  # (N, 1, h, w)
                fused, mask = fused * (len(seen) / count.clamp_min(1)), count > 0
        # One place more than it is given: the grid is kept by leaving out what looks ahead of its first.
        return _convolved(self.intermodal, fused, mask)[0][..., 1:, 1:]


class _Upsampled(nn.Module):
    """Every place repeated twice along both axes, then a partial convolution, in place of a transposed one.

    The same kernel, and the same size of output, as a transposed convolution of stride 2; its repeated values
    stand where that has its inserted zeros. The paper leaves open how 3 places become 8; so they do.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, padding: int, output_padding: int) -> None:
        super().__init__()
        self.convolution = PartialConv2d(c_in, c_out, kernel, padding=kernel - 1 - padding)
        self.growth = kernel - 2 - 2 * padding + output_padding

    def forward(self, x: Tensor) -> Tensor:
        height, width = (2 * side + self.growth for side in x.shape[-2:])
        y: Tensor = self.convolution(F.interpolate(x, scale_factor=2, mode="nearest"))
        return y[..., :height, :width]


class _Doubling(nn.Sequential):
    """The three deconvolutions of one decoder: (N, 80, h, w) to (N, C, 8 (h + 1), 8 (w + 1)), linear output."""

    def __init__(self, latent: int, channels: int, deconvolution: Deconvolution) -> None:
        steps: list[nn.Module] = []
        c_in = latent
        for kernel, stride, padding, extra, width in DECODER:
            c_out = width or channels
            step: nn.Module
            weighted: nn.Conv2d | nn.ConvTranspose2d
            if deconvolution == "upsampled":
                step = _Upsampled(c_in, c_out, kernel, padding, extra)
                weighted = step.convolution
            elif deconvolution == "partial":
                step = weighted = PartialConvTranspose2d(c_in, c_out, kernel, stride, padding, extra)
            elif extra:  # which ours, the quicker one, does not have
                step = weighted = nn.ConvTranspose2d(c_in, c_out, kernel, stride, padding, extra)
            else:
                step = weighted = ConvTranspose2d(c_in, c_out, kernel, stride, padding)
            keep_variance(weighted, slope=SLOPE)
            steps += [step, nn.LeakyReLU(SLOPE)]
            c_in = c_out
        start_grey(weighted)
        super().__init__(*steps[:-1])


@register(DECODERS, "stacked")
class StackedDecoder(ImageDecoder):
    """All channels from one decoder (Figure 4): (N, 80, h, w) to (N, C, 8 (h + 1), 8 (w + 1)), linear output.

    Parameters
    ----------
    channels: of the images, all modalities together.
    patch: side of the training patch in pixels, a multiple of 8 and 16 at least.
    latent: channels of what it reads.
    deconvolution: ``partial`` or ``normal`` transposed convolutions, or ``upsampled``: nearest neighbours and a
        partial convolution.
    """

    def __init__(
        self,
        *,
        channels: int,
        patch: int = 32,
        latent: int = LATENT,
        deconvolution: Deconvolution = "partial",
    ) -> None:
        super().__init__()
        _check_patch("decoder 'stacked'", patch)
        self.latent_grid = _grid(patch)
        self.doubling = _Doubling(latent, channels, deconvolution)

    def forward(self, latent: Tensor) -> Tensor:
        return cast(Tensor, self.doubling(latent))


@register(DECODERS, "separated")
class SeparatedDecoder(ImageDecoder):
    """A decoder for each modality, all of one latent (Figure 5); it gives those that were absent, too.

    Takes the settings of :class:`StackedDecoder`, and the ``modalities`` in place of the channels.
    """

    def __init__(
        self,
        *,
        modalities: Sequence[Modality],
        patch: int = 32,
        latent: int = LATENT,
        deconvolution: Deconvolution = "partial",
    ) -> None:
        super().__init__()
        _check_patch("decoder 'separated'", patch)
        self.latent_grid = _grid(patch)
        self.decoders = nn.ModuleList(
            _Doubling(latent, modality.channels, deconvolution) for modality in modalities
        )

    def forward(self, latent: Tensor) -> Tensor:
        return torch.cat([self.modality(latent, place) for place in range(len(self.decoders))], 1)

    def modality(self, latent: Tensor, place: int) -> Tensor:
        """The modality of number ``place`` alone: (N, c, 8 (h + 1), 8 (w + 1))."""
        return cast(Tensor, self.decoders[place](latent))


# -- how alike, modality by modality -------------------------------------------------------------------
