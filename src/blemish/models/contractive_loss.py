"""Contractive loss term of Kumar, Malik and Puglisi 2025, section 3.3.2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from blemish.layers import jacobian_norm_estimate, jacobian_norm_exact
from blemish.models.contracts import Pass, Term
from blemish.models.registry import TERMS, register

EXACT_UP_TO = 8
"""Number of latent variables up to which the exact norm is computed: each costs as much as a projection."""


@register(TERMS, "contractive")
class Contractive(Term):
    """Mean of ‖J‖_F² / D, with J the Jacobian of the latent by the clean image and D its number of values.

    Divided by D, the norm relates to the mean squared error as the undivided norm to the summed squared error of
    Rifai et al. 2011, equation 6: one ``weight`` is valid for all image sizes. The paper feeds clean images to its
    contractive autoencoder too. Batch normalisation uses its running statistics here, so that J belongs to a single
    image and to the network used at inspection.

    The penalty can also be lowered by scaling the code down in the encoder and up again in the decoder, without any
    other effect; neither the paper nor this term prevents it. Rifai et al. share one weight matrix between encoder
    and decoder, which is impossible with these convolutional networks.

    With the default settings, a step with 32 images takes 1.2 times as long with encoder ``kumar``, 1.5 times with
    ``vgg16`` and 1.9 times with ``resnet50`` (one core, bfloat16 except for the penalty, patches of 128, 64 and
    64 pixels). The images are sampled at every step, so the estimate is unbiased.

    Parameters
    ----------
    method: ``exact`` (:func:`~blemish.layers.jacobian_norm_exact`), a backward pass for each latent variable;
        ``projections`` (:func:`~blemish.layers.jacobian_norm_estimate`), an unbiased estimate; ``auto`` is
        exact if the latent of an image has at most 8 variables, and uses projections otherwise.
    projections: random projections per image; at the same cost, more images reduce the variance further than
        more projections.
    images: number of images sampled from the batch; all images of a smaller batch.
    """

    def __init__(
        self,
        *,
        method: Literal["auto", "projections", "exact"] = "auto",
        projections: Annotated[int, Field(ge=1, le=4096)] = 1,
        images: Annotated[int, Field(ge=1, le=65_536)] = 2,
    ) -> None:
        super().__init__()
        self.method, self.projections, self.images = method, projections, images

    def forward(self, done: Pass) -> Tensor:
        model, x = done.model, done.target
        if len(x) > self.images:
            x = x[torch.randperm(len(x), device=x.device)[: self.images]]
        exact = self.method == "exact" or (
            self.method == "auto" and done.output.latent[0].numel() <= EXACT_UP_TO
        )
        with _frozen_statistics(model), torch.autocast(x.device.type, enabled=False):
            if exact:
                norms = jacobian_norm_exact(model.encode, x.float())
            else:
                norms = jacobian_norm_estimate(model.encode, x.float(), self.projections)
        return norms.mean() / x[0].numel()


@contextmanager
def _frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keep batch normalisation from using batch statistics and from updating its running statistics."""
    training = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    for module in training:
        module.eval()
    try:
        yield
    finally:
        for module in training:
            module.train()
