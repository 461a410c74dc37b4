"""Rounding with a useful gradient: the value is rounded, the gradient is that of a cubic.

Shin and Song 2017, JPEG-resistant Adversarial Images: near its steps the rounding is replaced by
⌊x⌉ + (x − ⌊x⌉)³. Only its gradient, 3 (x − ⌊x⌉)², is used here: with the cubic's value, which no file stores,
the quality measured in training is about one dB too high.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _CubicRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rounded = torch.floor(x + 0.5)
        ctx.save_for_backward(x - rounded)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (rest,) = ctx.saved_tensors
        gradient: Tensor = gradients[0] * (3 * rest.square())
        return gradient


def cubic_round(x: Tensor) -> Tensor:
    """Round to ⌊x + 0.5⌋ with the gradient 3 (x − ⌊x⌉)²: 0 at integers, 0.75 halfway between two.

    Parameters
    ----------
    x: any shape, floating point.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([-0.5, 0.25, 0.5, 1.0], requires_grad=True)
    >>> cubic_round(x).sum().backward()
    >>> cubic_round(x).tolist(), x.grad.tolist()
    ([0.0, 0.0, 1.0, 1.0], [0.75, 0.1875, 0.75, 0.0])
    """
    rounded: Tensor = _CubicRound.apply(x)  # type: ignore[no-untyped-call]
    return rounded
