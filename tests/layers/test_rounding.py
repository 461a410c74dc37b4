from __future__ import annotations

import torch

from blemish.layers.rounding import cubic_round


def test_values_are_rounded_with_halves_up() -> None:
    x = torch.tensor([-1.5, -0.5, -0.49, 0.49, 0.5, 1.5, 2.5, 7.0])
    assert cubic_round(x).tolist() == [-1, 0, 0, 0, 1, 2, 3, 7]
    assert cubic_round(x.requires_grad_()).tolist() == [-1, 0, 0, 0, 1, 2, 3, 7]


def test_the_gradient_is_that_of_the_cubic() -> None:
    x = torch.linspace(-3, 3, 101, dtype=torch.float64).requires_grad_()
    weights = torch.randn(101, dtype=torch.float64)
    (cubic_round(x) * weights).sum().backward()

    twin = x.detach().clone().requires_grad_()
    nearest = torch.floor(twin.detach() + 0.5)
    ((nearest + (twin - nearest) ** 3) * weights).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
