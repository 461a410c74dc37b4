"""Augmentations: variations of good images that should not raise the anomaly map."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from blemish.layers.affine import AffineRange, affine_cut
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


@register(AUGMENTATIONS, "rotation")
class RandomRotation(Augmentation):
    """Augmentation by a rotation about the centre, and on request by translation, scale and shear.

    Patches are cut √2 larger, or as much larger as the other settings need, and the transformed patch is cut from their
    middle, so that no corner is invented. Held-out images are transformed too, each look in the same way: the network
    is to reconstruct images in any pose, and its best weights are those that do.

    The augmentation of Rádli & Czúni 2022, section 7, "such as rotations and cropping"; other transforms than rotation are
    their future work.

    Parameters
    ----------
    patch: side of the patches in pixels.
    degrees: largest rotation to either side; 180 for any.
    translation: largest shift along each axis, in sides of the patch.
    scale: largest relative change of size.
    shear: largest shear along x, in degrees.
    """

    varies_held_out = True

    def __init__(
        self,
        *,
        patch: int,
        degrees: Annotated[float, Field(ge=0, le=180)] = 180.0,
        translation: Annotated[float, Field(ge=0, le=1)] = 0.0,
        scale: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
        shear: Annotated[float, Field(ge=0, le=30)] = 0.0,
    ) -> None:
        super().__init__()
        self.range = AffineRange(degrees, translation, scale, shear)
        self.patch = patch

    def side(self, patch: int) -> int:
        return self.range.side(patch)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, C, H, W) to (N, C, P, P), or to the shorter side where that is less than P."""
        side = min(self.patch, *x.shape[-2:])
        return affine_cut(x, self.range.draw(len(x), side, generator), side).to(x.dtype)
