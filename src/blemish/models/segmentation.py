"""A head that says of every pixel whether it was spoiled (Zavrtanik et al. 2021, DRAEM, section 3.2)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blemish.errors import RecipeError, UsageError
from blemish.models.autoencoder import Autoencoder
from blemish.models.contracts import EncoderInput, Pass, Residual, ResidualRule, Term
from blemish.models.initialisation import keep_variance
from blemish.models.registry import RESIDUALS, TERMS, register
from blemish.models.synthetic_anomalies import anomaly_mask

PRIOR = 0.05
"""Probability that the head begins with, about the share of spoiled pixels: so the clean ones do not drown the rest."""


@register(RESIDUALS, "segmentation")
class Segmentation(ResidualRule):
    """-log(1 - p), p the probability that the head gives a pixel to be spoiled, from the latent of every pixel.

    In nats, 0 where nothing was found, and without the ceiling that p itself has. The loss term ``segmentation``
    trains the head.

    Parameters
    ----------
    shape: (channels, height, width) of the latent of one patch.
    patch: side of the patch.
    kernel: side of the head's convolution, odd.

    Raises
    ------
    RecipeError
        When the latent is not one of every pixel, or the kernel is even.
    """

    title = "blemish score of the segmentation head"

    def __init__(
        self, *, shape: tuple[int, int, int], patch: int, kernel: Annotated[int, Field(ge=1)] = 1
    ) -> None:
        super().__init__()
        if shape[1:] != (patch, patch):
            raise RecipeError(
                f"residual 'segmentation' needs a latent of every pixel, {patch}×{patch}, but is given one of "
                f"{shape[1]}×{shape[2]}; choose an encoder that keeps the size, such as unet"
            )
        if kernel % 2 == 0:
            raise RecipeError(f"residual 'segmentation': kernel {kernel} has no middle; choose an odd one")
        self.head = nn.Conv2d(shape[0], 1, kernel, padding=kernel // 2)
        keep_variance(self.head)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            if self.head.bias is not None:
                self.head.bias.fill_(math.log(PRIOR / (1 - PRIOR)))

    def logit(self, model: Autoencoder, latent: Tensor, prepared: EncoderInput) -> Tensor:
        """log(p / (1 - p)) in float32, in pose and size of the input: (N, 1, H, W)."""
        return model.place_back(self.head(latent), prepared).float()

    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        prepared = model.prepare(x)
        output = model.reconstruct(prepared)
        logit = self.logit(model, output.latent, prepared)
        return Residual(F.softplus(logit), output.reconstruction.float())


def focal(logit: Tensor, label: Tensor, gamma: float = 2.0, balance: float = 0.75) -> Tensor:
    """Focal loss, -α (1 - p_t)^γ log p_t, of each pixel (Lin et al. 2017, equation 5).

    Parameters
    ----------
    logit, label: of any one shape; the label is 0 or 1.
    gamma: γ, at least 0; what is already right counts the less, the larger it is.
    balance: α of the pixels labelled 1, in (0, 1); the others have 1 - α.
    """
    loss = F.binary_cross_entropy_with_logits(logit, label, reduction="none")  # -log p_t
    alpha = label * balance + (1 - label) * (1 - balance)
    return alpha * (-torch.expm1(-loss)) ** gamma * loss


def dice(logit: Tensor, label: Tensor) -> Tensor:
    """1 - Dice of each image, (N, 1, H, W) twice to (N,) in [0, 1) (Milletari et al. 2016, V-Net, section 3).

    One pixel is added above and below, so that a clean image has its least value, 0, where nothing is found.
    """
    p, label = logit.sigmoid().flatten(1), label.flatten(1)
    return 1 - (2 * (p * label).sum(1) + 1) / (p.sum(1) + label.sum(1) + 1)


@register(TERMS, "segmentation")
class SegmentationLoss(Term):
    """:func:`focal` and :func:`dice` of the residual's head against :func:`~blemish.models.synthetic_anomalies.anomaly_mask`.

    Two terms, ``segmentation-focal`` and ``segmentation-dice``. The label needs a corruption that spoils, such as
    ``blemishes``, which spoils held-out images too, always alike; what is not corrupted counts as clean.

    Parameters
    ----------
    gamma, balance: of :func:`focal`.
    """

    def __init__(
        self,
        *,
        gamma: Annotated[float, Field(ge=0)] = 2.0,
        balance: Annotated[float, Field(gt=0, lt=1)] = 0.75,
    ) -> None:
        super().__init__()
        self.gamma, self.balance = gamma, balance

    def forward(self, done: Pass) -> dict[str, Tensor]:
        """The means over the batch.

        Raises
        ------
        UsageError
            When the model's residual is another one, which has no head to train.
        """
        rule = done.model.measure
        if not isinstance(rule, Segmentation):
            raise UsageError(
                "loss 'segmentation' trains the head of residual 'segmentation', but the residual is another; "
                "set residual={name: segmentation}, or choose another loss"
            )
        with torch.autocast(done.target.device.type, enabled=False):
            label = anomaly_mask(done.seen.float(), done.target.float())
        logit = rule.logit(done.model, done.output.latent, done.prepared)
        return {
            "focal": focal(logit, label, self.gamma, self.balance).mean(),
            "dice": dice(logit, label).mean(),
        }
