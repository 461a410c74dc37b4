from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from blemish.jpeg.chroma import HalvedPlane, halved_for_upsampling
from blemish.jpeg.distortion import upsample
from blemish.jpeg.transform import halved

SIZES = [(16, 24), (17, 24), (16, 25), (17, 25), (1, 9), (9, 1), (2, 8), (5, 6), (7, 5)]


def upsampling(length: int) -> np.ndarray:
    """libjpeg's fancy upsampling along one side as a matrix, (length, ceil(length / 2))."""
    half = -(-length // 2)
    matrix = np.zeros((length, half))
    for i in range(length):
        matrix[i, i // 2] += 0.75
        matrix[i, min(max(i // 2 + (1 if i % 2 else -1), 0), half - 1)] += 0.25
    return matrix


@pytest.mark.parametrize("size", [size for size in SIZES if size[1] > 4])
def test_halving_is_the_pseudo_inverse_of_the_decoders_upsampling(size: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).normal(0, 40, size).astype(np.float32)
    down, across = (np.linalg.pinv(upsampling(side)) for side in size)
    np.testing.assert_allclose(halved_for_upsampling(plane), down @ plane @ across.T, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_a_plane_that_was_upsampled_comes_back(size: tuple[int, int]) -> None:
    small = np.random.default_rng(1).normal(0, 40, [-(-side // 2) for side in size]).astype(np.float32)
    narrow = size[1] <= 4  # where libjpeg repeats samples
    large = small.repeat(2, 0).repeat(2, 1)[: size[0], : size[1]] if narrow else upsample(small, *size)
    np.testing.assert_allclose(halved_for_upsampling(large), small, atol=1e-2)


def test_strips_give_the_same_plane() -> None:
    plane = np.random.default_rng(2).normal(0, 40, (37, 22)).astype(np.float32)
    parts = HalvedPlane(37, 22)
    for top in range(0, 37, 5):
        parts.add(plane[top : top + 5], top)
    np.testing.assert_array_equal(parts.plane()[0], halved_for_upsampling(plane))


@pytest.mark.parametrize("size", [size for size in SIZES if size[1] > 4])
def test_the_loss_is_the_squared_error_of_the_upsampled_plane(size: tuple[int, int]) -> None:
    plane = np.random.default_rng(4).normal(0, 40, size).astype(np.float32)
    halves = HalvedPlane(*size)
    halves.add(plane, 0)
    small, lost = halves.plane()
    expected = float(((upsample(small, *size) - plane) ** 2).sum())
    assert lost == pytest.approx(expected, rel=1e-4, abs=0.1)


@pytest.mark.parametrize("size", [(40, 48), (41, 51), (40, 3)])
def test_a_decoder_comes_nearer_to_the_chroma_than_from_means(size: tuple[int, int]) -> None:
    """With coefficients that are hardly quantised, through a real file and Pillow's decoder."""
    from blemish.jpeg import Coefficients, Plane, blocks_dct, planes_of, quantise, to_bytes

    rng = np.random.default_rng(3)
    colours = rng.integers(60, 190, (*(-(-side // 3) for side in size), 3)).astype(np.uint8)
    pixels = colours.repeat(3, 0).repeat(3, 1)[: size[0], : size[1]]
    y, cb, cr = planes_of(pixels, "4:4:4")
    errors = []
    for halve in (halved, halved_for_upsampling):
        one = np.ones((8, 8), np.uint16)
        planes = tuple(Plane(quantise(blocks_dct(p), one), one) for p in (y, halve(cb), halve(cr)))
        data = to_bytes(Coefficients(size[1], size[0], planes, "4:2:0"))
        decoded = np.asarray(Image.open(io.BytesIO(data)), np.float64)
        errors.append(float(((decoded - pixels) ** 2).mean()))
    assert errors[1] <= (0.9 if size[1] > 4 else 1.001) * errors[0]
