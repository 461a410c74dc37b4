"""Contractive loss term of Kumar, Malik and Puglisi 2025, section 3.3.2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from blemish.layers import jacobian_norm_estimate, jacobian_norm_exact
from blemish.layers.shared_batch import moments_by_channel, whole_batch
from blemish.models.contracts import Pass, Term
from blemish.models.registry import TERMS, register

if TYPE_CHECKING:
    from blemish.models.autoencoder import Autoencoder

EXACT_UP_TO = 8
"""Number of latent variables up to which the exact norm is computed: each costs as much as a projection."""


class _Statistics(NamedTuple):
    """Mean and variance (biased) by channel, with the graph that leads to the weights."""

    mean: Tensor
    variance: Tensor


@register(TERMS, "contractive")
class Contractive(Term):
    """Mean of ‖J‖_F² / D, with J the Jacobian of the latent by the clean image and D its number of values.

    Divided by D, the norm relates to the mean squared error as the undivided norm to the summed squared error of
    Rifai et al. 2011, equation 6: one ``weight`` is valid for all image sizes. The paper feeds clean images to its
    contractive autoencoder too.

    Batch normalisation: J belongs to a single image, so mean and variance are constants in J. In training they are
    those of the batch that was just reconstructed, and the gradient of the term by the weights leads through them,
    because they follow the weights. As constants of the gradient, too, they let the term grow without bound: weights
    that shrink lower the term as long as the statistics are the old ones, and not at all once these have followed. In
    evaluation they are the running statistics, those of the network at inspection.

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

    draws_held_out = True

    def __init__(
        self,
        *,
        method: Literal["auto", "projections", "exact"] = "auto",
        projections: Annotated[int, Field(ge=1, le=4096)] = 1,
        images: Annotated[int, Field(ge=1, le=65_536)] = 2,
    ) -> None:
        super().__init__()
        self.method, self.projections, self.images = method, projections, images
        self._statistics: dict[_BatchNorm, _Statistics] = {}

    @contextmanager
    def watching(self, model: Autoencoder) -> Iterator[None]:
        """Record the statistics of the batch in every batch normalisation of ``model`` that is in training."""
        self._statistics.clear()
        with ExitStack() as hooks:
            for module in model.modules():
                if isinstance(module, _BatchNorm) and module.training:
                    hooks.enter_context(_hook(module.register_forward_pre_hook, self._record))
            yield

    def forward(self, done: Pass) -> Tensor:
        model, x = done.model, whole_batch(done.target)  # each process has the same sample
        if len(x) > self.images:
            x = x[torch.randperm(len(x), device=x.device)[: self.images]]
        exact = self.method == "exact" or (
            self.method == "auto" and done.output.latent[0].numel() <= EXACT_UP_TO
        )
        with _frozen_statistics(self._statistics), torch.autocast(x.device.type, enabled=False):
            if exact:
                norms = jacobian_norm_exact(model.encode, x.float())
            else:
                norms = jacobian_norm_estimate(model.encode, x.float(), self.projections)
        self._statistics.clear()
        return norms.mean() / x[0].numel()

    def _record(self, module: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = moments_by_channel(inputs[0].float())
        self._statistics[module] = _Statistics(mean, variance)


@contextmanager
def _frozen_statistics(statistics: dict[_BatchNorm, _Statistics]) -> Iterator[None]:
    """Let batch normalisation use ``statistics``, without an update of its running ones."""

    def normalise(module: _BatchNorm, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        mean, variance = (one.view(1, -1, *[1] * (output.ndim - 2)) for one in statistics[module])
        y: Tensor = (inputs[0] - mean) * (variance + module.eps).rsqrt()
        if module.affine:
            scale, shift = (one.view(mean.shape) for one in (module.weight, module.bias))
            y = y * scale + shift
        return y

    try:
        with ExitStack() as hooks:
            for module in statistics:
                module.eval()
                hooks.enter_context(_hook(module.register_forward_hook, normalise))
            yield
    finally:
        for module in statistics:
            module.train()


@contextmanager
def _hook(register_hook: Callable[[Any], Any], function: Callable[..., Any]) -> Iterator[None]:
    handle = register_hook(function)
    try:
        yield
    finally:
        handle.remove()
