"""Images from cameras and other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.frames import from_memory
from blemish.data.image import read_image
from blemish.errors import ImageError

RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)  # (H, W, C)
NAME = Path("frame")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_either_axis_may_be_that_of_the_channels(dtype: Any) -> None:
    frame = (RGB / 255).astype(dtype) if np.issubdtype(dtype, np.floating) else RGB.astype(dtype)
    last = from_memory(frame, NAME, channels=3)
    first = from_memory(frame.transpose(2, 0, 1), NAME, channels=3)
    np.testing.assert_array_equal(last.pixels, first.pixels)
    assert last.pixels.shape == (3, 30, 40)
    assert last.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((30, 40), 1, (1, 30, 40)),
        ((30, 40, 1), 1, (1, 30, 40)),
        ((30, 40, 4), 3, (4, 30, 40)),
        ((12, 30, 40), 12, (12, 30, 40)),
        ((30, 40, 12), 12, (12, 30, 40)),
        ((3, 200, 4), 3, (3, 200, 4)),  # few columns, but the model has three channels
        ((4, 200, 3), 3, (3, 4, 200)),
    ],
)
def test_shapes(shape: tuple[int, ...], channels: int, expected: tuple[int, ...]) -> None:
    assert from_memory(np.zeros(shape, np.uint8), NAME, channels=channels).pixels.shape == expected


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 40, 3), np.uint8), "no one axis is plainly that of the channels"),
        (np.zeros((30, 40, 7), np.uint8), "no one axis is plainly that of the channels"),
        (np.zeros((2, 3, 30, 40), np.uint8), r"shape \(2, 3, 30, 40\)"),
        (np.zeros((0, 40), np.uint8)[None], r"shape \(1, 0, 40\)"),
        (np.zeros((30, 40), np.int32), "array of int32"),
        (np.full((30, 40), 2.0), "outside 0..1"),
        (np.full((30, 40), np.nan), "or NaN"),
    ],
)
def test_what_is_not_plain_is_refused(array: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        from_memory(array, NAME, channels=3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_an_image_of_pillow_is_what_its_file_would_be(tmp_path: Path, mode: str) -> None:
    image = (
        Image.fromarray(RGB[..., 0].astype(np.uint16))
        if mode == "I;16"
        else Image.fromarray(RGB).convert(mode)
    )
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    np.testing.assert_array_equal(from_memory(image, NAME, channels=3).pixels, read_image(path).pixels)


def test_exif_turns_an_image_of_pillow_as_it_turns_its_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        found = from_memory(image, NAME, channels=3)
    np.testing.assert_array_equal(found.pixels, read_image(tmp_path / "a.png").pixels)
    assert found.pixels.shape == (3, 40, 30)


def test_arrays_of_another_byte_order_and_tensors() -> None:
    import torch

    deep = RGB.astype(np.uint16) * 257
    for frame in (deep.astype(">u2"), deep.astype("<u2")):
        np.testing.assert_array_equal(from_memory(frame, NAME, channels=3).pixels, deep.transpose(2, 0, 1))
    np.testing.assert_array_equal(
        from_memory(torch.from_numpy(RGB), NAME, channels=3).pixels, RGB.transpose(2, 0, 1)
    )


def test_deep_images_of_pillow() -> None:
    deep = RGB[..., 0].astype(np.uint16) * 257
    swapped = Image.frombytes("I;16B", (40, 30), deep.astype(">u2").tobytes())
    np.testing.assert_array_equal(from_memory(swapped, NAME, channels=1).pixels[0], deep)
    floats = Image.fromarray((RGB[..., 0] / 255).astype(np.float32))
    np.testing.assert_allclose(from_memory(floats, NAME, channels=1).pixels[0], RGB[..., 0] / 255, rtol=1e-6)


@pytest.mark.parametrize("source", [RGB.tolist(), None, b"abc", {}, np.zeros((0, 4), np.uint8)])
def test_what_is_no_image_is_refused_in_a_line(source: Any) -> None:
    with pytest.raises(ImageError, match=r"^frame: is (no image, but of the type|an array of shape)"):
        from_memory(source, NAME, channels=1)
