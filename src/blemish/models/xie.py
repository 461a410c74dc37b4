"""Multimodal autoencoders of Xie, Meeus and Pižurica 2019, for scenes of several modalities.

Partial Convolution Based Multimodal Autoencoder for Art Investigation, section 3.2. A patch of 32 × 32 pixels
has 3 × 3 × 80 latent variables. The paper states no kernel sizes, but the total number of weights of its separated
models for modalities of 3, 3, 1, 1 and 3 channels: 893,643 with addition and 996,043 with concatenation. The layers
below have exactly these totals; so do others, such as kernels 3, 4, 3 in the encoder with 4, 4, 5 in the decoder.
The activation is a choice of this implementation: leaky ReLU of slope 0.2 after every layer except those that
output the latent and the image.

NaN in an image means *absent*. Encoders with partial convolutions treat absent values as holes; the outputs of the
networks are never NaN.
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
from blemish.models.contracts import ImageDecoder, ImageEncoder
from blemish.models.initialisation import keep_variance, start_grey
from blemish.models.registry import DECODERS, ENCODERS, register

STRIDE = 8
SLOPE = 0.2
LATENT = 80
# (kernel, stride, padding, channels out): 32 -> 16 -> 8 -> 3
ENCODER = ((5, 2, 2, 48), (4, 2, 1, 48), (3, 2, 0, LATENT))
# (kernel, stride, padding, output padding, channels out): 3 -> 8 -> 16 -> 32; 0 stands for the channels of the image.
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
    """Sides of the latent of one patch; the last convolution has no padding and loses one location."""
    return patch // STRIDE - 1, patch // STRIDE - 1


def _convolved(layer: nn.Module, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if mask is None:
        return cast(Tensor, layer(x)), None
    return cast("tuple[Tensor, Tensor]", layer(x, mask=mask))


def _presence(x: Tensor) -> Tensor | None:
    """Mask of values of ``x`` (N, C, H, W) that are not NaN; None if all are present, which is the fast case."""
    absent = x.isnan()
    # A graph cannot ask, so it always has the mask.
    return ~absent if torch.compiler.is_compiling() or absent.any() else None


class _Halving(nn.Module):
    """Encoder of three strided convolutions: (N, C, H, W) to (N, 80, H / 8 − 1, W / 8 − 1), and the mask of valid outputs."""

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
        for index, layer in enumerate(self.layers):
            x, mask = _convolved(layer, x, mask)
            if index < self.activated:
                x = F.leaky_relu(x, SLOPE)
        return x, mask


@register(ENCODERS, "stacked")
class StackedEncoder(ImageEncoder):
    """Encoder of all channels together (Figure 4): (N, C, H, W) to (N, 80, H / 8 − 1, W / 8 − 1).

    Parameters
    ----------
    channels: channels of the images, all modalities together.
    patch: side of the training patch in pixels, a multiple of 8, at least 16; 32 in the paper.
    convolution: ``partial``, which accepts absent values in each channel, or ``normal``, which does not.
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


class ModalFeatures(NamedTuple):
    """Features of one modality."""

    features: Tensor
    """(N, 80, h, w), 0 where no input is valid."""
    mask: Tensor | None
    """(N, 1, h, w) booleans of valid features; None if all are valid."""

    def full_mask(self) -> Tensor:
        """Return the mask as a tensor, also if all features are valid."""
        if self.mask is not None:
            return self.mask
        return torch.ones_like(self.features[:, :1], dtype=torch.bool)

    def absent(self) -> ModalFeatures:
        """Features of an absent modality in the same shape."""
        return ModalFeatures(torch.zeros_like(self.features), torch.zeros_like(self.full_mask()))


@register(ENCODERS, "separated")
class SeparatedEncoder(ImageEncoder):
    """Encoder of each modality separately, with a convolution that fuses their features (Figure 5).

    ::

        x ─┬─► encoders[0] ─┐
           ├─► encoders[1] ─┼─► concat or add ─► intermodal ─► latent (N, 80, H / 8 − 1, W / 8 − 1)
           └─► …           ─┘

    An absent modality contributes nothing, and the others are scaled up in its place. With concatenation, its
    features are a hole for the inter-modal partial convolution, which scales up the others. With addition, the sum of
    the present features is multiplied by (number of modalities) / (number present) at each location of the grid.
    Where all modalities are absent the latent is 0.

    Parameters
    ----------
    modalities: modalities whose channels form the images.
    patch: side of the training patch in pixels, a multiple of 8, at least 16; 32 in the paper.
    fusion: ``add`` or ``concat``.
    convolution: ``partial``, which accepts absent values, or ``normal``, which does not.
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
        # The variance of a sum of features is the sum of their variances.
        reached = INTERMODAL_KERNEL**2 * LATENT * len(self.sizes)
        keep_variance(self.intermodal, reached=reached)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.encode_separately(x))

    def encode_separately(self, x: Tensor) -> list[ModalFeatures]:
        """Encode each modality of ``x`` (N, C, H, W) without the others."""
        present = _presence(x) if self.takes_absent else None
        masks: Sequence[Tensor | None] = [None] * len(self.sizes)
        if present is not None:
            masks = torch.split(present, self.sizes, 1)
        return [
            ModalFeatures(*encoder(part, mask))
            for encoder, part, mask in zip(self.encoders, torch.split(x, self.sizes, 1), masks, strict=True)
        ]

    def fuse(self, modalities: Sequence[ModalFeatures], *, without: int | None = None) -> Tensor:
        """Fuse the features of the modalities into the latent; modality ``without`` is treated as absent."""
        if without is not None:
            modalities = [
                modality.absent() if index == without else modality
                for index, modality in enumerate(modalities)
            ]
        complete = all(modality.mask is None for modality in modalities)
        features = [modality.features for modality in modalities]  # each (N, 80, h, w)
        mask = None
        if self.fusion == "concat":
            fused = torch.cat(features, 1)
            if not complete:
                masks = [modality.full_mask().expand_as(modality.features) for modality in modalities]
                mask = torch.cat(masks, 1)
        else:
            fused = torch.stack(features).sum(0)
            if not complete:
                count = torch.stack([modality.full_mask() for modality in modalities]).sum(0)  # (N, 1, h, w)
                fused, mask = fused * (len(modalities) / count.clamp_min(1)), count > 0
        # The padding adds one location per axis; leaving out the first one keeps the size of the grid.
        return _convolved(self.intermodal, fused, mask)[0][..., 1:, 1:]


class _Upsampled(nn.Module):
    """Nearest upsampling by 2 and a partial convolution, instead of a transposed convolution.

    The kernel and the size of the output are those of a transposed convolution of stride 2; repeated values replace
    its inserted zeros. The paper does not state how 3 locations become 8; here they become 8 in this way.
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
    """Decoder of three deconvolutions: (N, 80, h, w) to (N, C, 8 (h + 1), 8 (w + 1)), linear output."""

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
            elif extra:  # not supported by the faster ConvTranspose2d of Blemish
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
    """Decoder of all channels together (Figure 4): (N, 80, h, w) to (N, C, 8 (h + 1), 8 (w + 1)), linear output.

    Parameters
    ----------
    channels: channels of the images, all modalities together.
    patch: side of the training patch in pixels, a multiple of 8, at least 16.
    latent: channels of the latent.
    deconvolution: ``partial`` or ``normal`` transposed convolutions, or ``upsampled``: nearest upsampling
        and a partial convolution.
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
    """Decoder with one branch per modality from a common latent (Figure 5); it reconstructs absent modalities too.

    Takes the settings of :class:`StackedDecoder`, with ``modalities`` instead of ``channels``.
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
        return torch.cat([self.modality(latent, index) for index in range(len(self.decoders))], 1)

    def modality(self, latent: Tensor, index: int) -> Tensor:
        """Decode the modality ``index`` alone: (N, c, 8 (h + 1), 8 (w + 1))."""
        return cast(Tensor, self.decoders[index](latent))
