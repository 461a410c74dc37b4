"""Decoding within the limits of the server: the reader of files, with errors that name the image and no path."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import read_image
from blemish.errors import ImageError
from blemish.serve.contracts import Frame
from blemish.serve.decode import NoImageError, TooManyPixelsError, decode
from tests.serve.serving import png

Draw = Callable[..., NDArray[np.uint8]]


def decoded(frame: Frame, spool: Path, max_pixels: int = 10_000) -> NDArray[np.generic]:
    return decode(frame, channels=1, max_pixels=max_pixels, spool=spool).pixels


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WebP"])
def test_an_upload_is_read_as_the_file_is(draw: Draw, tmp_path: Path, kind: str) -> None:
    written = io.BytesIO()
    Image.fromarray(draw(1)).save(written, kind)
    path = tmp_path / "image"
    path.write_bytes(written.getvalue())
    spool = tmp_path / "spool"
    spool.mkdir()
    found = decode(Frame(written.getvalue(), "../a.xyz"), channels=1, max_pixels=10_000, spool=spool)
    expected = read_image(path)
    assert (found.pixels == expected.pixels).all()
    assert found.pixels.dtype == expected.pixels.dtype
    assert str(found.path) == "../a.xyz"
    assert list(spool.iterdir()) == []


def test_arrays_of_cameras_are_taken_in_their_depth(tmp_path: Path) -> None:
    for pixels in (np.zeros((4, 6), np.uint16), np.zeros((4, 6), np.uint8)):
        found = decoded(Frame(pixels, "camera"), tmp_path)
        assert found.shape == (1, 4, 6)
        assert found.dtype == pixels.dtype
    with pytest.raises(TooManyPixelsError, match="camera: has 200 × 100 pixels"):
        decoded(Frame(np.zeros((100, 200), np.uint8), "camera"), tmp_path)


def test_errors_name_the_image_and_leave_nothing_behind(draw: Draw, tmp_path: Path) -> None:
    content = png(draw(1))
    floats = io.BytesIO()
    tifffile.imwrite(floats, np.full((8, 8), 7, np.float32))
    for wrong, kind, words in (
        (b"", NoImageError, "is empty"),
        (b"hello", NoImageError, "is not a PNG"),
        (content[:-30], ImageError, "damaged"),
        (floats.getvalue(), ImageError, "outside 0..1"),
    ):
        with pytest.raises(kind, match=words) as error:
            decoded(Frame(wrong, "part 7"), tmp_path)
        assert str(error.value).startswith("part 7: ")
        assert str(tmp_path) not in str(error.value)
    with pytest.raises(TooManyPixelsError, match=r"part 7: has 48 × 40 pixels, more than the 100 allowed"):
        decoded(Frame(content, "part 7"), tmp_path, max_pixels=100)
    assert list(tmp_path.iterdir()) == []
