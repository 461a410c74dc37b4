"""Transposed convolution whose backward pass runs as plain convolutions.

The gradient of a transposed convolution with respect to its input is a convolution, and the gradient with respect
to its weights is that of a convolution with input and output exchanged. torch's CPU build computes both more
slowly; this one gives the same values faster, above all in bfloat16 (``benchmarks/training.py`` has the ratio).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _ConvTranspose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding
        return F.conv_transpose2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.geometry
        to_x = F.conv2d(gradient, weight, None, stride, padding) if ctx.needs_input_grad[0] else None
        _, to_weight, _ = torch.ops.aten.convolution_backward(
            x,
            gradient,
            weight,
            None,
            [stride] * 2,
            [padding] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            [False, True, False],
        )
        return to_x, to_weight, gradient.sum((0, 2, 3)), None, None


def conv_transpose2d(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Apply ``torch.nn.functional.conv_transpose2d`` with equal strides and paddings; differentiable once.

    Parameters
    ----------
    x: (N, C, H, W).
    weight: (C, D, K, K).
    bias: (D,).
    """
    if x.device.type != "cpu":
        return F.conv_transpose2d(x, weight, bias, stride, padding)
    if torch.is_autocast_enabled("cpu"):
        # Cast outside the function, where autograd records it: autocast does not apply in the backward pass.
        dtype = torch.get_autocast_dtype("cpu")
        x, weight, bias = (tensor.to(dtype) for tensor in (x, weight, bias))
    return cast(Tensor, _ConvTranspose.apply(x, weight, bias, stride, padding))  # type: ignore[no-untyped-call]


class ConvTranspose2d(nn.ConvTranspose2d):
    """Layer of :func:`conv_transpose2d`: (N, C, H, W) to (N, D, (H − 1) S − 2 P + K, …)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or torch.is_inference_mode_enabled():
            return super().forward(x, output_size)
        assert self.bias is not None
        return conv_transpose2d(x, self.weight, self.bias, int(self.stride[0]), int(self.padding[0]))
