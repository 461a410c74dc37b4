"""Corruptions of the input of a denoising autoencoder: noise, salt and pepper, deleted blocks, absent modalities.

A recipe lists corruptions, and they are applied in that order. Values stay in [0, 1], as in a camera that
saturates, so later parts need not distinguish corrupted images from clean ones. Dropouts make values absent (NaN).
Absent values stay absent under every corruption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from blemish.data.modality import Modality
from blemish.models.contracts import Corruption
from blemish.models.registry import CORRUPTIONS, register


def add_gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """Add normal noise of standard deviation ``sigma`` to every value, then clip to [0, 1].

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1].
    sigma: in units of the range [0, 1]; 0.1 is about 25 grey levels of 255.
    generator: source of the random numbers; torch's global generator by default.
    """
    device = _draw_device(x, generator)
    noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
    return (x + sigma * noise).clamp(0, 1)


def add_salt_and_pepper(x: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Set each pixel, in all its channels, to white or black, each with probability ``share`` / 2.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1].
    share: average share of corrupted pixels, in [0, 1].
    generator: source of the random numbers; torch's global generator by default.
    """
    shape = (x.shape[0], 1, *x.shape[2:])
    drawn = torch.rand(shape, generator=generator, device=_draw_device(x, generator)).to(x.device)
    extreme = (drawn < share / 2).to(x.dtype)
    return torch.where((drawn < share) & ~x.isnan(), extreme, x)


def delete_blocks(
    x: Tensor, size: int, count: int, fill: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Set ``count`` squares at random positions of each image to ``fill``; they may overlap.

    Source: Rádli and Czúni 2021.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1].
    size: side of the squares in pixels; a square wider than the image covers its whole width.
    fill: value in [0, 1].
    generator: source of the random numbers; torch's global generator by default.
    """
    along_rows = _random_runs(len(x), count, x.shape[-2], size, x, generator)  # (N, count, H)
    along_columns = _random_runs(len(x), count, x.shape[-1], size, x, generator)  # (N, count, W)
    deleted = (along_rows[..., :, None] & along_columns[..., None, :]).any(1, keepdim=True)  # (N, 1, H, W)
    return x.masked_fill(deleted & ~x.isnan(), fill)


def drop_modalities(
    x: Tensor, sizes: Sequence[int], probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """Make each modality of each image absent (NaN) with probability ``probability``, but never all of them.

    If all present modalities of an image would be dropped, one of them stays, each equally likely.

    Parameters
    ----------
    x: (N, C, H, W), NaN where absent.
    sizes: number of channels of each modality, C in total.
    probability: in [0, 1].
    generator: source of the random numbers; torch's global generator by default.
    """
    present = torch.stack(
        [(~part.isnan()).flatten(1).any(1) for part in torch.split(x, list(sizes), 1)], 1
    )  # (N, M)
    drawn = torch.rand(present.shape, generator=generator, device=_draw_device(x, generator)).to(x.device)
    last = torch.where(present, drawn, -1).argmax(1, keepdim=True)
    dropped = (drawn < probability).scatter(1, last, False)
    repeats = torch.tensor(sizes, device=x.device)
    return x.masked_fill(dropped.repeat_interleave(repeats, 1)[..., None, None], torch.nan)


def drop_regions(
    x: Tensor, sizes: Sequence[int], size: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Make ``count`` squares of each modality absent (NaN), at independent positions; they may overlap.

    Parameters
    ----------
    x: (N, C, H, W), NaN where absent.
    sizes: number of channels of each modality, C in total.
    size: side of the squares in pixels; a square wider than the image covers its whole width.
    generator: source of the random numbers; torch's global generator by default.
    """
    parts = [
        delete_blocks(part, size, count, torch.nan, generator) for part in torch.split(x, list(sizes), 1)
    ]
    return torch.cat(parts, 1)


def _random_runs(
    images: int, count: int, side: int, size: int, x: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Draw masks (images, count, side) that are true along ``size`` adjacent pixels at a random position."""
    size = min(size, side)
    device = _draw_device(x, generator)
    first = torch.randint(side - size + 1, (images, count, 1), generator=generator, device=device)
    distance = torch.arange(side, device=x.device) - first.to(x.device)
    return (distance >= 0) & (distance < size)


def _draw_device(x: Tensor, generator: torch.Generator | None) -> torch.device:
    """Device to draw on: a generator draws only on its own device."""
    return x.device if generator is None else generator.device


@register(CORRUPTIONS, "gaussian")
class GaussianNoise(Corruption):
    """Corruption :func:`add_gaussian_noise` of fixed strength."""

    def __init__(self, *, sigma: Annotated[float, Field(gt=0)] = 0.1) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return add_gaussian_noise(x, self.sigma, generator)


@register(CORRUPTIONS, "salt-and-pepper")
class SaltAndPepper(Corruption):
    """Corruption :func:`add_salt_and_pepper` of a fixed share of the pixels."""

    def __init__(self, *, share: Annotated[float, Field(gt=0, le=1)] = 0.05) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return add_salt_and_pepper(x, self.share, generator)


@register(CORRUPTIONS, "blocks")
class DeletedBlocks(Corruption):
    """Corruption :func:`delete_blocks` with fixed size, number and fill."""

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=1, le=65_536)] = 16,
        count: Annotated[int, Field(ge=1, le=1000)] = 4,
        fill: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.size, self.count, self.fill = size, count, fill

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return delete_blocks(x, self.size, self.count, self.fill, generator)


@register(CORRUPTIONS, "modality-dropout")
class ModalityDropout(Corruption):
    """Corruption :func:`drop_modalities`: the network learns to reconstruct a modality from the others alone."""

    makes_absent = True

    def __init__(
        self, *, modalities: Sequence[Modality], probability: Annotated[float, Field(gt=0, le=1)] = 0.2
    ) -> None:
        super().__init__()
        self.sizes = [modality.channels for modality in modalities]
        self.probability = probability

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return drop_modalities(x, self.sizes, self.probability, generator)


@register(CORRUPTIONS, "region-dropout")
class RegionDropout(Corruption):
    """Corruption :func:`drop_regions`: the network learns to reconstruct missing parts of a modality."""

    makes_absent = True

    def __init__(
        self,
        *,
        modalities: Sequence[Modality],
        size: Annotated[int, Field(ge=1)] = 12,
        count: Annotated[int, Field(ge=1, le=1000)] = 1,
    ) -> None:
        super().__init__()
        self.sizes = [modality.channels for modality in modalities]
        self.size, self.count = size, count

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return drop_regions(x, self.sizes, self.size, self.count, generator)
