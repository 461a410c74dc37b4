"""Loss and residual of scenes that compare grey levels as well as structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from blemish.data.modality import Modality
from blemish.errors import RecipeError
from blemish.layers.shared_batch import mean_count
from blemish.models.autoencoder import Autoencoder
from blemish.models.contracts import Pass, Residual, Term
from blemish.models.modal_similarity import ModalSSIM, WindowSize
from blemish.models.other_pixels import OtherPixelsEncoder, blurred
from blemish.models.registry import RESIDUALS, TERMS, register

Share = Annotated[float, Field(ge=0, le=1)]
UNIT = 0.05
"""Difference of grey level that counts as usual where the model has no measure of its own."""


@register(TERMS, "modal-mse")
class ModalMSE(Term):
    """Loss: mean squared difference of each modality's present values, averaged over the modalities.

    Beside ``modal-log-ssim`` it holds grey levels, which SSIM hardly compares, and is the term to add where a decoder
    stays at a constant (:mod:`blemish.training.modality_figures`). Absent values are left out.

    Parameters
    ----------
    modalities: modalities of the images.
    """

    takes_absent = True
    for_modalities = True

    def __init__(self, *, modalities: Sequence[Modality]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)

    def forward(self, done: Pass) -> dict[str, Tensor]:
        sizes = [modality.channels for modality in self.modalities]
        found = {}
        for modality, target, made in zip(
            self.modalities,
            torch.split(done.target, sizes, 1),
            torch.split(done.output.reconstruction, sizes, 1),
            strict=True,
        ):
            absent = target.isnan().any(1, keepdim=True)
            difference = torch.where(absent, 0.0, torch.nan_to_num(target) - made.float()).square()
            count = (~absent).sum() * modality.channels
            found[modality.name] = difference.sum() / mean_count(count) / len(sizes)
        return found


@register(RESIDUALS, "modal-difference")
class ModalDifference(ModalSSIM):
    """Residual of each modality in grey level and in structure, in [0, 1], averaged over the present ones.

    It is ``structure`` (1 − SSIM) + (1 − ``structure``) (1 − exp(−d / u)), where d is the absolute difference, averaged
    over the channels and smoothed by a Gaussian, and u its usual size: the root mean square of what the model left
    unpredicted of that modality in training. So sensors that are predicted well and sensors that are predicted badly have the same weight.

    A network that learned on scenes with hidden layers predicts some of them. ``linear`` mixes in the difference from the least-squares prediction of
    the values alone, which cannot.

    Parameters
    ----------
    modalities: modalities of the images.
    data_range: span of the values.
    window: side of the Gaussian window of SSIM in pixels, odd.
    structure: share of SSIM.
    sigma: standard deviation of the smoothing, in pixels.
    linear: share of the difference from least squares in the absolute difference; 0 unless the encoder is ``other-pixels``.
    """

    title = "difference in grey level and structure, mean over the modalities"

    def __init__(
        self,
        *,
        modalities: Sequence[Modality],
        data_range: float,
        window: WindowSize = 11,
        structure: Share = 0.25,
        sigma: Annotated[float, Field(gt=0, le=20)] = 2.0,
        linear: Share = 0.0,
    ) -> None:
        super().__init__(modalities=modalities, data_range=data_range, window=window)
        self.structure, self.sigma, self.linear = structure, sigma, linear
        self.register_buffer("unit", torch.full((len(self.modalities),), UNIT), persistent=False)

    def prepare(self, model: Autoencoder) -> None:
        usual = getattr(model.encoder, "residual", None)
        if isinstance(usual, Tensor):
            self.unit = usual.clamp_min(1e-3)

    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        self.prepare(model)
        return super().forward(model, x)

    def baseline(self, model: Autoencoder, x: Tensor) -> Tensor | None:
        if not self.linear:
            return None
        if not isinstance(model.encoder, OtherPixelsEncoder):
            raise RecipeError(
                "residual 'modal-difference' takes 'linear' from the encoder 'other-pixels', and there is another; leave it out"
            )
        return model.encoder.least_squares(x)

    def each(self, x: Tensor, y: Tensor, baseline: Tensor | None = None) -> Tensor:
        sizes = [modality.channels for modality in self.modalities]
        difference = (torch.nan_to_num(x) - y).abs()
        if baseline is not None:
            difference = torch.lerp(difference, (torch.nan_to_num(x) - baseline).abs(), self.linear)
        maps = []
        for index, (target, distance) in enumerate(
            zip(torch.split(x, sizes, 1), torch.split(difference, sizes, 1), strict=True)
        ):
            absent = target.isnan().any(1, keepdim=True)
            there = (~absent).to(distance.dtype)
            distance = distance.mean(1, keepdim=True) * there
            smooth = blurred(distance, self.sigma) / blurred(there, self.sigma).clamp_min(1e-3)
            maps.append(1 - torch.exp(-smooth / self.unit[index]))
        grey = torch.cat(maps, 1)
        return self.structure * super().each(x, y) + (1 - self.structure) * grey
