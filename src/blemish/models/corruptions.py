"""What spoils the input of a denoising autoencoder: noise, salt and pepper, deleted blocks, absent sensors.

A recipe lists them, and they are applied in that order. Values stay in [0, 1], as those of a camera that
saturates do, so that what follows need not know whether its images were spoiled; but for those that take
values away, which is written as NaN. What is absent stays absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from blemish.data.modality import Modality
from blemish.models.autoencoder import Corruption
from blemish.models.registry import CORRUPTIONS, register


def add_gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """``x`` with normal noise of standard deviation ``sigma`` on every value, then cut off at 0 and 1.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1].
    sigma: in units of the range [0, 1]; 0.1 is some 25 grey levels of 255.
    generator: to draw from; torch's global one without it.
    """
    device = _where(x, generator)
    noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
    return (x + sigma * noise).clamp(0, 1)


def add_salt_and_pepper(x: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """``x`` with each pixel, in all its channels, turned white or black, either by the chance ``share`` / 2.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1].
    share: of the pixels that are spoiled, on average, in [0, 1].
    generator: to draw from; torch's global one without it.
    """
    shape = (x.shape[0], 1, *x.shape[2:])
    drawn = torch.rand(shape, generator=generator, device=_where(x, generator)).to(x.device)
    spoiled = (drawn < share / 2).to(x.dtype)
    return torch.where((drawn < share) & ~x.isnan(), spoiled, x)


def delete_blocks(
    x: Tensor, size: int, count: int, fill: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """``x`` with ``count`` squares of each image set to ``fill``, wherever they lie; they may overlap.

    Deleting blocks follows Rádli and Czúni 2021.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1].
    size: of the squares' side in pixels; a square wider than the image takes all of its width.
    fill: in [0, 1].
    generator: to draw from; torch's global one without it.
    """
    along_rows = _stretches(len(x), count, x.shape[-2], size, x, generator)  # (N, count, H)
    along_columns = _stretches(len(x), count, x.shape[-1], size, x, generator)  # (N, count, W)
    deleted = (along_rows[..., :, None] & along_columns[..., None, :]).any(1, keepdim=True)  # (N, 1, H, W)
    return x.masked_fill(deleted & ~x.isnan(), fill)


def drop_modalities(
    x: Tensor, sizes: Sequence[int], probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """``x`` with each modality of each image made absent (NaN) by the chance ``probability``, but never all.

    Where all that an image has would go, one of them stays, each as likely as the others.

    Parameters
    ----------
    x: (N, C, H, W), NaN where absent.
    sizes: channels of each modality, C in all.
    probability: in [0, 1].
    generator: to draw from; torch's global one without it.
    """
    there = torch.stack(
        [(~part.isnan()).flatten(1).any(1) for part in torch.split(x, list(sizes), 1)], 1
    )  # (N, M)
    drawn = torch.rand(there.shape, generator=generator, device=_where(x, generator)).to(x.device)
    last = torch.where(there, drawn, -1).argmax(1, keepdim=True)
    dropped = (drawn < probability).scatter(1, last, False)
    repeats = torch.tensor(sizes, device=x.device)
    return x.masked_fill(dropped.repeat_interleave(repeats, 1)[..., None, None], torch.nan)


def drop_regions(
    x: Tensor, sizes: Sequence[int], size: int, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """``x`` with ``count`` squares of each modality made absent (NaN), other ones in each; they may overlap.

    Parameters
    ----------
    x: (N, C, H, W), NaN where absent.
    sizes: channels of each modality, C in all.
    size: of the squares' side in pixels; a square wider than the image takes all of its width.
    generator: to draw from; torch's global one without it.
    """
    parts = [
        delete_blocks(part, size, count, torch.nan, generator) for part in torch.split(x, list(sizes), 1)
    ]
    return torch.cat(parts, 1)


def _stretches(
    images: int, count: int, side: int, size: int, x: Tensor, generator: torch.Generator | None
) -> Tensor:
    """(images, count, side) booleans, true along ``size`` neighbours that lie anywhere."""
    size = min(size, side)
    device = _where(x, generator)
    first = torch.randint(side - size + 1, (images, count, 1), generator=generator, device=device)
    distance = torch.arange(side, device=x.device) - first.to(x.device)
    return (distance >= 0) & (distance < size)


def _where(x: Tensor, generator: torch.Generator | None) -> torch.device:
    """A generator draws on its own device alone."""
    return x.device if generator is None else generator.device


@register(CORRUPTIONS, "gaussian")
class GaussianNoise(Corruption):
    """:func:`add_gaussian_noise` of one strength."""

    def __init__(self, *, sigma: Annotated[float, Field(gt=0)] = 0.1) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return add_gaussian_noise(x, self.sigma, generator)


@register(CORRUPTIONS, "salt-and-pepper")
class SaltAndPepper(Corruption):
    """:func:`add_salt_and_pepper` on one share of the pixels."""

    def __init__(self, *, share: Annotated[float, Field(gt=0, le=1)] = 0.05) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return add_salt_and_pepper(x, self.share, generator)


@register(CORRUPTIONS, "blocks")
class DeletedBlocks(Corruption):
    """:func:`delete_blocks` of one size, number and fill."""

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=1)] = 16,
        count: Annotated[int, Field(ge=1)] = 4,
        fill: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.size, self.count, self.fill = size, count, fill

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return delete_blocks(x, self.size, self.count, self.fill, generator)


@register(CORRUPTIONS, "modality-dropout")
class ModalityDropout(Corruption):
    """:func:`drop_modalities` by one chance: the network learns to give a modality from the others alone."""

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
    """:func:`drop_regions` of one size and number: the network learns to do without part of a modality."""

    makes_absent = True

    def __init__(
        self,
        *,
        modalities: Sequence[Modality],
        size: Annotated[int, Field(ge=1)] = 12,
        count: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__()
        self.sizes = [modality.channels for modality in modalities]
        self.size, self.count = size, count

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return drop_regions(x, self.sizes, self.size, self.count, generator)
