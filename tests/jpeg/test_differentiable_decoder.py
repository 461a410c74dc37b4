from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import fft
from torch import Tensor

from blemish.errors import UsageError
from blemish.jpeg import Coefficients, Plane, Sampling, blocks_dct, planes_of, quantise, to_bytes
from blemish.jpeg.coefficients import block_counts
from blemish.jpeg.differentiable_decoder import decode, decode_batch, decode_real

SIZES = [(1, 1), (2, 3), (4, 5), (5, 4), (6, 1), (1, 6), (8, 8), (9, 9), (17, 33), (303, 193)]
KINDS: list[tuple[int, Sampling]] = [(1, "4:4:4"), (3, "4:4:4"), (3, "4:2:0")]


def by_pillow(coefficients: Coefficients) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(to_bytes(coefficients))) as image:
        return np.asarray(image)


def of_image(width: int, height: int, planes: int, sampling: Sampling, step: int) -> Coefficients:
    """Waves, hard edges and saturated colours, quantised with a step that grows with frequency."""
    y, x = np.mgrid[:height, :width]
    bright = 128 + 160 * np.sin(x / 9 + y / 5)
    pixels = np.stack([bright, 255.0 * (x // 5 % 2), 255.0 * ((x + y) // 7 % 2)], 2)
    pixels += np.random.default_rng(0).normal(0, 6, pixels.shape)
    bytes_ = np.clip(pixels, 0, 255).astype(np.uint8)
    table = (step + np.add.outer(range(8), range(8))).astype(np.uint16)
    parts = planes_of(bytes_ if planes == 3 else bytes_[:, :, 0], sampling)
    return Coefficients(
        width, height, tuple(Plane(quantise(blocks_dct(part), table), table) for part in parts), sampling
    )


def at_random(
    width: int, height: int, planes: int, sampling: Sampling, largest: int, coarsest: int
) -> Coefficients:
    rng = np.random.default_rng(largest + coarsest)
    return Coefficients(
        width,
        height,
        tuple(
            Plane(
                rng.integers(-largest, largest + 1, (*blocks, 8, 8)).astype(np.int16),
                rng.integers(1, coarsest + 1, (8, 8)).astype(np.uint16),
            )
            for blocks in block_counts(width, height, planes, sampling)
        ),
        sampling,
    )


def dequantised(coefficients: Coefficients, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [
        torch.from_numpy(plane.coefficients.astype(np.float64) * plane.table)[None].to(dtype)
        for plane in coefficients.planes
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("planes", "sampling"), KINDS)
@pytest.mark.parametrize("step", [1, 30])
def test_images_decode_as_by_pillow(
    size: tuple[int, int], planes: int, sampling: Sampling, step: int
) -> None:
    coefficients = of_image(*size, planes, sampling, step)
    np.testing.assert_array_equal(decode(coefficients), by_pillow(coefficients))


@pytest.mark.parametrize("size", SIZES[:-1])
@pytest.mark.parametrize(("planes", "sampling"), KINDS)
@pytest.mark.parametrize(("largest", "coarsest"), [(3, 20), (60, 9), (1023, 1)])
def test_any_coefficients_decode_as_by_pillow(
    size: tuple[int, int], planes: int, sampling: Sampling, largest: int, coarsest: int
) -> None:
    coefficients = at_random(*size, planes, sampling, largest, coarsest)
    np.testing.assert_array_equal(decode(coefficients), by_pillow(coefficients))


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_extreme_coefficients_decode_as_by_pillow(sign: int, sampling: Sampling) -> None:
    rng = np.random.default_rng(5)
    planes = []
    for blocks in block_counts(40, 24, 3, sampling):
        values = sign * rng.choice(np.array([-1023, 0, 1023], np.int16), (*blocks, 8, 8), p=[0.1, 0.1, 0.8])
        planes.append(Plane(values.astype(np.int16), np.ones((8, 8), np.uint16)))
    coefficients = Coefficients(40, 24, tuple(planes), sampling)
    np.testing.assert_array_equal(decode(coefficients), by_pillow(coefficients))


@pytest.mark.parametrize(("planes", "sampling"), KINDS)
def test_with_a_gradient_the_values_are_the_same(planes: int, sampling: Sampling) -> None:
    coefficients = [of_image(37, 21, planes, sampling, step) for step in (9, 40)]
    pair = [torch.cat(parts) for parts in zip(*map(dequantised, coefficients), strict=True)]
    pixels = decode_batch([part.requires_grad_() for part in pair], 21, 37, sampling)
    assert pixels.shape == (2, planes, 21, 37)
    for found, single in zip(pixels, coefficients, strict=True):
        expected = by_pillow(single).reshape(21, 37, planes).transpose(2, 0, 1)
        np.testing.assert_array_equal(found.detach().numpy(), expected)
    with torch.no_grad():
        np.testing.assert_array_equal(decode_batch(pair, 21, 37, sampling), pixels.detach())


@pytest.mark.parametrize(("planes", "sampling"), KINDS)
@pytest.mark.parametrize("size", [(11, 9), (3, 5)])
def test_gradient_is_that_of_the_real_decoder(planes: int, sampling: Sampling, size: tuple[int, int]) -> None:
    """Against central differences, along random directions, of pixels that are not at their limits."""
    width, height = size
    torch.manual_seed(0)
    blocks = block_counts(width, height, planes, sampling)
    inputs = [torch.randn(1, *counts, 8, 8, dtype=torch.float64).mul(12).round() for counts in blocks]
    weights = torch.randn(1, planes, height, width, dtype=torch.float64)
    leaves = [part.clone().requires_grad_() for part in inputs]
    (decode_batch(leaves, height, width, sampling) * weights).sum().backward()
    for index, leaf in enumerate(leaves):
        assert leaf.grad is not None
        for _ in range(3):
            direction = torch.randn_like(leaf)
            ends = []
            for step in (-1e-4, 1e-4):
                moved = [*inputs[:index], inputs[index] + step * direction, *inputs[index + 1 :]]
                ends.append((decode_real(moved, height, width, sampling) * weights).sum())
            slope = (ends[1] - ends[0]) / 2e-4
            assert float((leaf.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-6, abs=1e-6)


def test_pixels_at_their_limits_have_no_gradient() -> None:
    blocks = torch.zeros(1, 1, 1, 8, 8)
    blocks[..., 0, 0] = 2000
    blocks.requires_grad_()
    decode_batch([blocks], 8, 8, "4:4:4").sum().backward()
    assert blocks.grad is not None
    assert blocks.grad.abs().max() == 0


def test_real_decoder_is_the_inverse_transform_and_colour_matrix() -> None:
    coefficients = of_image(16, 8, 3, "4:4:4", 3)
    samples = [
        np.clip(np.block([[fft.idctn(block, norm="ortho") for block in part[0, 0]]]), -128, 127)
        for part in (part.numpy() for part in dequantised(coefficients, torch.float64))
    ]
    ycc = np.stack(samples).reshape(3, -1) + np.array([[128], [0], [0]])
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
    )
    rgb = np.clip(np.linalg.solve(matrix, ycc), 0, 255).reshape(3, 8, 16)
    real = decode_real(dequantised(coefficients, torch.float64), 8, 16, "4:4:4")
    np.testing.assert_allclose(real[0], rgb, atol=1e-3)


@pytest.mark.parametrize(("planes", "sampling"), KINDS)
def test_real_decoder_stays_near_the_exact_one(planes: int, sampling: Sampling) -> None:
    inputs = dequantised(of_image(50, 40, planes, sampling, 12))
    difference = decode_real(inputs, 40, 50, sampling) - decode_batch(inputs, 40, 50, sampling)
    assert difference.abs().max() < 3
    assert abs(difference.mean()) < 0.1


@pytest.mark.parametrize(
    ("shapes", "sampling"),
    [
        ([(1, 1)], "4:2:0"),
        ([(2, 2)], "4:4:4"),
        ([(1, 1), (1, 1)], "4:4:4"),
        ([(1, 1), (1, 1), (2, 1)], "4:4:4"),
    ],
)
def test_refuses_planes_that_do_not_fit(shapes: list[tuple[int, int]], sampling: Sampling) -> None:
    planes = [torch.zeros(1, *shape, 8, 8) for shape in shapes]
    with pytest.raises(UsageError):
        decode_batch(planes, 8, 8, sampling)
    with pytest.raises(UsageError):
        decode_real(planes, 8, 8, sampling)
