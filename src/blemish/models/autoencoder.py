"""The composition that every recipe becomes: encoder, decoder, loss terms and residual."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.similarity import Measure


class Encoder(nn.Module):
    """(N, C, H, W) to a latent; what :class:`Autoencoder` and its decoder need to know of any encoder."""

    stride: int
    """Pictures are padded to a multiple of it."""
    patch: int
    """Side of the training patch; smaller pictures are padded up to it."""
    latent_shape: tuple[int, int, int]
    """(channels, height, width) of the latent of one patch."""


class Decoder(nn.Module):
    """A latent back to (N, C, H, W)."""

    latent_grid: tuple[int, int]
    """(height, width) of the latent of one patch that it expects."""


class Output(NamedTuple):
    """What :meth:`Autoencoder.forward` gives."""

    reconstruction: Tensor
    """(N, C, H, W), the input's shape; linear output, so values may leave [0, 1]."""
    latent: Tensor
    """(N, d, h, w)."""


class Loss(NamedTuple):
    """What :meth:`Autoencoder.loss` gives: ``total`` is the sum of the weighted ``terms``."""

    total: Tensor
    terms: dict[str, Tensor]


class Residual(NamedTuple):
    """What :meth:`Autoencoder.examine` gives."""

    map: Tensor
    """(N, 1, H, W), float32, at least 0; larger is less alike."""
    reconstruction: Tensor
    """(N, C, H, W), float32."""


class Autoencoder(nn.Module):
    """Reconstructs what it has learned to be flawless; what it cannot reconstruct stands out.

    ::

        x ──► encoder ──► latent ──► decoder ──► reconstruction
        │                                             │
        ├──────────────► loss_terms (training) ◄──────┤
        └──────────────► measure (residual map) ◄─────┘

    Pictures of any size are accepted: they are padded by repeating the border up to the network's
    stride (and to one patch at least), and the reconstruction is cropped back.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        loss_terms: dict[str, tuple[float, Measure]],
        measure: Measure,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.loss_terms = nn.ModuleDict({name: term for name, (_, term) in loss_terms.items()})
        self.weights = {name: weight for name, (weight, _) in loss_terms.items()}
        self.measure = measure

    def forward(self, x: Tensor) -> Output:
        height, width = x.shape[-2:]
        stride, patch = self.encoder.stride, self.encoder.patch
        rows, columns = (max(patch, math.ceil(side / stride) * stride) - side for side in (height, width))
        if rows or columns:
            top, left = rows // 2, columns // 2
            x = F.pad(x, (left, columns - left, top, rows - top), mode="replicate")
            latent = self.encoder(x)
            y = self.decoder(latent)[..., top : top + height, left : left + width]
        else:
            latent = self.encoder(x)
            y = self.decoder(latent)
        return Output(y, latent)

    def loss(self, batch: Tensor) -> Loss:
        """Named, weighted terms of the training loss for ``batch`` (N, C, H, W) in [0, 1]."""
        y = self(batch).reconstruction
        terms = {name: self.weights[name] * term(batch, y) for name, term in self.loss_terms.items()}
        return Loss(torch.stack(list(terms.values())).sum(), terms)

    def examine(self, x: Tensor) -> Residual:
        """The residual map together with the reconstruction that it was measured on."""
        y = self(x).reconstruction.float()
        return Residual(self.measure.distance_map(x, y), y)

    def residual(self, x: Tensor) -> Tensor:
        """How unlike ``x`` and its reconstruction are, per pixel: (N, 1, H, W)."""
        return self.examine(x).map
