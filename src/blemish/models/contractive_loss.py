"""The contractive loss term of Kumar, Malik and Puglisi 2025, section 3.3.2."""

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
"""Latent variables for which the exact norm is affordable: each costs as much as a projection."""


@register(TERMS, "contractive")
class Contractive(Term):
    """The mean of ‖J‖_F² / D, with J the Jacobian of the latent by the clean image and D its number of values.

    Divided by D it stands to the mean squared error as the undivided norm to the summed squared error of
    Rifai et al. 2011, equation 6: one ``weight`` serves all sizes of image. The clean images are those
    that the paper feeds to its contractive autoencoder. Batch normalisation applies its running figures here,
    so that J is that of one image, and of the network that will inspect.

    A code can also be shrunk and swelled again by the decoder, which lowers the penalty and changes nothing
    else; the paper, like this term, leaves that open. Rifai et al. share one weight matrix between both
    halves, which convolutional halves cannot.

    As set here it makes a step with 32 images last 1.2 times as long with encoder ``kumar``, 1.5 times with
    ``vgg16`` and 1.9 times with ``resnet50`` (one core, bfloat16 but for the penalty, patches of 128, 64 and
    64 pixels). Its images are drawn anew at every step, so that it stays unbiased.

    Parameters
    ----------
    method: ``exact`` (:func:`~blemish.layers.jacobian_norm_exact`), a backward pass for each latent variable;
        ``projections`` (:func:`~blemish.layers.jacobian_norm_estimate`), without bias; ``auto`` is exact
        where an image's latent has at most 8 variables, and takes projections beyond.
    projections: of each image, where it takes them; more images tell more than more projections, at the
        same cost.
    images: how many of the batch are drawn; all of a smaller batch.
    """

    def __init__(
        self,
        *,
        method: Literal["auto", "projections", "exact"] = "auto",
        projections: Annotated[int, Field(ge=1)] = 1,
        images: Annotated[int, Field(ge=1)] = 2,
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
        with _one_by_one(model), torch.autocast(x.device.type, enabled=False):
            if exact:
                norms = jacobian_norm_exact(model.encode, x.float())
            else:
                norms = jacobian_norm_estimate(model.encode, x.float(), self.projections)
        return norms.mean() / x[0].numel()


@contextmanager
def _one_by_one(model: nn.Module) -> Iterator[None]:
    """Keeps batch normalisation from looking at other images, and from learning from these."""
    training = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    for module in training:
        module.eval()
    try:
        yield
    finally:
        for module in training:
            module.train()
