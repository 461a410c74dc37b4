"""Values of more than 8 bits, of which nothing is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import image_info, read_image
from blemish.errors import ImageError

H, W = 7, 5


def deep(channels: int, largest: int = 65535) -> NDArray[np.uint16]:
    rng = np.random.default_rng(channels)
    values = rng.integers(0, largest, (H, W, channels), np.uint16, endpoint=True)
    values[0, 0] = largest
    return values


def check(path: Path, expected: NDArray[Any]) -> None:
    """The file gives these pixels (H, W, C), and its header says the same."""
    image, info = read_image(path), image_info(path)
    assert (info.channels, info.kind, info.width, info.height) == (image.channels, image.kind, *image.size)
    np.testing.assert_array_equal(image.pixels, expected.transpose(2, 0, 1))
    assert image.pixels.dtype == expected.dtype


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "header", ["{kind}\n{w} {h}\n{largest}\n", "{kind} # made by hand\n{w}\n# rows\n{h} {largest} "]
)
def test_pnm(tmp_path: Path, channels: int, header: str) -> None:
    values = deep(channels)
    kinds = {1: ("P2", "P5"), 3: ("P3", "P6")}[channels]
    data = {kinds[0]: " ".join(map(str, values.ravel())).encode(), kinds[1]: values.astype(">u2").tobytes()}
    for kind, body in data.items():
        path = tmp_path / f"{kind}.pnm"
        path.write_bytes(header.format(kind=kind, w=W, h=H, largest=65535).encode() + body)
        check(path, values)


def test_the_largest_value_that_a_pnm_names_is_full_scale(tmp_path: Path) -> None:
    values = deep(1, largest=4095)
    path = tmp_path / "a.pgm"
    path.write_bytes(f"P5 {W} {H} 4095\n".encode() + values.astype(">u2").tobytes())
    found = read_image(path)
    np.testing.assert_allclose(found.floats()[0], values[..., 0] / 4095, atol=1e-5)
    assert found.floats().max() == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (deep(1).astype(">u2").tobytes()[:-1], "ends before its pixels"),
        (np.full(H * W, 5000, ">u2").tobytes(), "above the largest"),
    ],
)
def test_damaged_pnm(tmp_path: Path, body: bytes, words: str) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(f"P5 {W} {H} 4095\n".encode() + body)
    with pytest.raises(ImageError, match=words):
        read_image(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000(tmp_path: Path, channels: int) -> None:
    for values in (deep(channels), deep(channels, largest=255).astype(np.uint8)):
        path = tmp_path / "a.jp2"
        path.write_bytes(imagecodecs.jpeg2k_encode(np.squeeze(values), level=0, reversible=True))
        check(path, values)


def test_jpeg_2000_of_another_depth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    values = deep(1, largest=4095)[..., 0]
    path.write_bytes(imagecodecs.jpeg2k_encode(values, level=0, reversible=True, bitspersample=12))
    with pytest.raises(ImageError, match="stores 12-bit values"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["gif", "pgm", "ppm", "pbm", "jfif", "jpe"])
def test_further_formats_and_names(tmp_path: Path, suffix: str) -> None:
    grey = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (4, 3)))
    path = tmp_path / f"a.{suffix}"
    formats = {"jfif": "JPEG", "jpe": "JPEG", "pbm": "PPM"}
    (grey.convert("1") if suffix == "pbm" else grey).save(path, formats.get(suffix))
    found = read_image(path)
    np.testing.assert_allclose(found.pixels[0].astype(int), np.asarray(grey).astype(int), atol=6)
