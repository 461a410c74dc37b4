"""Squared and absolute differences, pixel by pixel."""

from __future__ import annotations

from torch import Tensor

from blemish.similarity.measure import Measure
from blemish.similarity.pairs import as_working, check_range


def mse_map(x: Tensor, y: Tensor, *, data_range: float | None = None) -> Tensor:
    """Compute the squared difference at every value, in units of the data range: (N, C, H, W), at least 0.

    Raises
    ------
    UsageError
        For a missing or non-positive ``data_range``, and for batches that do not fit each other.
    """
    data_range = check_range(data_range)
    x, y = as_working(x, y)
    return ((x - y) / data_range).square()


def mse(x: Tensor, y: Tensor, *, data_range: float | None = None) -> Tensor:
    """Compute the mean squared difference of each pair, in units of the data range: (N,).

    Examples
    --------
    >>> import torch
    >>> mse(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 51.0), data_range=255)
    tensor([0.0400])
    """
    return mse_map(x, y, data_range=data_range).mean((1, 2, 3))


def l1_map(x: Tensor, y: Tensor, *, data_range: float | None = None) -> Tensor:
    """Compute the absolute difference at every value, in units of the data range: (N, C, H, W), at least 0.

    Raises
    ------
    UsageError
        For a missing or non-positive ``data_range``, and for batches that do not fit each other.
    """
    data_range = check_range(data_range)
    x, y = as_working(x, y)
    return ((x - y) / data_range).abs()


def l1(x: Tensor, y: Tensor, *, data_range: float | None = None) -> Tensor:
    """Compute the mean absolute difference of each pair, in units of the data range: (N,).

    Examples
    --------
    >>> import torch
    >>> l1(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 51.0), data_range=255)
    tensor([0.2000])
    """
    return l1_map(x, y, data_range=data_range).mean((1, 2, 3))


class MSE(Measure):
    """Measure of ``mse``."""

    title = "squared error"

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        return mse_map(x, y, data_range=self.data_range).mean(1, keepdim=True)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return mse(x, y, data_range=self.data_range)


class L1(Measure):
    """Measure of ``l1``."""

    title = "absolute error"

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        return l1_map(x, y, data_range=self.data_range).mean(1, keepdim=True)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return l1(x, y, data_range=self.data_range)
