from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import signal

from blemish import similarity
from blemish.jpeg.distortion import (
    C1,
    C2,
    COLOUR,
    SCALE_WEIGHTS,
    chroma_response,
    luma_ssim,
    ms_ssim_sensitivity,
    pyramid,
    upsample,
    window_mean,
)
from blemish.jpeg.entropy import UNZIGZAG, ZIGZAG
from blemish.jpeg.transform import DCT, RGB_TO_YCC


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Level-shifted luma with soft and rough parts."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.uniform(-90, 90, (6, 7)).astype(np.float32)).resize((width, height), 3)
    rough = rng.normal(0, 1, (height, width)) * np.linspace(0.5, 25, width)
    return np.clip(np.asarray(coarse) + rough, -128, 127).astype(np.float32)


def pixels_of(blocks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(N, 64) coefficients in zigzag order -> their pixels."""
    dct = blocks[:, UNZIGZAG].reshape(rows, columns, 8, 8).astype(np.float32)
    return (DCT.T @ dct @ DCT).swapaxes(1, 2).reshape(rows * 8, columns * 8)


def test_colour_products_give_the_squared_error_of_rgb() -> None:
    error = np.random.default_rng(0).normal(size=(50, 3))
    rgb = error @ np.linalg.inv(RGB_TO_YCC.astype(np.float64)).T
    assert np.einsum("ni,ij,nj->n", error, COLOUR, error) == pytest.approx((rgb**2).mean(1))
    assert COLOUR[0, 0] == pytest.approx(1, abs=1e-5)


def test_upsampling_keeps_flat_and_passes_straight_lines_inside() -> None:
    assert (upsample(np.full((3, 2), 5, np.float32), 5, 4) == 5).all()
    line = upsample(np.arange(6, dtype=np.float32)[None], 1, 12)[0]
    assert np.diff(line[1:-1]) == pytest.approx(0.5)
    assert line[[0, -1]].tolist() == [0, 5]


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (6, 7)])
def test_rows_of_the_upsampled_plane_are_made_alone(shape: tuple[int, int]) -> None:
    plane = texture(*shape)
    for width in (2 * shape[1], 2 * shape[1] - 1):
        whole = upsample(plane, 2 * shape[0], width)
        for top in range(2 * shape[0]):
            assert (upsample(plane, 1, width, top)[0] == whole[top]).all()
    corner = np.pad(plane, 1, "edge")[:3, :3]
    taps = np.array([[1, 3, 0]])
    assert whole[0, 0] == pytest.approx(float((taps.T * taps * corner).sum() / 16), abs=1e-4)


@pytest.mark.parametrize("place", [0, 1, 9, 35, 63])
def test_chroma_response_is_the_energy_after_upsampling(place: int) -> None:
    # a plane of many blocks with the same coefficient mirrored at every border: a pure cosine
    v, u = divmod(int(ZIGZAG[place]), 8)
    rows, columns = np.mgrid[:160, :160]
    plane = np.cos(np.pi * v * (2 * rows + 1) / 16) * np.cos(np.pi * u * (2 * columns + 1) / 16)
    energy = float((upsample(plane.astype(np.float32), 320, 320)[32:-32, 32:-32] ** 2).sum())
    own = float((plane[16:-16, 16:-16] ** 2).sum())
    assert chroma_response("4:2:0")[place] == pytest.approx(energy / own, rel=1e-3)
    assert chroma_response("4:4:4")[place] == 1


def test_window_means_are_those_of_the_similarity_room() -> None:
    plane = texture(30, 41)
    kernel = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    kernel /= kernel.sum()
    expected = np.lib.stride_tricks.sliding_window_view(plane, (11, 11)) @ kernel @ kernel
    assert window_mean(plane) == pytest.approx(expected, abs=1e-3)


def test_luma_ssim_is_that_of_the_similarity_room() -> None:
    x = texture(40, 33)
    for y in (x, texture(40, 33, seed=1), x * np.float32(0.8) - 30):
        pair = (torch.from_numpy(plane + 128)[None, None] for plane in (x, y))
        expected = similarity.ssim(*pair, data_range=255.0)
        assert luma_ssim(x, y) == pytest.approx(float(expected), abs=1e-5)


def test_the_loss_is_that_of_ms_ssim() -> None:
    x = texture(176, 192)
    y = (x + np.random.default_rng(1).normal(0, 6, x.shape)).astype(np.float32)
    pair = (torch.from_numpy(plane + 128)[None, None] for plane in (x, y))
    expected = 1 - float(similarity.ms_ssim(*pair, data_range=255.0))
    assert ms_ssim_sensitivity(pyramid(x), pyramid(y)).loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("places", [(0,), (1, 2), (3, 4, 5), (20, 24, 40), (60, 63)])
def test_prices_predict_the_loss_of_ms_ssim_by_small_errors(places: tuple[int, ...]) -> None:
    x = texture(176, 192)
    weights = ms_ssim_sensitivity(pyramid(x), pyramid(x)).weights()
    rng = np.random.default_rng(2)
    errors = np.zeros((22 * 24, 64), np.float32)
    errors[:, list(places)] = rng.choice([-4.0, 4.0], (22 * 24, len(places)))
    y = x + pixels_of(errors, 22, 24)
    loss = ms_ssim_sensitivity(pyramid(x), pyramid(y)).loss
    assert float((weights * errors**2).sum()) == pytest.approx(loss, rel=0.12)


def test_prices_of_halved_planes_predict_it_too() -> None:
    x = texture(176, 192)
    weights = ms_ssim_sensitivity(pyramid(x), pyramid(x)).weights(2)
    errors = np.zeros((11 * 12, 64), np.float32)
    errors[:, 1:8] = np.random.default_rng(3).choice([-6.0, 6.0], (11 * 12, 7))
    y = x + upsample(pixels_of(errors, 11, 12), 176, 192)
    loss = ms_ssim_sensitivity(pyramid(x), pyramid(y)).loss
    assert float((weights * errors**2).sum()) == pytest.approx(loss, rel=0.12)


@pytest.mark.parametrize("size", [(192, 176), (177, 185)])
def test_prices_are_those_of_windows_shared_out_among_pixels(size: tuple[int, int]) -> None:
    x = texture(*size)
    y = x + np.random.default_rng(4).normal(0, 6, size).astype(np.float32)
    found = ms_ssim_sensitivity(pyramid(x), pyramid(y))
    rows, columns = (-(-side // 8) for side in size)
    line = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    window = np.outer(line, line) / line.sum() ** 2

    def means(plane: np.ndarray) -> np.ndarray:
        return signal.convolve2d(plane.astype(np.float64), window, mode="valid")

    def by_block(values: np.ndarray, scale: int) -> np.ndarray:
        pixels = signal.convolve2d(values, window, mode="full")  # what each pixel takes
        side = 8 / 2**scale
        edges = [(np.arange(count) * side).astype(int) for count in (rows, columns)]
        step = max(int(side), 1)
        return np.array(
            [[pixels[top : top + step, left : left + step].mean() for left in edges[1]] for top in edges[0]]
        )

    product = 1 - found.loss
    for scale, (a, b) in enumerate(zip(pyramid(x), pyramid(y), strict=True)):
        mu_x, mu_y = means(a), means(b)
        d = means(a**2) - mu_x**2 + means(b**2) - mu_y**2 + C2
        similarity = (2 * (means(a * b) - mu_x * mu_y) + C2) / d
        if scale == 4:
            mu_x, mu_y = mu_x + 128, mu_y + 128
            similarity *= (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
        share = product * SCALE_WEIGHTS[scale] / similarity.sum()
        np.testing.assert_allclose(found.prices[..., scale], share * by_block(1 / d, scale), rtol=2e-3)
    luminance = share * by_block(1 / (2 * mu_x**2 + C1), 4)
    np.testing.assert_allclose(found.luminance, luminance, rtol=2e-3)


def test_weights_are_the_product_of_blocks_and_coefficients() -> None:
    x = texture(176, 192)
    sensitivity = ms_ssim_sensitivity(pyramid(x), pyramid(x + texture(176, 192, 5) / 20))
    for factor in (1, 2):
        by_block, responses = sensitivity.by_block(factor)
        assert responses.shape == (6, 64)  # five scales, and luminance
        np.testing.assert_allclose(sensitivity.weights(factor), by_block @ responses, rtol=1e-4)
    small = texture(40, 40)  # of two scales
    assert ms_ssim_sensitivity(pyramid(small), pyramid(small)).by_block()[1].shape == (3, 64)


def test_errors_cost_more_where_the_image_is_smooth() -> None:
    x = texture(176, 192)
    weights = ms_ssim_sensitivity(pyramid(x), pyramid(x)).weights().reshape(22, 24, 64)
    assert weights[:, 2, 10].mean() > 5 * weights[:, -3, 10].mean()


@pytest.mark.parametrize("size", [(1, 1), (10, 200), (11, 11), (37, 90)])
def test_any_size_has_as_many_scales_as_windows_fit(size: tuple[int, int]) -> None:
    x = texture(*size)
    scales = pyramid(x)
    fitting, side = 0, min(size)
    while side >= 11 and fitting < 5:
        fitting, side = fitting + 1, -(-side // 2)
    assert len(scales) == fitting
    if scales:
        blocks = -(-size[0] // 8) * -(-size[1] // 8)
        assert ms_ssim_sensitivity(scales, scales).weights().shape == (blocks, 64)
