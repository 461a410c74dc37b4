from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.image import read_image
from blemish.data.maps import encode_map, read_map, stored_values, write_image, write_map
from blemish.errors import FileError, ImageError


def test_a_full_disk_while_a_map_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(FileError, match="the disk is full"):
        write_map(tmp_path / "m.png", np.ones((2, 2)), full_scale=1)
    assert list(tmp_path.iterdir()) == []


def test_a_map_comes_back_within_half_a_count(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((11, 6)).astype(np.float32) * 0.7
    write_map(tmp_path / "m.png", values, full_scale=2.0, measure="1 - ssim")
    back = read_map(tmp_path / "m.png")
    assert (back.shape, back.dtype) == ((11, 6), np.float32)
    assert np.abs(back - values).max() <= 2.0 / 65535 / 2 + 1e-7
    with Image.open(tmp_path / "m.png") as image:
        assert image.info["blemish:measure"] == "1 - ssim"
        assert float(image.info["blemish:scale"]) == 2.0 / 65535
        assert image.mode == "I;16"


def test_a_map_above_full_scale_is_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0.0, 1.0, 5.0]])
    write_map(tmp_path / "m.png", values, full_scale=1.0)
    np.testing.assert_allclose(read_map(tmp_path / "m.png"), values, atol=5 / 65535)
    assert read_map(tmp_path / "m.png").max() == 5.0


def test_equal_full_scale_gives_equal_counts(tmp_path: Path) -> None:
    write_map(tmp_path / "a.png", np.array([[0.25, 0.5]]), full_scale=1.0)
    write_map(tmp_path / "b.png", np.array([[0.25, 0.0]]), full_scale=1.0)
    counts = [read_image(tmp_path / name).pixels[0, 0, 0] for name in ("a.png", "b.png")]
    assert counts[0] == counts[1] == round(0.25 * 65535)


def test_a_map_of_zeros_stays_zero(tmp_path: Path) -> None:
    write_map(tmp_path / "m.png", np.zeros((3, 4)), full_scale=1e-6)
    assert not read_map(tmp_path / "m.png").any()


@pytest.mark.parametrize(
    ("values", "full_scale"),
    [(np.full((2, 2), np.nan), 1), (-np.ones((2, 2)), 1), (np.ones((1, 2, 2)), 1), (np.ones((2, 2)), 0)],
)
def test_an_invalid_map_is_not_written(tmp_path: Path, values: Any, full_scale: float) -> None:
    with pytest.raises(ValueError, match=r"a map has|full_scale"):
        write_map(tmp_path / "m.png", values, full_scale=full_scale)
    assert not (tmp_path / "m.png").exists()


def test_an_image_without_scale_is_no_map(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.uint16)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((3, 3), np.uint16)).save(tmp_path / "grey.tif")
    for name in ("grey.png", "grey.tif"):
        with pytest.raises(FileError, match="no map of Blemish"):
            read_map(tmp_path / name)
    with pytest.raises(ImageError, match="does not exist"):
        read_map(tmp_path / "none.png")


def test_an_edited_scale_is_refused(tmp_path: Path) -> None:
    write_map(tmp_path / "m.png", np.ones((2, 2)), full_scale=1.0)
    with Image.open(tmp_path / "m.png") as image:
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_text("blemish:scale", "much")
        image.save(tmp_path / "e.png", pnginfo=text)
    with pytest.raises(FileError, match="'much'"):
        read_map(tmp_path / "e.png")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_image_comes_back_in_8_bits(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).random((channels, 5, 7))
    write_image(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, np.rint(pixels * 255))


def test_other_channel_counts_are_shown_by_their_mean(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((6, 5, 7))
    write_image(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png").pixels, np.rint(pixels.mean(0) * 255)[np.newaxis]
    )


def test_values_outside_the_range_are_clipped(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[[-1.0, 2.0]]]))
    assert read_image(tmp_path / "a.png").pixels.tolist() == [[[0, 255]]]


@pytest.mark.parametrize("full_scale", [0.1, 1.0])
def test_an_encoded_map_is_read_as_the_written_one(tmp_path: Path, full_scale: float) -> None:
    values = np.random.default_rng(0).random((64, 80)).astype(np.float32)
    write_map(tmp_path / "written.png", values, full_scale=full_scale)
    (tmp_path / "encoded.png").write_bytes(encode_map(values, full_scale=full_scale))
    assert (read_map(tmp_path / "encoded.png") == read_map(tmp_path / "written.png")).all()
    stored = stored_values(values, full_scale=full_scale)
    assert stored.dtype == np.float32
    assert (read_map(tmp_path / "encoded.png") == stored).all()
    assert (stored != values).any()
    with Image.open(tmp_path / "encoded.png") as image:  # every checksum, too
        image.verify()
    with pytest.raises(ValueError, match="a map has"):
        encode_map(-values, full_scale=full_scale)
