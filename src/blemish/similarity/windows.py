"""Separable windows of local statistics, applied as products with banded matrices.

A filter along one axis is a banded matrix, so the border costs nothing: it is folded into the outer rows.
The band is divided into tiles of 16 outputs, and each tile is one dense product that reads little but the band.
Slower on the CPU at equal values: tiles of 8, 32, 64 and the whole matrix; grouped, separable and depthwise
convolutions; sums of shifted slices. The figures are in benchmarks/results/similarity.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from blemish.errors import UsageError

WindowKind = Literal["gaussian", "uniform"]
Padding = Literal["symmetric", "valid"]


class Window(NamedTuple):
    """Square window: odd side ``size``, standard deviation ``sigma`` in pixels (Gaussian only), border."""

    size: int = 11
    sigma: float = 1.5
    kind: WindowKind = "gaussian"
    padding: Padding = "symmetric"

    def check(self) -> None:
        """Raise ``UsageError`` if the window is invalid for images of any size."""
        if self.kind not in ("gaussian", "uniform"):
            raise UsageError(f"window kind {self.kind!r} is unknown; choose 'gaussian' or 'uniform'")
        if self.padding not in ("symmetric", "valid"):
            raise UsageError(f"padding {self.padding!r} is unknown; choose 'symmetric' or 'valid'")
        if self.size < 1 or self.size % 2 == 0:
            raise UsageError(
                f"window is {self.size} pixels wide; give an odd number, so that it has a middle"
            )
        if self.kind == "gaussian" and not self.sigma > 0:
            raise UsageError(f"window sigma is {self.sigma}; give a positive number of pixels")

    def check_fits(self, height: int, width: int) -> None:
        """Raise ``UsageError`` if the window is larger than the image."""
        if self.size > min(height, width):
            raise UsageError(
                f"window of {self.size} pixels is larger than the image of {height}×{width}; "
                f"give an odd window of at most {min(height, width)}"
            )

    def taps(self) -> Tensor:
        """Weights along one axis, (size,) in float64, summing to 1.

        Examples
        --------
        >>> [round(tap, 3) for tap in Window(size=3, sigma=1.0).taps().tolist()]
        [0.274, 0.452, 0.274]
        """
        if self.kind == "uniform":
            return torch.full((self.size,), 1 / self.size, dtype=torch.float64)
        offset = torch.arange(self.size, dtype=torch.float64) - self.size // 2
        weight = torch.exp(-0.5 * (offset / self.sigma) ** 2)
        return weight / weight.sum()

    def outputs(self, length: int) -> int:
        """Number of outputs of the filter along an axis of ``length`` pixels."""
        return length if self.padding == "symmetric" else length - self.size + 1


def _matrix_rows(window: Window, length: int, start: int, stop: int) -> Tensor:
    """Build rows ``start`` to ``stop`` of the (outputs, length) filter matrix, in float64."""
    taps = window.taps()
    first = window.size // 2 if window.padding == "symmetric" else 0
    column = torch.arange(start, stop)[:, None] + torch.arange(window.size) - first  # (rows, size)
    column = torch.where(column < 0, -1 - column, column)  # symmetric border: d c b a | a b c d | d c b a
    column = torch.where(column >= length, 2 * length - 1 - column, column)
    rows = torch.zeros(stop - start, length, dtype=torch.float64)
    return rows.scatter_add_(1, column, taps.expand(stop - start, -1))


class Tile(NamedTuple):
    """Dense tile of a banded matrix: outputs ``to``, inputs ``of``, and the weights with their transpose."""

    to: slice
    of: slice
    weights: Tensor  # (outputs, inputs)
    transposed: Tensor  # (inputs, outputs)


def _tiles(window: Window, length: int, side: int, adjoint: bool) -> Iterator[tuple[slice, slice, Tensor]]:
    outputs = window.outputs(length)
    before = window.size // 2 if window.padding == "symmetric" else 0
    after = window.size - 1 - before
    if adjoint:
        for start in range(0, length, side):
            stop = min(start + side, length)
            low, high = max(0, start - after), min(outputs, stop + before)
            yield (
                slice(start, stop),
                slice(low, high),
                _matrix_rows(window, length, low, high)[:, start:stop].T,
            )
    else:
        for start in range(0, outputs, side):
            stop = min(start + side, outputs)
            low, high = max(0, start - before), min(length, stop + after)
            yield slice(start, stop), slice(low, high), _matrix_rows(window, length, start, stop)[:, low:high]


class Axis(NamedTuple):
    """Filter along one axis, or its adjoint."""

    outputs: int
    tiles: tuple[Tile, ...]


@lru_cache(maxsize=64)
def _axis(
    window: Window, length: int, adjoint: bool, side: int, dtype: torch.dtype, device: torch.device
) -> Axis:
    outputs = length if adjoint else window.outputs(length)
    with torch.inference_mode(False):  # a tensor made in inference mode could not serve a later backward pass
        return Axis(
            outputs,
            tuple(
                Tile(to, of, weights.to(device, dtype).contiguous(), weights.T.to(device, dtype).contiguous())
                for to, of, weights in _tiles(window, length, side, adjoint)
            ),
        )


class Filter(NamedTuple):
    """Filter of a window for fields of one size: the mean under the window, or its adjoint."""

    rows: Axis
    columns: Axis

    def __call__(self, fields: Tensor, between: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """Filter contiguous ``fields`` (H, K, W), K of them at once, into (H', K, W').

        ``between`` (H', K, W) and ``out`` are contiguous buffers to reuse; they are overwritten.
        """
        height, fields_count, width = fields.shape
        if between is None:
            between = fields.new_empty(self.rows.outputs, fields_count, width)
        if out is None:
            out = fields.new_empty(self.rows.outputs, fields_count, self.columns.outputs)
        tall, tall_out = fields.view(height, -1), between.view(self.rows.outputs, -1)
        for to, of, weights, _ in self.rows.tiles:
            torch.mm(weights, tall[of], out=tall_out[to])
        wide, wide_out = between.view(-1, width), out.view(-1, self.columns.outputs)
        for to, of, _, transposed in self.columns.tiles:
            torch.mm(wide[:, of], transposed, out=wide_out[:, to])
        return out


def make_filter(
    window: Window,
    size: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
    *,
    adjoint: bool = False,
    tile: int | None = None,
) -> Filter:
    """Build the filter of ``window`` for images of ``size`` (H, W), or its adjoint (the transposed matrix).

    ``tile`` is the number of outputs of one product along an axis; the default is the fastest on the device.
    """
    tile = tile or (16 if device.type == "cpu" else 128)
    rows, columns = (_axis(window, length, adjoint, tile, dtype, device) for length in size)
    return Filter(rows, columns)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute products in the precision of their operands, regardless of autocast and the matmul precision setting.

    A variance is a small difference of large moments; TF32 or bfloat16 products would leave only rounding errors.
    """
    before = torch.get_float32_matmul_precision()
    with torch.autocast(device.type, enabled=False):
        if before == "highest":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


class _WindowMean(torch.autograd.Function):
    """``window_mean`` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Window) -> Tensor:
        ctx.window, ctx.size = window, x.shape[-2:]
        return _filter_batch(x, make_filter(window, x.shape[-2:], x.dtype, x.device))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        adjoint = make_filter(ctx.window, ctx.size, gradient.dtype, gradient.device, adjoint=True)
        return _filter_batch(gradient, adjoint), None


def _filter_batch(x: Tensor, window_filter: Filter) -> Tensor:
    # (N, C, H, W) -> (H, N·C, W): each row of the filter is multiplied with one long row of pixels
    planes = x.flatten(0, 1).transpose(0, 1).contiguous()
    with full_precision(x.device):
        filtered = window_filter(planes)
    return filtered.transpose(0, 1).reshape(*x.shape[:2], *filtered.shape[::2])


def window_mean(x: Tensor, window: Window) -> Tensor:
    """Compute the weighted mean of ``x`` (N, C, H, W) under the window at every pixel: (N, C, H', W').

    Examples
    --------
    >>> window_mean(torch.eye(3)[None, None], Window(size=3, kind="uniform", padding="valid"))
    tensor([[[[0.3333]]]])
    """
    window.check()
    window.check_fits(*x.shape[-2:])
    if torch.compiler.is_compiling():
        return _traced_mean(x, window)
    mean: Tensor = _WindowMean.apply(x, window)  # type: ignore[no-untyped-call]
    return mean


def _traced_mean(x: Tensor, window: Window) -> Tensor:
    """``window_mean`` as two products with whole matrices, which a graph of any batch holds as two operations."""
    rows, columns = (
        _matrix_rows(window, length, 0, window.outputs(length)).to(x.dtype) for length in x.shape[-2:]
    )
    return rows @ x @ columns.T
