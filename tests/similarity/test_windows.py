"""Window filters against those of SciPy."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter
from torch.autograd import gradcheck

from blemish.similarity.windows import Window, window_mean


@pytest.mark.parametrize("size", [(11, 13), (16, 40), (101, 33)])
@pytest.mark.parametrize(
    "window", [Window(), Window(7, kind="uniform"), Window(11, kind="uniform"), Window(1)]
)
def test_equals_scipy(window: Window, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    if window.kind == "gaussian":
        expected = gaussian_filter(
            x.numpy(), window.sigma, radius=window.size // 2, axes=(2, 3), mode="reflect"
        )
    else:
        expected = uniform_filter(x.numpy(), (1, 1, window.size, window.size), mode="reflect")
    torch.testing.assert_close(window_mean(x, window), torch.from_numpy(expected))
    inside = window.size // 2
    cropped = expected[..., inside : size[0] - inside, inside : size[1] - inside]
    torch.testing.assert_close(window_mean(x, window._replace(padding="valid")), torch.from_numpy(cropped))


@pytest.mark.parametrize("padding", ["symmetric", "valid"])
def test_gradient(padding) -> None:
    x = torch.rand(1, 2, 21, 35, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: window_mean(x, Window(padding=padding)), (x,), fast_mode=True)
