from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from blemish.data import jpeg_2000
from blemish.data.image import read_image
from blemish.data.jpeg_2000 import Jpeg2000Image
from blemish.data.windowed import open_windowed
from blemish.data.windowed_image import DecodedCache
from blemish.errors import ImageError

pytestmark = pytest.mark.filterwarnings("error::rasterio.errors.NotGeoreferencedWarning")

H, W = 150, 210


def pixels(channels: int, kind: str, largest: int | None = None) -> NDArray[Any]:
    """(H, W, C)."""
    top = largest or np.iinfo(kind).max
    return np.random.default_rng(channels).integers(0, top, (H, W, channels), kind, endpoint=True)


def write(path: Path, values: NDArray[Any], tile: tuple[int, int] = (64, 64), **settings: Any) -> Path:
    """Write (H, W, C) without loss, in tiles of (height, width)."""
    height, width, channels = values.shape
    given = {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"} | settings
    given |= {"count": channels, "height": height, "width": width, "dtype": values.dtype}
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", "JP2OpenJPEG", BLOCKYSIZE=tile[0], BLOCKXSIZE=tile[1], **given) as file:
            if channels > 1:
                file.colorinterp = colours[:channels]
            file.write(values.transpose(2, 0, 1))
    return path


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [(64, 64), (40, 100), (H, W)])
def test_windows_are_those_of_the_whole_image(
    tmp_path: Path, kind: str, channels: int, tile: tuple[int, int]
) -> None:
    path = write(tmp_path / "a.jp2", pixels(channels, kind), tile=tile)
    opened, whole = open_windowed(path), read_image(path)
    assert isinstance(opened, Jpeg2000Image)
    assert (opened.channels, opened.height, opened.width) == (channels, H, W)
    assert (opened.dtype, opened.full_scale) == (whole.pixels.dtype, np.iinfo(kind).max)
    cache = DecodedCache(2**20)
    for top, left, height, width in ((0, 0, H, W), (60, 50, 10, 30), (140, 200, 10, 10), (64, 0, 64, 64)):
        found = opened.read(top, left, height, width, cache)
        assert_array_equal(found.values, whole.pixels[:, top : top + height, left : left + width])
        assert found.absent is None


def test_only_blocks_that_a_window_touches_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_windowed(write(tmp_path / "a.jp2", pixels(1, "uint8")))
    decoded = []
    decode = Jpeg2000Image._decode
    monkeypatch.setattr(
        Jpeg2000Image, "_decode", lambda self, *place: (decoded.append(place[1:]), decode(self, *place))[1]
    )
    cache = DecodedCache(2**20)
    opened.read(60, 10, 10, 10, cache)
    opened.read(60, 10, 10, 10, cache)
    assert decoded == [(0, 0), (1, 0)]


def test_twelve_bits_are_the_full_scale_of_such_a_file(tmp_path: Path) -> None:
    values = pixels(1, "uint16", 4095)
    opened = open_windowed(write(tmp_path / "a.jp2", values, NBITS=12))
    assert opened.full_scale == 4095
    assert_array_equal(opened.read(0, 0, H, W, DecodedCache(0)).values[0], values[..., 0])


def test_alpha_is_read_with_the_whole_image(tmp_path: Path) -> None:
    values = pixels(4, "uint8")
    values[:20, :, 3] = 0
    opened = open_windowed(write(tmp_path / "a.jp2", values))
    assert not isinstance(opened, Jpeg2000Image)
    found = opened.read(0, 0, 30, 30, DecodedCache(2**20))
    assert found.absent is not None
    assert (opened.channels, found.absent[:20].all()) == (3, True)


def test_without_rasterio_it_is_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = pixels(3, "uint8")
    path = write(tmp_path / "a.jp2", values)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    opened = open_windowed(path)
    assert not isinstance(opened, Jpeg2000Image)
    assert_array_equal(
        opened.read(3, 4, 50, 60, DecodedCache(2**20)).values, values[3:53, 4:64].transpose(2, 0, 1)
    )


def test_a_file_that_gdal_does_not_open_is_left_to_the_whole_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = pixels(1, "uint8")
    path = write(tmp_path / "a.jp2", values)
    monkeypatch.setattr(jpeg_2000, "_DRIVER", "PNG")
    found = open_windowed(path).read(0, 0, H, W, DecodedCache(2**20))
    assert_array_equal(found.values[0], values[..., 0])


@pytest.mark.parametrize("length", [60, 0.5])
def test_a_damaged_file_is_one_line(tmp_path: Path, length: float, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.jp2", pixels(3, "uint8"))
    data = path.read_bytes()
    path.write_bytes(data[: int(length if length > 1 else length * len(data))])
    with pytest.raises(ImageError, match=r"a\.jp2: "):
        open_windowed(path).read(0, 0, H, W, DecodedCache(2**20))
    assert capfd.readouterr() == ("", "")
