"""Structure of patches of images of many channels, a few channels at a time, so that memory does not grow with them.

The features are those of :func:`blemish.detectors.feature_extractors.structure`. Each is a patch of all channels,
10,240 values of 40 channels in patches of 16 × 16, and one image has thousands of them; but a projection is a sum over
channels, and so is the contrast that divides it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.detectors.inside import inside_at, mean_inside

CHANNELS = 8
"""Channels that are taken together; images of no more of them are taken as a whole."""


def projected_structure(
    x: Tensor,
    patch: int,
    stride: int,
    floor: float,
    mean: Tensor,
    basis: Tensor,
    inside: Tensor | None = None,
) -> Tensor:
    """Structure of each patch of ``x`` (N, C, H, W) without ``mean`` (f,), on ``basis`` (f, k): (N, h, w, k)."""
    squares = products = torch.zeros(1, device=x.device)
    for rows, patches in _centred(x, patch, stride):  # (N, g · patch², h · w)
        squares = squares + patches.square().sum(1)
        products = products + patches.transpose(1, 2) @ basis[rows]  # (N, h · w, k)
    size = (x.shape[2] // stride + 1, x.shape[3] // stride + 1)
    contrast = _contrast(squares, len(basis), floor, _places(inside, stride, size))
    return (products / contrast[..., None] - mean @ basis).view(len(x), *size, -1)


def structure_at(
    x: Tensor, patch: int, stride: int, floor: float, places: Tensor, inside: Tensor | None = None
) -> Tensor:
    """Structure of some patches of one image ``x`` (1, C, H, W), by their numbers (n,): (n, C · patch²)."""
    squares = torch.zeros(1, device=x.device)
    parts = []
    for _, patches in _centred(x, patch, stride):
        squares = squares + patches.square().sum(1)
        parts.append(patches[0][:, places].T)
    features = torch.cat(parts, 1)
    size = (x.shape[2] // stride + 1, x.shape[3] // stride + 1)
    contrast = _contrast(squares, features.shape[1], floor, _places(inside, stride, size))
    return features / contrast[0, places, None]


def _centred(x: Tensor, patch: int, stride: int) -> Iterator[tuple[slice, Tensor]]:
    """Patches without their mean, of some channels at a time, and the features that they are: (N, g · patch², h · w)."""
    for first in range(0, x.shape[1], CHANNELS):
        some = F.pad(x[:, first : first + CHANNELS], (patch // 2,) * 4, mode="reflect")
        patches = F.unfold(some, patch, stride=stride).view(len(x), some.shape[1], patch * patch, -1)
        begin = first * patch * patch
        yield (
            slice(begin, begin + some.shape[1] * patch * patch),
            (patches - patches.mean(2, keepdim=True)).flatten(1, 2),
        )


def _places(inside: Tensor | None, stride: int, size: tuple[int, int]) -> Tensor | None:
    """``inside`` (N, H, W) at the patches: (N, h · w)."""
    return None if inside is None else inside_at(inside, stride, 0, size).flatten(1)


def _contrast(squares: Tensor, features: int, floor: float, inside: Tensor | None) -> Tensor:
    """What divides each patch, by its sum of squares (N, h · w)."""
    deviation = (squares / features).sqrt()
    return deviation + floor * mean_inside(deviation, (1,), inside).clamp(min=1e-6)
