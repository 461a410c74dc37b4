"""Similarity of each modality: loss and residual of scenes (Xie, Meeus, Pižurica 2019, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from blemish.data.modality import Modality
from blemish.errors import UsageError
from blemish.layers.shared_batch import mean_count
from blemish.models.autoencoder import Autoencoder
from blemish.models.contracts import Pass, Residual, ResidualRule, Term
from blemish.models.registry import RESIDUALS, TERMS, register
from blemish.models.xie import SeparatedDecoder, SeparatedEncoder
from blemish.similarity import ssim, ssim_map
from blemish.similarity.ssim_settings import make_settings

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


WindowSize = Annotated[int, Field(ge=3, le=513)]


def _parts(x: Tensor, modalities: Sequence[Modality]) -> Iterator[Tensor]:
    """Split the channels of each modality, (N, c, H, W)."""
    yield from torch.split(x, [modality.channels for modality in modalities], 1)


def _as_compared(x: Tensor, modality: Modality) -> Tensor:
    """Convert a modality to the channels that SSIM compares: (N, c, H, W), or (N, 1, H, W) if it is compared in grey."""
    if not modality.is_grey:
        return x
    if modality.channels != len(LUMA):
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _absent(x: Tensor) -> Tensor:
    """Mask of pixels at which any channel of one modality (N, c, H, W) is absent: (N, 1, H, W)."""
    return x.isnan().any(1, keepdim=True)


class ModalSimilarity(NamedTuple):
    """Result of :func:`modal_ssim`."""

    ssim: Tensor
    """(N, M), at most 1; 0 if nothing could be compared."""
    present: Tensor
    """(N, M) booleans: whether the modality has a complete window."""


def modal_ssim(
    x: Tensor, y: Tensor, modalities: Sequence[Modality], *, data_range: float, window: int = 11
) -> ModalSimilarity:
    """Compute the mean SSIM of each modality of each image over the windows in which ``x`` is complete.

    Modalities with ``is_grey`` are converted to grey first, by the luma of ITU-R BT.601 if they have three channels
    (Xie et al. 2019, section 3.3); the SSIM of others is averaged over their channels. Windows are Gaussian, of
    standard deviation 1.5 pixels, mirrored at the border.

    Parameters
    ----------
    x: (N, C, H, W), NaN where absent.
    y: (N, C, H, W), finite.
    modalities: M modalities, with C channels in total.
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
    # Grey values in half precision would be rounded twice.
    y = y.to(torch.promote_types(y.dtype, torch.float32))
    similar, present = [], []
    for modality, target, reconstructed in zip(
        modalities, _parts(x, modalities), _parts(y, modalities), strict=True
    ):
        absent = _absent(target)
        if not absent.any():
            pair = _as_compared(target, modality), _as_compared(reconstructed, modality)
            similar.append(ssim(*pair, data_range=data_range, window=window))
            present.append(torch.ones_like(similar[-1], dtype=torch.bool))
            continue
        # Outside the complete windows any value would do; equal values have no gradient.
        target, reconstructed = target.masked_fill(absent, 0), reconstructed.masked_fill(absent, 0)
        pair = _as_compared(target, modality), _as_compared(reconstructed, modality)
        values = ssim_map(*pair, data_range=data_range, window=window).mean(1, keepdim=True)
        # The mirrored border repeats pixels of the window, so only pixels inside the image matter.
        counted = F.max_pool2d(absent.to(values.dtype), window, 1, window // 2) == 0  # (N, 1, H, W)
        number = counted.sum((1, 2, 3))
        similar.append((values * counted).sum((1, 2, 3)) / number.clamp_min(1))
        present.append(number > 0)
    return ModalSimilarity(torch.stack(similar, 1), torch.stack(present, 1))


@register(TERMS, "modal-log-ssim")
class ModalLogSSIM(Term):
    """Loss −log((SSIM + 1) / 2) of each modality, averaged over the present modalities (section 3.3).

    SSIM is that of :func:`modal_ssim`. Each modality is one named term, divided by the number of modalities of its
    image, so that the sum of the terms is the loss. A batch without any present modality has loss 0.

    Parameters
    ----------
    modalities: modalities of the images.
    data_range: span of the values.
    window: side of the Gaussian window in pixels, odd; with 11, a patch of 32 has 22 × 22 windows inside it,
        and mirrored windows at the border.
    """

    takes_absent = True
    for_modalities = True

    def __init__(self, *, modalities: Sequence[Modality], data_range: float, window: WindowSize = 11) -> None:
        super().__init__()
        make_settings(data_range, window=window)  # reject a wrong window here, not at the first image
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
        shares = (loss / count.clamp_min(1)).sum(0) / mean_count((count > 0).sum())  # (M,)
        names = (modality.name for modality in self.modalities)
        return dict(zip(names, shares.unbind(), strict=True))


@register(RESIDUALS, "modal-ssim")
class ModalSSIM(ResidualRule):
    """Residual 1 − SSIM at each pixel, averaged over the modalities that are present there; 0 where none is.

    Each modality is compared as in :func:`modal_ssim`. Absent values are filled with the reconstruction: they add
    no difference, and the residual of their neighbours is kept.

    Parameters
    ----------
    modalities: modalities of the images.
    data_range: span of the values.
    window: side of the Gaussian window in pixels, odd.
    """

    title = "1 − SSIM, mean over the modalities"
    takes_absent = True
    for_modalities = True

    counted: Tensor
    """(M,), 0 for modalities that are left out of score and maps."""

    def __init__(self, *, modalities: Sequence[Modality], data_range: float, window: WindowSize = 11) -> None:
        super().__init__()
        make_settings(data_range, window=window)
        self.modalities, self.data_range, self.window = tuple(modalities), data_range, window
        self.register_buffer("counted", torch.ones(len(self.modalities)))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # Models of earlier versions count all modalities, and have no tensor that says so.
        state_dict.setdefault(f"{prefix}counted", torch.ones(len(self.modalities)))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        y = model(x).reconstruction.float()
        each = self.each(x, y, self.baseline(model, x))
        count = (~each.isnan()).sum(1, keepdim=True)
        return Residual(each.nansum(1, keepdim=True) / count.clamp_min(1), y)

    def prepare(self, model: Autoencoder) -> None:
        """Take what the comparison needs to know of the model; SSIM needs nothing."""

    def baseline(self, model: Autoencoder, x: Tensor) -> Tensor | None:
        """A plainer prediction of ``x``, (N, C, H, W), that the maps compare with too; None where they do not."""
        return None

    def each(self, x: Tensor, y: Tensor, baseline: Tensor | None = None) -> Tensor:
        """Compute the map of each modality: (N, C, H, W) to (N, M, H, W), at least 0, and NaN where it is absent."""
        maps = []
        for modality, target, reconstructed in zip(
            self.modalities, _parts(x, self.modalities), _parts(y, self.modalities), strict=True
        ):
            absent = _absent(target)
            target = torch.where(absent, reconstructed, target)
            pair = _as_compared(target, modality), _as_compared(reconstructed, modality)
            similar = ssim_map(*pair, data_range=self.data_range, window=self.window)
            distance = (1 - similar).mean(1, keepdim=True).clamp_min(0)
            maps.append(distance.masked_fill(absent, torch.nan))
        return torch.cat(maps, 1).masked_fill(self.counted[:, None, None] == 0, torch.nan)


class ModalResiduals(NamedTuple):
    """Result of :func:`modal_residuals` for M modalities."""

    own: Tensor
    """(N, M, H, W): 1 − SSIM of each modality, with all modalities as input; NaN where it is absent."""
    crossed: Tensor
    """(N, M, H, W): the same, with that modality removed from the input; NaN also where it is the only one."""
    reconstruction: Tensor
    """(N, C, H, W), from all present modalities."""
    predicted: Tensor
    """(N, C, H, W): each modality predicted from the others; NaN where there is no other."""
    baseline: Tensor | None
    """(N, C, H, W): what :meth:`ModalSSIM.baseline` gives."""


@torch.no_grad()
def modal_residuals(model: Autoencoder, x: Tensor) -> ModalResiduals:
    """Compute the residual of each modality against its reconstruction and against its prediction from the others.

    The second residual finds overpainting and underdrawing, which one modality shows and the others do not.

    Parameters
    ----------
    model: in evaluation mode, with residual ``modal-ssim`` and an encoder that accepts absent values.
    x: (N, C, H, W), NaN where absent.

    Raises
    ------
    UsageError
        If the model has another residual, or its encoder does not accept absent values.
    """
    measure = model.measure
    if not isinstance(measure, ModalSSIM):
        raise UsageError(
            "residuals of single modalities need a model with residual 'modal-ssim', such as fp-cae-add"
        )
    measure.prepare(model)
    reconstruction, predicted = _reconstructions(model, x, measure.modalities)
    present = torch.cat([~part.isnan().all(1, keepdim=True) for part in _parts(x, measure.modalities)], 1)
    alone = present.sum(1, keepdim=True) == present  # (N, M, H, W): no other modality is present
    baseline = measure.baseline(model, x)
    own = measure.each(x, reconstruction, baseline)
    crossed = own if predicted is reconstruction else measure.each(x, predicted, baseline)
    crossed = crossed.masked_fill(alone, torch.nan)
    sizes = torch.tensor([modality.channels for modality in measure.modalities], device=x.device)
    predicted = predicted.masked_fill(alone.repeat_interleave(sizes, 1), torch.nan)
    return ModalResiduals(own, crossed, reconstruction, predicted, baseline)


def _reconstructions(model: Autoencoder, x: Tensor, modalities: Sequence[Modality]) -> tuple[Tensor, Tensor]:
    """Reconstruct images (N, C, H, W) from all present modalities, and each modality from the others alone."""
    encoder, decoder = model.encoder, model.decoder
    if getattr(encoder, "predicts_from_others", False):
        predicted = model(x).reconstruction.float()
        return predicted, predicted
    between = model.alignment is not None or len(model.bottlenecks) > 0 or any(model.at_inspection)
    if (
        isinstance(encoder, SeparatedEncoder)
        and encoder.takes_absent
        and isinstance(decoder, SeparatedDecoder)
        and not between
    ):
        # The features of a modality do not depend on the others: each is encoded once, and only the fusion is repeated.
        prepared = model.prepare(x)
        features = encoder.encode_separately(prepared.image)
        decoded = decoder(encoder.fuse(features))
        others = [
            decoder.modality(encoder.fuse(features, without=index), index) for index in range(len(modalities))
        ]
        return (
            model.restore(decoded, prepared).float(),
            model.restore(torch.cat(others, 1), prepared).float(),
        )
    reconstruction = model(x).reconstruction.float()
    predicted = torch.empty_like(reconstruction)
    first = 0
    for modality in modalities:
        own = slice(first, first + modality.channels)
        rest = x.clone()
        rest[:, own] = torch.nan
        predicted[:, own] = model(rest).reconstruction[:, own].float()
        first = own.stop
    return reconstruction, predicted
