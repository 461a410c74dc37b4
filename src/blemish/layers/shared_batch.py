"""Batches whose rows are spread over several processes: draws, counts and batch normalisation over all of them.

Outside :func:`shared_batch` each function is what one process does alone. Within it the functions are collective: every
process calls them, in the same order, with as many rows as the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Share(NamedTuple):
    rank: int
    processes: int


_share: _Share | None = None


@contextmanager
def shared_batch(rank: int, processes: int) -> Iterator[None]:
    """Take the batches in the block as the rows of process ``rank`` of ``processes``, of the default process group."""
    global _share
    before, _share = _share, _Share(rank, processes) if processes > 1 else None
    try:
        yield
    finally:
        _share = before


def whole_batch(x: Tensor) -> Tensor:
    """Rows of all processes, in their order: (N, …) to (processes · N, …), without gradients."""
    if _share is None:
        return x
    own = x.detach().contiguous()
    if own.dtype == torch.bool:  # which the backend gloo does not send
        return whole_batch(own.to(torch.uint8)).bool()
    parts = [torch.empty_like(own) for _ in range(_share.processes)]
    dist.all_gather(parts, own)
    return torch.cat(parts).contiguous(memory_format=_memory_format(x))


def own_rows(whole: Tensor) -> Tensor:
    """Rows of this process: (processes · N, …) to (N, …)."""
    return whole if _share is None else whole.chunk(_share.processes)[_share.rank]


def on_whole_batch(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function`` of the batch of all processes, for its random draws; of the result the rows of this process.

    Each process computes it for all rows. So the draws are those of one process that has the whole batch, also where
    they depend on the images, as those of synthetic anomalies do.
    """
    return function(x) if _share is None else own_rows(function(whole_batch(x)))


def normal_like(x: Tensor) -> Tensor:
    """Standard normal draws in the shape of ``x`` (N, …), the rows of this process of those for the whole batch."""
    if _share is None:
        return torch.randn_like(x)
    shape = (_share.processes * len(x), *x.shape[1:])
    whole = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_memory_format(x))
    return own_rows(torch.randn_like(whole))


def mean_count(count: Tensor) -> Tensor:
    """``count`` of this process's rows as the mean over the processes, at least 1 in all; no gradients.

    A sum divided by it, averaged over the processes, is the sum of all rows over the count of all rows.
    """
    if _share is None:
        return count.clamp_min(1)
    total = count.detach().clone()
    dist.all_reduce(total)
    return total.clamp_min(1) / _share.processes


def moments_by_channel(h: Tensor) -> tuple[Tensor, Tensor]:
    """Biased variance and mean by channel of (N, C, …), over the rows of all processes; differentiable."""
    axes = [axis for axis in range(h.ndim) if axis != 1]
    if _share is None:
        return torch.var_mean(h, axes, correction=0)
    mean = _mean_over_processes(h.mean(axes))
    deviation = h - mean.view(1, -1, *[1] * (h.ndim - 2))
    return _mean_over_processes(deviation.square().mean(axes)), mean


class _MeanOverProcesses(torch.autograd.Function):
    """Mean over the processes; its gradient is the mean of theirs, because each loss depends on every part."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return _reduced(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return _reduced(gradients[0])


def _reduced(x: Tensor) -> Tensor:
    assert _share is not None
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / _share.processes


def _mean_over_processes(x: Tensor) -> Tensor:
    return cast(Tensor, _MeanOverProcesses.apply(x))  # type: ignore[no-untyped-call]


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose statistics in training are those of the rows of all processes.

    It takes the place of ``torch.nn.SyncBatchNorm``, which computes on GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _share is None or not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            h = x.float()
            variance, mean = moments_by_channel(h)
            self._follow(mean.detach(), variance.detach(), _share.processes * h.numel() // h.shape[1])
            y = (h - mean.view(1, -1, 1, 1)) * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
            if self.affine:
                y = y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, number: int) -> None:
        """Update the running statistics as ``torch.nn.BatchNorm2d`` does, from ``number`` values by channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        pace = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, pace)
        self.running_var.lerp_(variance * (number / (number - 1)), pace)


@contextmanager
def shared_batch_norm(model: nn.Module) -> Iterator[None]:
    """Let the batch normalisations of ``model`` be :class:`SharedBatchNorm2d` in the block.

    Their class alone changes: parameters, buffers and hooks stay, and so do the names in checkpoints.
    """
    changed = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    for module in changed:
        module.__class__ = SharedBatchNorm2d
    try:
        yield
    finally:
        for module in changed:
            module.__class__ = nn.BatchNorm2d


def _memory_format(x: Tensor) -> torch.memory_format:
    is_last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format
