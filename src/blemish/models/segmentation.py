"""Segmentation head that classifies every pixel as anomalous or normal (Zavrtanik et al. 2021, DRAEM, section 3.2)."""

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
"""Initial probability of the head, about the share of anomalous pixels, so that normal pixels do not dominate the loss."""


@register(RESIDUALS, "segmentation")
class Segmentation(ResidualRule):
    """Anomaly map -log(1 - p), with p the probability of an anomaly that the head computes from the latent of a pixel.

    The map is in nats, 0 where nothing was found, and unbounded, unlike p itself. The loss term ``segmentation``
    trains the head.

    Parameters
    ----------
    shape: (channels, height, width) of the latent of one patch.
    patch: side of the patch in pixels.
    kernel: side of the convolution of the head, odd.

    Raises
    ------
    RecipeError
        If the latent has not one vector per pixel, or the kernel is even.
    """

    title = "anomaly score of the segmentation head"
    least_evidence = math.log(2)  # p = 1/2

    def __init__(
        self, *, shape: tuple[int, int, int], patch: int, kernel: Annotated[int, Field(ge=1, le=513)] = 1
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
        """Compute log(p / (1 - p)) in float32, in the pose and size of the input: (N, 1, H, W)."""
        return model.place_back(self.head(latent), prepared).float()

    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        prepared = model.prepare(x)
        output = model.reconstruct(prepared)
        logit = self.logit(model, output.latent, prepared)
        return Residual(F.softplus(logit), output.reconstruction.float())


def focal(logit: Tensor, label: Tensor, gamma: float = 2.0, balance: float = 0.75) -> Tensor:
    """Compute the focal loss of each pixel, -α (1 - p_t)^γ log p_t (Lin et al. 2017, equation 5).

    Parameters
    ----------
    logit, label: tensors of equal shape; the label is 0 or 1.
    gamma: γ, at least 0; the larger it is, the less well-classified pixels count.
    balance: α of the pixels with label 1, in (0, 1); the others have 1 - α.
    """
    loss = F.binary_cross_entropy_with_logits(logit, label, reduction="none")  # -log p_t
    alpha = label * balance + (1 - label) * (1 - balance)
    return alpha * (-torch.expm1(-loss)) ** gamma * loss


def dice(logit: Tensor, label: Tensor) -> Tensor:
    """Compute 1 - Dice of each image, (N, 1, H, W) twice to (N,) in [0, 1) (Milletari et al. 2016, V-Net, section 3).

    One pixel is added to the numerator and the denominator, so that the loss of a clean image is 0 if nothing is found.
    """
    p, label = logit.sigmoid().flatten(1), label.flatten(1)
    return 1 - (2 * (p * label).sum(1) + 1) / (p.sum(1) + label.sum(1) + 1)


@register(TERMS, "segmentation")
class SegmentationLoss(Term):
    """Loss of the segmentation head: :func:`focal` and :func:`dice` against the anomaly mask of the corrupted input.

    The two terms are ``segmentation-focal`` and ``segmentation-dice``. The label is
    :func:`~blemish.models.synthetic_anomalies.anomaly_mask` and needs a corruption such as
    :class:`~blemish.models.synthetic_anomalies.SyntheticAnomalies`, which also corrupts held-out images, always in
    the same way; an image without corruption counts as clean.

    Parameters
    ----------
    gamma, balance: parameters of :func:`focal`.
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
        """Compute the means over the batch.

        Raises
        ------
        UsageError
            If the residual of the model has no segmentation head.
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
