"""Structure of patches without holding the patches: projected on a basis, and at some places.

The features are those of :func:`blemish.detectors.feature_extractors.structure`. Their projection is a convolution, because
the mean of a patch can be taken out of the basis instead, and its contrast divides the few products:

    (p - p̄)ᵀ b = pᵀ (b - b̄).

So neither time nor memory goes into the patches, of which an image of 40 channels has thousands with 10,240 values each.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from blemish.detectors.inside import inside_at, mean_inside
from blemish.errors import TooSmallError


def projected_structure(
    x: Tensor,
    patch: int,
    stride: int,
    floor: float,
    mean: Tensor,
    basis: Tensor,
    inside: Tensor | None = None,
) -> Tensor:
    """Structure of each patch of ``x`` (N, C, H, W) without ``mean`` (f,), on ``basis`` (f, k): (N, h, w, k).

    Raises
    ------
    TooSmallError
        As :func:`mirrored`.
    """
    padded = mirrored(_around_zero(x), patch)
    kernels = basis.view(x.shape[1], patch * patch, -1)
    kernels = kernels - kernels.mean(1, keepdim=True)
    kernels = kernels.view(x.shape[1], patch, patch, -1).permute(3, 0, 1, 2)  # (k, C, patch, patch)
    products = F.conv2d(padded, kernels.contiguous(), stride=stride)  # (N, k, h, w)
    contrast = _contrast(padded, patch, stride, floor, inside)
    return products.permute(0, 2, 3, 1) / contrast[..., None] - mean @ basis


def structure_at(
    x: Tensor, patch: int, stride: int, floor: float, places: Tensor, inside: Tensor | None = None
) -> Tensor:
    """Structure of some patches of one image ``x`` (1, C, H, W), by their numbers (n,): (n, C · patch²).

    Raises
    ------
    TooSmallError
        As :func:`mirrored`.
    """
    padded = mirrored(_around_zero(x), patch)
    contrast = _contrast(padded, patch, stride, floor, inside)[0]  # (h, w)
    rows, columns = places // contrast.shape[1], places % contrast.shape[1]
    windows = padded[0].unfold(1, patch, stride).unfold(2, patch, stride)  # a view, (C, h, w, patch, patch)
    patches = windows[:, rows, columns].transpose(0, 1).flatten(2)  # (n, C, patch²)
    patches = patches - patches.mean(2, keepdim=True)
    return patches.flatten(1) / contrast[rows, columns, None]


def mirrored(x: Tensor, patch: int) -> Tensor:
    """Images (N, C, H, W) with half a patch more at each side.

    Raises
    ------
    TooSmallError
        When a side is too short to be mirrored by half a patch.
    """
    height, width = x.shape[2:]
    if min(height, width) <= patch // 2:
        raise too_small(height, width, patch)
    return F.pad(x, (patch // 2,) * 4, mode="reflect")


def too_small(height: int, width: int, patch: int) -> TooSmallError:
    """The error of images that are too small for patches of side ``patch``."""
    return TooSmallError(
        (height, width), patch // 2 + 1, f"for a memory bank of patches of {patch} × {patch}"
    )


def _around_zero(x: Tensor) -> Tensor:
    """Images without their mean, where the rounding of products and squares is least; no patch has another structure."""
    return x - x.mean((2, 3), keepdim=True)


def _contrast(padded: Tensor, patch: int, stride: int, floor: float, inside: Tensor | None) -> Tensor:
    """What divides each patch of images with half a patch more at each side: (N, h, w)."""
    mean = _box_mean(padded, patch, stride)
    variance = (_box_mean(padded * padded, patch, stride) - mean * mean).clamp(min=0)
    deviation = variance.mean(1).sqrt()  # (N, h, w)
    places = (
        None if inside is None else inside_at(inside, stride, 0, (deviation.shape[1], deviation.shape[2]))
    )
    return deviation + floor * mean_inside(deviation, (1, 2), places).clamp(min=1e-6)


def _box_mean(x: Tensor, patch: int, stride: int) -> Tensor:
    """Mean of each patch of each channel, by rows and then by columns."""
    return F.avg_pool2d(F.avg_pool2d(x, (patch, 1), (stride, 1)), (1, patch), (1, stride))
