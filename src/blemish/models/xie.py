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

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blemish.data.scenes import Modality
from blemish.errors import RecipeError, UsageError
from blemish.layers import ConvTranspose2d, PartialConv2d, PartialConvTranspose2d
from blemish.models.autoencoder import Autoencoder
from blemish.models.contracts import ImageDecoder, ImageEncoder, Pass, Residual, ResidualRule, Term
from blemish.models.initialisation import keep_variance, start_grey
from blemish.models.registry import DECODERS, ENCODERS, RESIDUALS, TERMS, register
from blemish.similarity import ssim, ssim_map
from blemish.similarity.ssim import make_settings

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
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


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


WindowSize = Annotated[int, Field(ge=3)]


def _parts(x: Tensor, modalities: Sequence[Modality]) -> Iterator[Tensor]:
    """The channels of each modality, (N, c, H, W)."""
    yield from torch.split(x, [modality.channels for modality in modalities], 1)


def _as_compared(x: Tensor, modality: Modality) -> Tensor:
    """The channels that SSIM is to see: (N, c, H, W), or (N, 1, H, W) where the modality is turned to grey."""
    if not modality.is_grey:
        return x
    if modality.channels != len(LUMA):
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _absent(x: Tensor) -> Tensor:
    """Where any channel of one modality (N, c, H, W) is missing: (N, 1, H, W)."""
    return x.isnan().any(1, keepdim=True)


class ModalSimilarity(NamedTuple):
    """What :func:`modal_ssim` gives."""

    ssim: Tensor
    """(N, M), at most 1; 0 where nothing could be compared."""
    present: Tensor
    """(N, M) booleans: where a window of the modality misses nothing."""


def modal_ssim(
    x: Tensor, y: Tensor, modalities: Sequence[Modality], *, data_range: float, window: int = 11
) -> ModalSimilarity:
    """The mean SSIM of each modality of each image, over the windows in which ``x`` misses nothing.

    Modalities with ``is_grey`` are turned to grey first, by the luma of ITU-R BT.601 where they have three channels
    (Xie et al. 2019, section 3.3); the others are the mean over their channels. Windows are Gaussian, of
    standard deviation 1.5 pixels, mirrored at the border.

    Parameters
    ----------
    x: (N, C, H, W), NaN where absent.
    y: (N, C, H, W), finite.
    modalities: M of them, whose channels make up C.
    data_range: span of the values, 1.0 for [0, 1].
    window: side in pixels, odd.

    Examples
    --------
    >>> sensors = [Modality(name="rgb", channels=3), Modality(name="xray", channels=1)]
    >>> x = torch.rand(1, 4, 16, 16)
    >>> x[:, 3] = torch.nan
    >>> modal_ssim(x, torch.nan_to_num(x), sensors, data_range=1.0)
    ModalSimilarity(ssim=tensor([[1., 0.]]), present=tensor([[ True, False]]))
    """
    y = y.to(torch.promote_types(y.dtype, torch.float32))  # grey in half precision would be rounded twice
    similar, present = [], []
    for modality, target, made in zip(modalities, _parts(x, modalities), _parts(y, modalities), strict=True):
        absent = _absent(target)
        if not absent.any():
            pair = _as_compared(target, modality), _as_compared(made, modality)
            similar.append(ssim(*pair, data_range=data_range, window=window))
            present.append(torch.ones_like(similar[-1], dtype=torch.bool))
            continue
        # Outside the windows that count, any value will do; equal ones have no gradient.
        target, made = target.masked_fill(absent, 0), made.masked_fill(absent, 0)
        pair = _as_compared(target, modality), _as_compared(made, modality)
        values = ssim_map(*pair, data_range=data_range, window=window).mean(1, keepdim=True)
        # The mirrored border repeats pixels of the window, so that none beyond it need be looked at.
        counted = F.max_pool2d(absent.to(values.dtype), window, 1, window // 2) == 0  # (N, 1, H, W)
        number = counted.sum((1, 2, 3))
        similar.append((values * counted).sum((1, 2, 3)) / number.clamp_min(1))
        present.append(number > 0)
    return ModalSimilarity(torch.stack(similar, 1), torch.stack(present, 1))


@register(TERMS, "modal-log-ssim")
class ModalLogSSIM(Term):
    """−log((SSIM + 1) / 2) of each modality, and the mean over those that are present (section 3.3).

    SSIM as :func:`modal_ssim` takes it. One named term a modality; each is divided by the number of modalities
    that its image has, so that their sum is the loss. A batch in which nothing is present has loss 0.

    Parameters
    ----------
    modalities: of the images.
    data_range: span of the values.
    window: side of the Gaussian window in pixels, odd; 11 leaves patches of 32 some 22 × 22 whole windows, and
        the border counts by mirrored ones.
    """

    takes_absent = True
    for_modalities = True

    def __init__(self, *, modalities: Sequence[Modality], data_range: float, window: WindowSize = 11) -> None:
        super().__init__()
        make_settings(data_range, window=window)  # a wrong window is refused here, not at the first image
        self.modalities, self.data_range, self.window = tuple(modalities), data_range, window

    def forward(self, done: Pass) -> dict[str, Tensor]:
        similar, present = modal_ssim(
            done.target,
            done.output.reconstruction,
            self.modalities,
            data_range=self.data_range,
            window=self.window,
        )
        loss = -((similar + 1) / 2).clamp_min(torch.finfo(similar.dtype).eps).log() * present  # (N, M)
        count = present.sum(1, keepdim=True)
        shares = (loss / count.clamp_min(1)).sum(0) / (count > 0).sum().clamp_min(1)  # (M,)
        names = (modality.name for modality in self.modalities)
        return dict(zip(names, shares.unbind(), strict=True))


@register(RESIDUALS, "modal-ssim")
class ModalSSIM(ResidualRule):
    """1 − SSIM at each pixel, the mean over the modalities that are present there; 0 where none is.

    Each modality is compared as :func:`modal_ssim` does. What is absent is filled with the reconstruction: it adds
    no difference of its own, and its neighbours keep theirs.

    Parameters
    ----------
    modalities: of the images.
    data_range: span of the values.
    window: side of the Gaussian window in pixels, odd.
    """

    title = "1 − SSIM, mean over the modalities"
    takes_absent = True
    for_modalities = True

    def __init__(self, *, modalities: Sequence[Modality], data_range: float, window: WindowSize = 11) -> None:
        super().__init__()
        make_settings(data_range, window=window)
        self.modalities, self.data_range, self.window = tuple(modalities), data_range, window

    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        y = model(x).reconstruction.float()
        each = self.each(x, y)
        count = (~each.isnan()).sum(1, keepdim=True)
        return Residual(each.nansum(1, keepdim=True) / count.clamp_min(1), y)

    def each(self, x: Tensor, y: Tensor) -> Tensor:
        """The map of each modality: (N, C, H, W) to (N, M, H, W), at least 0, and NaN where it is absent."""
        maps = []
        for modality, target, made in zip(
            self.modalities, _parts(x, self.modalities), _parts(y, self.modalities), strict=True
        ):
            absent = _absent(target)
            target = torch.where(absent, made, target)
            pair = _as_compared(target, modality), _as_compared(made, modality)
            similar = ssim_map(*pair, data_range=self.data_range, window=self.window)
            distance = (1 - similar).mean(1, keepdim=True).clamp_min(0)
            maps.append(distance.masked_fill(absent, torch.nan))
        return torch.cat(maps, 1)


class ModalResiduals(NamedTuple):
    """What :func:`modal_residuals` gives, for M modalities."""

    own: Tensor
    """(N, M, H, W): 1 − SSIM of each modality, seen with all others; NaN where it is absent."""
    crossed: Tensor
    """(N, M, H, W): the same, with that modality taken away from the input; NaN also where it is the only one."""
    reconstruction: Tensor
    """(N, C, H, W), from all that is there."""
    predicted: Tensor
    """(N, C, H, W): each modality as the others predict it; NaN where there is no other."""


@torch.no_grad()
def modal_residuals(model: Autoencoder, x: Tensor) -> ModalResiduals:
    """What each modality shows that the network did not expect, and what the others do not predict of it.

    The latter is the case of overpainting and underdrawing: one sensor shows it, the others do not.

    Parameters
    ----------
    model: with residual ``modal-ssim``, and an encoder that takes absent values; in evaluation.
    x: (N, C, H, W), NaN where absent.

    Raises
    ------
    UsageError
        When the model has another residual, or its encoder takes no absent values.
    """
    measure = model.measure
    if not isinstance(measure, ModalSSIM):
        raise UsageError(
            "residuals of single modalities need a model with residual 'modal-ssim', such as fp-cae-add"
        )
    reconstruction, predicted = _reconstructions(model, x, measure.modalities)
    there = torch.cat([~part.isnan().all(1, keepdim=True) for part in _parts(x, measure.modalities)], 1)
    alone = there.sum(1, keepdim=True) == there  # (N, M, H, W): all that is there, if anything, is itself
    crossed = measure.each(x, predicted).masked_fill(alone, torch.nan)
    sizes = torch.tensor([modality.channels for modality in measure.modalities], device=x.device)
    predicted = predicted.masked_fill(alone.repeat_interleave(sizes, 1), torch.nan)
    return ModalResiduals(measure.each(x, reconstruction), crossed, reconstruction, predicted)


def _reconstructions(model: Autoencoder, x: Tensor, modalities: Sequence[Modality]) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) from all that is there, and each modality of them from the others alone."""
    encoder, decoder = model.encoder, model.decoder
    between = model.alignment is not None or len(model.bottlenecks) > 0 or any(model.at_inspection)
    if (
        isinstance(encoder, SeparatedEncoder)
        and encoder.takes_absent
        and isinstance(decoder, SeparatedDecoder)
        and not between
    ):
        # What a modality is encoded to does not depend on the others: each is seen once, and only fused anew.
        prepared = model.prepare(x)
        seen = encoder.see(prepared.image)
        made = decoder(encoder.fuse(seen))
        others = [
            decoder.modality(encoder.fuse(seen, without=place), place) for place in range(len(modalities))
        ]
        return (
            model.restore(made, prepared).float(),
            model.restore(torch.cat(others, 1), prepared).float(),
        )
    reconstruction = model(x).reconstruction.float()
    predicted = torch.empty_like(reconstruction)
    first = 0
    for modality in modalities:
        taken = slice(first, first + modality.channels)
        rest = x.clone()
        rest[:, taken] = torch.nan
        predicted[:, taken] = model(rest).reconstruction[:, taken].float()
        first = taken.stop
    return reconstruction, predicted
