"""The variational autoencoder, as Bergmann et al. 2018, section 3.1.2, inspect with it.

Kingma & Welling 2014 (Auto-Encoding Variational Bayes) for the posterior and its divergence, An & Cho 2015
(Variational Autoencoder based Anomaly Detection using Reconstruction Probability) for the residual.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from blemish.errors import UsageError
from blemish.models.autoencoder import Autoencoder
from blemish.models.contracts import (
    INSPECTION_SEED,
    EncoderInput,
    Pass,
    Posterior,
    Residual,
    ResidualRule,
    StochasticBottleneck,
    Term,
)
from blemish.models.initialisation import keep_variance
from blemish.models.registry import BOTTLENECKS, RESIDUALS, TERMS, register

BOUND = 12.0
START = -6.0


@register(BOTTLENECKS, "variational")
class VariationalBottleneck(StochasticBottleneck):
    """(N, C, h, w) to a Gaussian with diagonal covariance for each of (N, latent, h, w) latent variables.

    A 1×1 convolution gives ``mu``, another ``log_var``. The encoder should give 2 · latent channels at
    least: the last layer of ``bergmann`` is linear, so from fewer the means would settle the variances.

    ``log_var`` is kept in (-12, 12) by a tangent, so that its exponential is finite in any precision and its
    gradient never stops. It starts at -6, a standard deviation of 0.05: with more noise in the latent the
    decoder's first lesson is to disregard it, and the posterior of such a network often stays collapsed.

    Parameters
    ----------
    latent: d, the number of latent variables at each place of the grid; the paper's is 100.
    """

    def __init__(self, *, shape: tuple[int, int, int], latent: Annotated[int, Field(ge=1)] = 100) -> None:
        super().__init__()
        self.latent_shape = self.code_shape = (latent, *shape[1:])
        self.mu = nn.Conv2d(shape[0], latent, 1)
        self.log_var = nn.Conv2d(shape[0], latent, 1)
        keep_variance(self.mu)
        keep_variance(self.log_var)
        with torch.no_grad():
            self.log_var.weight.mul_(0.1)
        if self.log_var.bias is not None:
            nn.init.constant_(self.log_var.bias, BOUND * math.atanh(START / BOUND))

    def posterior(self, h: Tensor) -> Posterior:
        with torch.autocast(device_type=h.device.type, enabled=False):
            h = h.float()
            return Posterior(self.mu(h), BOUND * torch.tanh(self.log_var(h) / BOUND))


def kl_divergence(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mu, exp(log_var)) ‖ N(0, 1)) of each value, in nats and at least 0; any shape to the same.

    Kingma & Welling 2014, appendix B, with the sign that makes it a divergence.

    Examples
    --------
    >>> kl_divergence(torch.tensor([0.0, 2.0]), torch.zeros(2))
    tensor([0., 2.])
    """
    # expm1(v) - v is exact near v = 0, where exp(v) - 1 - v loses all its digits.
    return 0.5 * (mu.square() + torch.expm1(log_var) - log_var)


@register(TERMS, "kl")
class KullbackLeibler(Term):
    """KL(Q(z | x) ‖ N(0, I)), summed over the latent and divided by the image's C · H · W values.

    So the loss is per pixel value, as ``mse`` is, and a weight means the same at any patch size: with noise of
    standard deviation σ on the pixels and the factor β of the beta-VAE (Higgins et al. 2017), ``mse`` and
    ``weight`` = 2 β σ² make the negative evidence lower bound, times 2 σ² / (C · H · W) and but for a constant.
    """

    def forward(self, done: Pass) -> Tensor:
        """The mean over the batch, in nats per pixel value.

        Raises
        ------
        UsageError
            When no bottleneck gives a posterior.
        """
        posterior = _posterior(done.output.posterior, "loss 'kl'")
        with torch.autocast(device_type=posterior.mu.device.type, enabled=False):
            kl = kl_divergence(posterior.mu.float(), posterior.log_var.float())
        return kl.sum((1, 2, 3)).mean() / done.target[0].numel()  # (N, d, h, w) -> ()


@register(RESIDUALS, "reconstruction-probability")
class ReconstructionProbability(ResidualRule):
    """Negative log of the per-pixel reconstruction probability from ``samples`` draws of the latent.

    With z₁ … z_N drawn from Q(z | x) and a decoder that means N(x̂, σ²) for each pixel value,

        P(x | z₁, …, z_N) = 1/N · Σₙ exp(-‖x - x̂(zₙ)‖² / 2σ²) / (2πσ²)^(C/2)

    where a pixel is all of its C channels (An & Cho 2015, algorithm 4; Bergmann et al. 2018, section 3.1.2).
    The map is -log P above its least value, that of N perfect reconstructions: what is left out is the
    constant (2πσ²)^(C/2), so the map is at least 0 whatever σ. One sample without spread gives the squared
    error times C / 2σ².

    The draws are the same for every image, on every device. The samples are decoded one after the other, so
    memory does not grow with their number; the time does, by one decoder each. The reconstruction that is
    shown is that of the posterior's mean.

    Parameters
    ----------
    samples: N.
    sigma: σ of the decoder, in units of the data range.
    """

    title = "negative log reconstruction probability"

    def __init__(
        self, *, samples: Annotated[int, Field(ge=1)] = 8, sigma: Annotated[float, Field(gt=0)] = 0.1
    ) -> None:
        super().__init__()
        self.samples = samples
        self.sigma = sigma

    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        """(N, C, H, W) to a map in nats.

        Raises
        ------
        UsageError
            When no bottleneck gives a posterior.
        """
        prepared = model.prepare(x)
        output = model.reconstruct(prepared)
        posterior = _posterior(output.posterior, "residual 'reconstruction-probability'")
        log_p = torch.full_like(x[:, :1], -math.inf, dtype=torch.float32)  # (N, 1, H, W)
        for y in _samples(model, prepared, posterior, self.samples):
            squares = (x - y).float().square().sum(1, keepdim=True)  # (N, C, H, W) -> (N, 1, H, W)
            log_p = torch.logaddexp(log_p, -squares / (2 * self.sigma**2))
        return Residual((math.log(self.samples) - log_p).clamp(min=0), output.reconstruction.float())


def _samples(
    model: Autoencoder, prepared: EncoderInput, posterior: Posterior, count: int
) -> Iterator[Tensor]:
    """Reconstructions (N, C, H, W) from draws of the latent, the same draws for every image."""
    mu, sigma = posterior.mu, (posterior.log_var / 2).exp()
    generator = torch.Generator().manual_seed(INSPECTION_SEED)
    for _ in range(count):
        noise = torch.randn(mu.shape[1:], generator=generator).to(mu.device)
        yield model.restore(model.decode(mu + sigma * noise), prepared)


def _posterior(posterior: Posterior | None, part: str) -> Posterior:
    if posterior is None:
        raise UsageError(
            f"{part} needs a posterior, but the last bottleneck, if any, gives none; "
            f"end bottleneck with {{name: variational}}, or choose another part"
        )
    return posterior
