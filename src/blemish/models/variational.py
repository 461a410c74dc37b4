"""Variational autoencoder for anomaly detection as in Bergmann et al. 2018, section 3.1.2.

Sources: Kingma & Welling 2014 (Auto-Encoding Variational Bayes) for the posterior and its divergence, An & Cho 2015
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
    """Bottleneck (N, C, h, w) to a Gaussian posterior with diagonal covariance over (N, latent, h, w) latent variables.

    One 1×1 convolution gives ``mu``, another ``log_var``. The encoder should have at least 2 · latent channels:
    the last layer of ``bergmann`` is linear, so with fewer channels the means would determine the variances.

    ``log_var`` is bounded to (-12, 12) by a hyperbolic tangent, so that its exponential is finite in any precision
    and its gradient never vanishes completely. It starts at -6, a standard deviation of 0.05: with more noise in the
    latent the decoder first learns to ignore it, and the posterior of such a network often stays collapsed.

    Parameters
    ----------
    latent: number d of latent variables at each location of the grid; 100 in the paper.
    """

    def __init__(
        self, *, shape: tuple[int, int, int], latent: Annotated[int, Field(ge=1, le=65_536)] = 100
    ) -> None:
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
    """Compute KL(N(mu, exp(log_var)) ‖ N(0, 1)) of each value, in nats, at least 0; any shape to the same.

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
    """Loss KL(Q(z | x) ‖ N(0, I)), summed over the latent and divided by the C · H · W values of the image.

    The loss is per pixel value, as ``mse`` is, and a weight has the same meaning at any patch size: with noise of
    standard deviation σ on the pixels and the factor β of the beta-VAE (Higgins et al. 2017), ``mse`` and
    ``weight`` = 2 β σ² give the negative evidence lower bound times 2 σ² / (C · H · W), up to a constant.
    """

    def forward(self, done: Pass) -> Tensor:
        """Compute the mean over the batch, in nats per pixel value.

        Raises
        ------
        UsageError
            If no bottleneck has a posterior.
        """
        posterior = _posterior(done.output.posterior, "loss 'kl'")
        with torch.autocast(device_type=posterior.mu.device.type, enabled=False):
            kl = kl_divergence(posterior.mu.float(), posterior.log_var.float())
        return kl.sum((1, 2, 3)).mean() / done.target[0].numel()  # (N, d, h, w) -> ()


@register(RESIDUALS, "reconstruction-probability")
class ReconstructionProbability(ResidualRule):
    """Negative log of the per-pixel reconstruction probability from ``samples`` draws of the latent.

    With z₁ … z_N drawn from Q(z | x) and a decoder that models N(x̂, σ²) for each pixel value,

        P(x | z₁, …, z_N) = 1/N · Σₙ exp(-‖x - x̂(zₙ)‖² / 2σ²) / (2πσ²)^(C/2)

    where x is one pixel with all of its C channels (An & Cho 2015, algorithm 4; Bergmann et al. 2018, section 3.1.2).
    The map is -log P minus its smallest value, that of N perfect reconstructions: the constant (2πσ²)^(C/2) is left
    out, so the map is at least 0 for any σ. One sample of a posterior without variance gives the squared error
    times C / 2σ².

    The draws are the same for every image, on every device. The samples are decoded one by one, so memory does not
    grow with their number; the time grows by one decoder pass each. The reconstruction shown is that of the mean of
    the posterior.

    Parameters
    ----------
    samples: number N of draws.
    sigma: standard deviation σ of the decoder, in units of the data range.
    """

    title = "negative log reconstruction probability"

    def __init__(
        self, *, samples: Annotated[int, Field(ge=1, le=1024)] = 8, sigma: Annotated[float, Field(gt=0)] = 0.1
    ) -> None:
        super().__init__()
        self.samples = samples
        self.sigma = sigma

    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        """Compute the map in nats from images (N, C, H, W).

        Raises
        ------
        UsageError
            If no bottleneck has a posterior.
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
    """Reconstruct images (N, C, H, W) from draws of the latent, the same draws for every image."""
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
