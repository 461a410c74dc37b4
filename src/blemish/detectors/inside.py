"""Places inside the image, of tensors; :mod:`blemish.preprocessing.absent` has those of arrays."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from blemish.preprocessing.absent import filled, inside_places, resized_mask


def without_absent(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Images (N, C, H, W) with the nearest pixels inside in place of what is NaN, and where they reach (N, H, W).

    The second is None where all of every image is inside.
    """
    if not x.sum().isnan():  # quicker than to compare each value
        return x, None
    images = list(x.cpu().numpy())
    masks = [inside_places(image) for image in images]
    known = np.stack([filled(image, mask) for image, mask in zip(images, masks, strict=True)])
    inside = [
        np.ones(image.shape[1:], np.bool_) if mask is None else mask
        for image, mask in zip(images, masks, strict=True)
    ]
    return torch.from_numpy(known).to(x.device), torch.from_numpy(np.stack(inside)).to(x.device)


def absent_outside(x: Tensor, inside: Tensor) -> Tensor:
    """Images (N, C, h, w) with NaN outside ``inside`` (N, H, W)."""
    size = (x.shape[2], x.shape[3])
    masks = np.stack([resized_mask(one, size) for one in inside.cpu().numpy()])
    return x.masked_fill(~torch.from_numpy(masks).to(x.device)[:, None], math.nan)


def inside_at(inside: Tensor, stride: int, offset: int, size: tuple[int, int]) -> Tensor:
    """``inside`` (N, H, W) at places ``stride`` pixels apart, the first at ``offset``: (N, rows, columns) of ``size``."""
    rows, columns = (
        torch.arange(to, device=inside.device).mul(stride).add(offset).clamp(max=of - 1)
        for of, to in zip(inside.shape[1:], size, strict=True)
    )
    return inside[:, rows][:, :, columns]


def mean_inside(x: Tensor, axes: tuple[int, ...], inside: Tensor | None) -> Tensor:
    """Mean of ``x`` over ``axes``, which are kept, where ``inside``; of all of it where that is None."""
    if inside is None:
        return x.mean(axes, keepdim=True)
    return (x * inside).sum(axes, keepdim=True) / inside.sum(axes, keepdim=True).clamp(min=1)
