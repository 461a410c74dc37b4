"""Masks as they are drawn: several, in alpha, with the losses of JPEG, empty, inverted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.data.masks import doubt, read_mask, read_masks
from blemish.errors import ImageError

SIZE = (80, 60)


@pytest.fixture
def crack() -> NDArray[np.bool_]:
    """A thin line (60, 80)."""
    marked = np.zeros(SIZE[::-1], bool)
    marked[20:22, 5:70] = True
    return marked


def save(path: Path, marked: NDArray[np.bool_]) -> Path:
    Image.fromarray(marked.astype(np.uint8) * 255).save(path)
    return path


def test_a_jpeg_mask_is_not_wider_than_what_was_drawn(tmp_path: Path, crack: NDArray[np.bool_]) -> None:
    path = tmp_path / "mask.jpg"
    Image.fromarray(crack.astype(np.uint8) * 255).save(path, quality=75)
    with Image.open(path) as image:
        assert (np.asarray(image) != 0).sum() > 2 * crack.sum()
    np.testing.assert_array_equal(read_mask(path, size=SIZE), crack)


def test_a_mask_in_alpha_alone(tmp_path: Path, crack: NDArray[np.bool_]) -> None:
    pixels = np.zeros((*crack.shape, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[..., 3] = crack * 200
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", size=SIZE), crack)


def test_several_masks_are_one(tmp_path: Path, crack: NDArray[np.bool_]) -> None:
    other = np.roll(crack, 15, axis=0)
    paths = [save(tmp_path / "1.png", crack), save(tmp_path / "2.png", other)]
    found = read_masks(paths, size=SIZE)
    assert found is not None
    np.testing.assert_array_equal(found, crack | other)
    assert read_masks([], size=SIZE) is None


def test_masks_that_cannot_be_right_are_named(tmp_path: Path, crack: NDArray[np.bool_]) -> None:
    paths = [tmp_path / "mask.png"]
    assert doubt(paths, crack) is None
    assert doubt((), None) is None
    assert "marks nothing on an image with a defect" in str(doubt(paths, np.zeros_like(crack)))
    words = str(doubt(paths, ~crack))
    assert "marks 97 % of its image as defective; invert it" in words


def test_a_mask_that_exif_would_turn_is_named(tmp_path: Path, crack: NDArray[np.bool_]) -> None:
    path = save(tmp_path / "mask.png", crack)
    with pytest.raises(ImageError, match="turn it as EXIF turns its image"):
        read_mask(path, size=SIZE[::-1])
