"""Contracts of an autoencoder's parts: one base class for each kind, and the records that pass between them.

:mod:`blemish.models.registry` constructs parts by name and states which arguments each constructor receives.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from blemish.models.autoencoder import Autoencoder

INSPECTION_SEED = 0
"""Seed of random draws at inspection, so that an image has one score."""


class Corruption(nn.Module):
    """Corrupts the network's input, whose clean version it learns to reconstruct; absent values (NaN) stay absent."""

    makes_absent: bool = False
    """Whether it removes values, so that the encoder must take absent ones."""
    corrupts_held_out: bool = False
    """Whether the loss of held-out images is computed on corrupted ones, because clean ones do not show it."""

    @abstractmethod
    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, C, H, W) to the same shape; draws from ``generator``, or from torch's global one."""


class Augmentation(nn.Module):
    """Transforms a good image into another good one, which replaces it in training."""

    varies_held_out: bool = False
    """Whether held-out images are transformed too, at every look in the same way."""

    def side(self, patch: int) -> int:
        """Side of the images that it cuts patches of side ``patch`` from."""
        return patch

    @abstractmethod
    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, C, H, W) to the same shape, or to patches cut from the middle; draws from ``generator``, or from torch's global one."""


class Aligned(NamedTuple):
    """Images in the normalised pose, and the rotation that brought them there."""

    image: Tensor
    """(N, C, P, P), in the normalised pose."""
    angle: Tensor
    """(N,) counter-clockwise rotation of each image, in radians."""


class Alignment(nn.Module):
    """Rotates images (N, C, P, P) into one pose before the encoder, and back after the decoder."""

    pretraining: int = 0
    """Steps of :meth:`pretraining_loss` before the autoencoder's own."""

    @abstractmethod
    def forward(self, x: Tensor) -> Aligned:
        """(N, C, P, P) into the normalised pose."""

    @abstractmethod
    def restore(self, y: Tensor, aligned: Aligned) -> Tensor:
        """(N, C, P, P) in the normalised pose back to the pose that the input had."""

    @abstractmethod
    def pretraining_loss(self, x: Tensor) -> dict[str, Tensor]:
        """Named loss terms of the pose alone, without the autoencoder."""

    def poseless(self, x: Tensor) -> Tensor:
        """(N,) booleans: images without a dominant orientation, which stay as they are."""
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)


class ImageEncoder(nn.Module):
    """Encoder of images (N, C, H, W): the attributes that the autoencoder and its other parts rely on."""

    stride: int
    """Images are padded to a multiple of it."""
    patch: int
    """Side of the training patch; smaller images are padded up to it."""
    latent_shape: tuple[int, int, int]
    """(channels, height, width) of the features of one patch."""
    takes_absent: bool = False
    """Whether values may be absent (NaN); the features are finite nevertheless."""
    standardises: bool = False
    """Whether it standardises each image by its :func:`moments`; the decoder's output is scaled back by them."""


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of all values of each image: (N, C, H, W) to (N, 1, 1, 1) twice.

    A grey level of 255 is the least deviation that is one, so that a constant image can be divided by its own.
    """
    deviation, mean = torch.std_mean(x.float(), dim=(1, 2, 3), keepdim=True, correction=0)
    return mean, deviation.clamp(min=1 / 255)


class Posterior(NamedTuple):
    """Gaussian Q(z | x) of each latent variable; both tensors have the shape of the latent."""

    mu: Tensor
    log_var: Tensor


class Bottleneck(nn.Module):
    """Between encoder and decoder: :meth:`encode` on the way in, :meth:`decode` on the way out."""

    latent_shape: tuple[int, int, int]
    """(channels, height, width) of the output of :meth:`encode` for one patch."""
    code_shape: tuple[int, int, int]
    """(channels, height, width) of the output of :meth:`decode` for one patch."""
    one_size: bool = False
    """Whether images must be of exactly one patch."""

    @abstractmethod
    def encode(self, h: Tensor) -> Tensor:
        """Features of the preceding part to a latent."""

    def decode(self, z: Tensor) -> Tensor:
        return z


class StochasticBottleneck(Bottleneck):
    """Bottleneck whose latent is sampled in training, and is the mean otherwise."""

    @abstractmethod
    def posterior(self, h: Tensor) -> Posterior:
        """Posterior of the latent, given the features of the preceding part."""

    def encode(self, h: Tensor) -> Tensor:
        """Mean of the posterior."""
        return self.posterior(h).mu


class ImageDecoder(nn.Module):
    """Decoder of a latent to (N, C, H, W)."""

    latent_grid: tuple[int, int]
    """(height, width) of the latent of one patch."""


class EncoderInput(NamedTuple):
    """Images as the encoder receives them, with the record that is needed to undo padding and pose."""

    image: Tensor
    """(N, C, H', W') with sides that fit the network: corrupted, padded and aligned."""
    window: tuple[slice, slice]
    """Rows and columns of the input in the padded image."""
    aligned: Aligned | None
    seen: Tensor
    """(N, C, H, W), the corrupted input, in its own pose and size."""


class Output(NamedTuple):
    """Result of the network's forward pass."""

    reconstruction: Tensor
    """(N, C, H, W), the input's shape; linear output, so values may leave [0, 1]."""
    latent: Tensor
    """(N, d, h, w)."""
    posterior: Posterior | None = None
    """Posterior of the latent, where the bottleneck is stochastic."""
    angle: Tensor | None = None
    """(N,) rotation by an alignment, in radians."""


class Pass(NamedTuple):
    """One training pass of the network, as loss terms receive it."""

    model: Autoencoder
    target: Tensor
    """(N, C, H, W), the clean images."""
    output: Output
    prepared: EncoderInput

    @property
    def seen(self) -> Tensor:
        """(N, C, H, W), the corrupted images, in pose and size of ``target``."""
        return self.prepared.seen


class Term(nn.Module):
    """Term of the training loss that needs more than the image and its reconstruction."""

    takes_absent: bool = False
    """Whether the target may have absent values (NaN)."""
    for_modalities: bool = False
    """Whether it is made for scenes of several modalities, whose folders a recipe then reads as scenes."""
    draws_held_out: bool = False
    """Whether it draws from torch's global generator in evaluation too."""

    def watching(self, model: Autoencoder) -> AbstractContextManager[None]:
        """Context of the pass that :meth:`forward` is given, for terms that need what ``model`` computes within."""
        return nullcontext()

    @abstractmethod
    def forward(self, done: Pass) -> Tensor | dict[str, Tensor]:
        """A scalar, or several by name, which the loss reports as ``term-name``."""


class Loss(NamedTuple):
    """Training loss: ``total`` is the sum of the weighted ``terms``."""

    total: Tensor
    terms: dict[str, Tensor]


class Residual(NamedTuple):
    """Residual map of images, with the reconstruction that it compares them with."""

    map: Tensor
    """(N, 1, H, W), float32, at least 0; larger is less similar."""
    reconstruction: Tensor
    """(N, C, H, W), float32."""


class ResidualRule(nn.Module):
    """Residual map that needs more than the image and its reconstruction."""

    title: str
    """Quantity that the map holds, as a report names it."""
    takes_absent: bool = False
    """Whether the image may have absent values (NaN)."""
    for_modalities: bool = False
    """Whether it is made for scenes of several modalities, whose folders a recipe then reads as scenes."""
    least_evidence: float = 0.0
    """Value of the map below which nothing was found, where the map has an absolute meaning; 0 where it has none."""

    @abstractmethod
    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        """Residual map and reconstruction of images (N, C, H, W)."""
