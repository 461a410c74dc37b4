"""Square cuts from the middle of larger images after an affine transform, in one resampling.

Coordinates are (x to the right, y down) in pixels from the centre, angles in radians, counter-clockwise as one looks at
the image, as in :mod:`blemish.layers.rotation`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL = 2
"""Pixels that cubic convolution reads beyond the outermost sample."""


class Affine(NamedTuple):
    """Affine transforms of N images, each about the centre of its image."""

    matrix: Tensor
    """(N, 2, 2): place in the image of each place of the cut, before the shift."""
    shift: Tensor
    """(N, 2) pixels of the image."""


class AffineRange(NamedTuple):
    """Range from which transforms are drawn uniformly; all 0 is the identity."""

    degrees: float = 180.0
    """Largest rotation to either side."""
    translation: float = 0.0
    """Largest shift along each axis, in sides of the cut."""
    scale: float = 0.0
    """Largest relative change of size: enlargement by 1 - scale to 1 + scale."""
    shear: float = 0.0
    """Largest shear along x, in degrees."""

    def side(self, cut: int) -> int:
        """Side of the image that holds a cut of ``cut`` pixels under every transform, √2 ``cut`` for any rotation.

        >>> AffineRange().side(128), AffineRange(degrees=0).side(128)
        (186, 128)
        """
        if not any(self):
            return cut
        # Extent along an axis of a sheared unit square, the largest over all rotations.
        width = 1 + math.tan(math.radians(self.shear))
        turn = min(math.radians(self.degrees), math.atan2(1, width))
        extent = math.cos(turn) * width + math.sin(turn)
        return math.ceil(cut * (extent / (1 - self.scale) + 2 * self.translation)) + 2 * KERNEL

    def draw(self, count: int, cut: int, generator: torch.Generator | None = None) -> Affine:
        """``count`` transforms for cuts of ``cut`` pixels, from ``generator`` or from torch's global one."""
        device = None if generator is None else generator.device
        drawn = 2 * torch.rand(5, count, generator=generator, device=device) - 1
        angle = math.radians(self.degrees) * drawn[0]
        lean = torch.tan(math.radians(self.shear) * drawn[1])
        one, none = torch.ones_like(angle), torch.zeros_like(angle)
        # Equation (8) of Rádli & Czúni 2022 for the rotation.
        rotation = _stack([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
        sheared = _stack([[one, lean], [none, one]])
        matrix = rotation @ sheared / (1 + self.scale * drawn[2])[:, None, None]
        return Affine(matrix, self.translation * cut * drawn[3:].T)


def affine_cut(x: Tensor, transform: Affine, side: int) -> Tensor:
    """Cut a square from the middle of each transformed image: (N, C, H, W) to (N, C, side, side).

    Computed in float32, also under autocast, by cubic convolution; beyond its edge an image is extended by its outermost
    pixels. The result stays within the values of [0, 1].
    """
    with torch.autocast(x.device.type, enabled=False):
        height, width = x.shape[-2:]
        along = torch.arange(side, device=x.device) - (side - 1) / 2
        places = torch.stack(torch.meshgrid(along, along, indexing="xy"), dim=-1)  # (side, side, 2)
        matrix, shift = (part.to(x.device, torch.float32) for part in transform)
        source = torch.einsum("nij,hwj->nhwi", matrix, places) + shift[:, None, None]
        grid = source * (2 / torch.tensor([width, height], device=x.device))
        cut = F.grid_sample(x.float(), grid, mode="bicubic", padding_mode="border", align_corners=False)
        return cut.clamp(0, 1)


def _stack(rows: list[list[Tensor]]) -> Tensor:
    """Matrices (N, 2, 2) of entries (N,)."""
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
