from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import fft

from blemish.errors import UsageError
from blemish.jpeg import blocks_dct, planes_of, quantise
from blemish.jpeg.transform import BASIS, luma_of, multiplied


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_colours_are_those_of_pillow() -> None:
    pixels = image(20, 30)
    expected = np.asarray(Image.fromarray(pixels).convert("YCbCr"), np.float32).transpose(2, 0, 1) - 128
    difference = np.stack(planes_of(pixels, "4:4:4")) - expected  # Pillow cuts off what is behind the point
    assert difference.min() > -0.05
    assert difference.max() < 1.05


def test_grey_keeps_its_values() -> None:
    grey = image(5, 7)[:, :, 0]
    for sampling in ("4:4:4", "4:2:0"):
        (plane,) = planes_of(grey, sampling)
        np.testing.assert_array_equal(plane, grey.astype(np.float32) - 128)


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (90, 100, 3), (6, 9)])
def test_luma_alone_is_the_first_plane(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(luma_of(pixels), planes_of(pixels, "4:4:4")[0], atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 300])
def test_products_in_pieces_are_the_whole_product(count: int) -> None:
    blocks = np.random.default_rng(4).normal(0, 9, (count, 64)).astype(np.float32)
    np.testing.assert_allclose(multiplied(blocks, BASIS), blocks @ BASIS, atol=1e-3)


def test_primaries_span_the_whole_range() -> None:
    red, blue = np.eye(3, dtype=np.uint8)[[0, 2]] * 255
    _, _, cr = planes_of(red[None, None], "4:4:4")
    _, cb, _ = planes_of(blue[None, None], "4:4:4")
    assert cr.item() == pytest.approx(127.5)
    assert cb.item() == pytest.approx(127.5)


def test_halved_chroma_is_the_mean_of_four_with_edges_repeated() -> None:
    pixels = image(5, 7)
    full = planes_of(pixels, "4:4:4")
    halved = planes_of(pixels, "4:2:0")
    np.testing.assert_array_equal(halved[0], full[0])
    for plane, half in zip(full[1:], halved[1:], strict=True):
        whole = np.pad(plane, ((0, 1), (0, 1)), "edge")
        np.testing.assert_allclose(half, whole.reshape(3, 2, 4, 2).mean((1, 3)), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 1), (4,), (0, 3), (0, 3, 3)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        planes_of(np.zeros(shape, np.uint8), "4:4:4")


def test_refuses_other_types() -> None:
    with pytest.raises(UsageError, match="float32"):
        planes_of(np.zeros((2, 3), np.float32), "4:4:4")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (9, 15), (24, 16)])
def test_dct_is_the_orthonormal_one_of_each_block(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(2).uniform(-128, 127, shape).astype(np.float32)
    dct = blocks_dct(plane)
    rows, columns = -(-shape[0] // 8), -(-shape[1] // 8)
    padded = np.pad(plane, ((0, 8 * rows - shape[0]), (0, 8 * columns - shape[1])), "edge")
    assert dct.shape == (rows, columns, 8, 8)
    assert dct.dtype == np.float32
    for row in range(rows):
        for column in range(columns):
            block = padded[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            np.testing.assert_allclose(dct[row, column], fft.dctn(block, norm="ortho"), atol=1e-3)


def test_first_axis_is_vertical_frequency() -> None:
    stripes = np.tile(np.where(np.arange(8) % 2, 50, -50).astype(np.float32)[:, None], (1, 8))
    dct = blocks_dct(stripes)[0, 0]
    assert np.abs(dct[:, 1:]).max() < 1e-3
    assert abs(dct[7, 0]) > 300


def test_quantise_rounds_halves_away_from_zero() -> None:
    dct = np.zeros((1, 1, 8, 8), np.float32)
    dct[0, 0, 0] = [5, -5, 14.9, -15, 4.9, -4.9, 25, 0]
    table = np.full((8, 8), 10, np.uint16)
    table[0, 6] = 255
    levels = quantise(dct, table)
    assert levels.dtype == np.int16
    assert levels[0, 0, 0].tolist() == [1, -1, 1, -2, 0, 0, 0, 0]


def test_quantise_divides_by_frequency() -> None:
    table = np.arange(1, 65, dtype=np.uint16).reshape(8, 8)
    dct = np.broadcast_to(table.astype(np.float32) * 3, (2, 3, 8, 8))
    np.testing.assert_array_equal(quantise(dct, table), 3)
