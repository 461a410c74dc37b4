"""Augmentations: variations of good images that should not raise the anomaly map."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from blemish.models.contracts import Augmentation
from blemish.models.registry import AUGMENTATIONS, register


def expose(x: Tensor, gain: float, gamma: float, generator: torch.Generator | None = None) -> Tensor:
    """Simulate other lighting and exposure: a · x^b clipped at 1, with log a and log b normal of mean 0.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1]; all channels of an image change in the same way.
    gain, gamma: standard deviation of log a and of log b, at least 0.
    generator: source of the random numbers; torch's global generator by default.

    >>> float(expose(torch.full((1, 1, 8, 8), 0.25), gain=0.0, gamma=0.0).mean())
    0.25
    """
    device = x.device if generator is None else generator.device
    drawn = torch.randn(2, len(x), 1, 1, 1, generator=generator, device=device).to(x.device)
    a, b = (gain * drawn[0]).exp(), (gamma * drawn[1]).exp()
    return (a * x.clamp(0, 1) ** b).clamp(max=1)


def flip(x: Tensor, axis: int, generator: torch.Generator | None = None) -> Tensor:
    """Mirror each image of (N, C, H, W) along ``axis`` with probability one half."""
    device = x.device if generator is None else generator.device
    mirrored = (torch.rand(len(x), 1, 1, 1, generator=generator, device=device) < 0.5).to(x.device)
    return torch.where(mirrored, x.flip(axis), x)


@register(AUGMENTATIONS, "exposure")
class Exposure(Augmentation):
    """Augmentation :func:`expose` of fixed strength: a slightly darker image is not an anomaly."""

    def __init__(
        self, *, gain: Annotated[float, Field(ge=0)] = 0.1, gamma: Annotated[float, Field(ge=0)] = 0.08
    ) -> None:
        super().__init__()
        self.gain, self.gamma = gain, gamma

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return expose(x, self.gain, self.gamma, generator)


@register(AUGMENTATIONS, "flips")
class Flips(Augmentation):
    """Augmentation :func:`flip` along one or both axes, for textures and objects without handedness."""

    def __init__(self, *, horizontal: bool = True, vertical: bool = True) -> None:
        super().__init__()
        self.axes = [axis for axis, wanted in ((-1, horizontal), (-2, vertical)) if wanted]

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        for axis in self.axes:
            x = flip(x, axis, generator)
        return x
