"""Gradient magnitude similarity against a plain NumPy version."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import prewitt
from torch.autograd import gradcheck

from blemish.errors import UsageError
from blemish.similarity import MSGMS, msgms, msgms_map

Array = np.ndarray


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return x, (x + 0.2 * torch.rand(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def similarity_of_plane(x: Array, y: Array, c: float) -> Array:
    # SciPy's Prewitt kernel is 3 times the paper's
    g_x, g_y = (
        np.hypot(prewitt(plane, 0, mode="nearest"), prewitt(plane, 1, mode="nearest")) / 3 for plane in (x, y)
    )
    return (2 * g_x * g_y + c) / (g_x**2 + g_y**2 + c)


def halve(plane: Array) -> Array:
    height, width = plane.shape
    return np.array(
        [[plane[i : i + 2, j : j + 2].mean() for j in range(0, width, 2)] for i in range(0, height, 2)]
    )


def enlarge(plane: Array, factor: int, height: int, width: int) -> Array:
    rows, columns = ((np.arange(length) + 0.5) / factor - 0.5 for length in (height, width))
    wide = np.array([np.interp(columns, np.arange(plane.shape[1]), row) for row in plane])
    return np.array([np.interp(rows, np.arange(plane.shape[0]), column) for column in wide.T]).T


@pytest.mark.parametrize("size", [(16, 24), (17, 21), (8, 8)])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_equals_plain_numpy(size: tuple[int, int], data_range: float) -> None:
    x, y = pair(2, 3, *size)
    ours_map = msgms_map(data_range * x, data_range * y, data_range=data_range)
    ours = msgms(data_range * x, data_range * y, data_range=data_range)
    for n in range(2):
        means = []
        for channel in range(3):
            plane_x, plane_y = x[n, channel].numpy(), y[n, channel].numpy()
            maps = []
            for scale in range(4):
                if scale:
                    plane_x, plane_y = halve(plane_x), halve(plane_y)
                similarity = similarity_of_plane(plane_x, plane_y, 0.0026)
                means.append(similarity.mean())
                maps.append(enlarge(similarity, 2**scale, *size))
            np.testing.assert_allclose(ours_map[n, channel].numpy(), np.mean(maps, 0), atol=1e-9)
        assert ours[n].item() == pytest.approx(np.mean(means), abs=1e-9)


def test_edges_count_and_brightness_does_not() -> None:
    x = torch.zeros(1, 1, 32, 32)
    x[..., 16:] = 0.5
    torch.testing.assert_close(msgms(x, x + 0.3, data_range=1.0), torch.ones(1), atol=1e-4, rtol=0)
    soft = x.clone()
    soft[..., 12:20] = torch.linspace(0, 0.5, 8)
    found = 1 - msgms_map(x, soft, data_range=1.0)
    assert found[..., 12:20].mean() > 2 * found[..., :4].mean()


def test_gradient() -> None:
    x, y = (batch.requires_grad_() for batch in pair(1, 2, 9, 11))
    assert gradcheck(lambda x, y: msgms(x, y, data_range=1.0), (x, y))
    assert gradcheck(lambda x, y: msgms_map(x, y, data_range=1.0, scales=2), (x, y), fast_mode=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": 5}, "at least 16 pixels, the image has 15×30"),
        ({"scales": 0}, "scales"),
        ({"c": 0}, "c is 0"),
    ],
)
def test_refuses_settings_that_make_no_sense(options, words) -> None:
    x, y = pair(1, 1, 15, 30)
    with pytest.raises(UsageError, match=words):
        msgms_map(x, y, data_range=1.0, **options)


@pytest.mark.parametrize(("options", "words"), [({"scales": 0}, "scales"), ({"c": 0}, "c is 0")])
def test_module_refuses_settings_before_any_image(options, words) -> None:
    with pytest.raises(UsageError, match=words):
        MSGMS(data_range=1.0, **options)
