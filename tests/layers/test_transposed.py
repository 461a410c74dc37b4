"""Transposed convolution against torch's own, value and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from blemish.layers import ConvTranspose2d, conv_transpose2d

GEOMETRIES = [(4, 2, 1), (3, 1, 1), (8, 1, 0), (5, 3, 2)]


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_value_and_gradients_equal_torchs(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 5, 7, 6), (5, 3, kernel, kernel), (3,))
    )
    ours = conv_transpose2d(x, weight, bias, stride, padding)
    theirs = F.conv_transpose2d(x, weight, bias, stride, padding)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    gradient = torch.randn_like(ours)
    for own, reference in zip(
        torch.autograd.grad(ours, (x, weight, bias), gradient),
        torch.autograd.grad(theirs, (x, weight, bias), gradient),
        strict=True,
    ):
        torch.testing.assert_close(own, reference, rtol=1e-12, atol=1e-12)


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    inputs = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((1, 2, 3, 3), (2, 2, 4, 4), (2,))
    ]
    assert torch.autograd.gradcheck(lambda x, w, b: conv_transpose2d(x, w, b, 2, 1), inputs)


def test_autocast_gives_torchs_bfloat16_gradients() -> None:
    torch.manual_seed(0)
    ours = ConvTranspose2d(4, 3, 4, 2, 1)
    theirs = torch.nn.ConvTranspose2d(4, 3, 4, 2, 1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 8, 8)
    for layer in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.dtype is torch.bfloat16
        y.float().square().sum().backward()
    for own, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert own.grad is not None
        assert own.grad.dtype is torch.float32
        torch.testing.assert_close(own.grad, reference.grad, rtol=1e-2, atol=1e-2)


def test_no_gradient_to_an_input_that_needs_none() -> None:
    layer = ConvTranspose2d(2, 2, 4, 2, 1)
    layer(torch.rand(1, 2, 4, 4)).sum().backward()
    assert layer.weight.grad is not None
