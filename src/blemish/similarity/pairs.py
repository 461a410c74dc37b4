"""Checks and working precision of the two batches that a measure compares."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from blemish.errors import UsageError


def check_range(data_range: float | None) -> float:
    """Return the data range as a float; raise ``UsageError`` if it is missing, not finite or not positive."""
    if data_range is None:
        raise UsageError("data_range is missing; give the span of the values, 1.0 for images in [0, 1]")
    if not (math.isfinite(data_range) and data_range > 0):
        raise UsageError(f"data_range is {data_range}; give a positive span, 1.0 for images in [0, 1]")
    return float(data_range)


def check_pair(x: Tensor, y: Tensor) -> None:
    """Raise ``UsageError`` unless both are float batches (N, C, H, W) of one shape on one device."""
    for name, images in (("x", x), ("y", y)):
        if not images.is_floating_point():
            raise UsageError(
                f"{name} has dtype {str(images.dtype).removeprefix('torch.')}; "
                "convert it to float and give the data_range that belongs to it"
            )
        if images.ndim != 4:
            raise UsageError(
                f"{name} has shape {tuple(images.shape)}; give a batch (N, C, H, W), one image as x[None]"
            )
        if images.numel() == 0:
            raise UsageError(f"{name} has shape {tuple(images.shape)}; give at least one pixel")
    if x.shape != y.shape:
        raise UsageError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; give two batches of one shape"
        )
    if x.device != y.device:
        raise UsageError(f"x is on {x.device} and y on {y.device}; move both to one device")


def working_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """Return float64 if either batch has it, otherwise float32: half precision loses the variance in rounding."""
    return torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32


def as_working(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Check both batches and convert them to their ``working_dtype``."""
    check_pair(x, y)
    dtype = working_dtype(x, y)
    return x.to(dtype), y.to(dtype)
