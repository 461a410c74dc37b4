"""Floating-point operations of a call, and the largest rate of this machine."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.suite.turns import Call


def flops_of(call: Call) -> int:
    """Operations of one call as torch counts them: those of matrix products, convolutions and attention, a multiplication
    and an addition as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def peak_call(dtype: torch.dtype, side: int) -> tuple[Call, int]:
    """A product of two square matrices, and its operations."""
    one, other = torch.rand(2, side, side).to(dtype)
    return lambda: one @ other, 2 * side**3
