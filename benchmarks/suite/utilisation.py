"""Floating-point operations of a call, and the largest rate of this machine."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

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


class _Recorder(TorchDispatchMode):
    """Keeps the operations that count, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket in flop_registry:
            self.calls.append((func, args, kwargs))
            return func(*args, **kwargs)
        with self:  # in inference mode a convolution arrives as an operation that consists of others
            found = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if found is NotImplemented else found


def counted_operations(call: Call) -> Call:
    """The matrix products and convolutions of one call, forward and backward, one after the other and without the rest.

    Their time is the part of the call's that no other code around them can save.
    """
    with _Recorder() as recorder:
        call()

    def repeat() -> None:
        with torch.inference_mode():
            for function, args, kwargs in recorder.calls:
                function(*args, **kwargs)

    return repeat
