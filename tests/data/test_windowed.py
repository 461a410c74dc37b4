from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from blemish.data import windowed as windows
from blemish.data.windowed import Mosaic, open_windowed, same_field
from blemish.data.windowed_image import DecodedCache, WindowedImage
from blemish.errors import ImageError

H, W = 70, 90
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 65536, (H, W), np.uint16)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
PLANES = RNG.integers(0, 65536, (5, H, W), np.uint16)
AT = [(0, 0, H, W), (5, 7, 20, 30), (H - 9, W - 3, 9, 3), (17, 30, 1, 1)]


def values(opened: WindowedImage, top: int, left: int, height: int, width: int) -> NDArray[Any]:
    return opened.read(top, left, height, width, DecodedCache(2**20)).values


@pytest.mark.parametrize(
    ("stored", "expected", "options"),
    [
        (GREY, GREY[None], {}),
        (GREY, GREY[None], {"tile": (32, 16)}),
        (GREY, GREY[None], {"tile": (32, 16), "compression": "zlib", "predictor": True}),
        (GREY, GREY[None], {"rowsperstrip": 7, "compression": "lzw"}),
        (GREY, GREY[None], {"tile": (32, 16), "bigtiff": True, "byteorder": ">"}),
        (GREY, 65535 - GREY[None], {"photometric": "miniswhite"}),
        (RGB, RGB.transpose(2, 0, 1), {"tile": (32, 32), "compression": "zlib"}),
        (RGB.transpose(2, 0, 1), RGB.transpose(2, 0, 1), {"planarconfig": "separate", "photometric": "rgb"}),
        (
            RGB.transpose(2, 0, 1),
            RGB.transpose(2, 0, 1),
            {"planarconfig": "separate", "photometric": "rgb", "tile": (32, 32)},
        ),
        (PLANES, PLANES, {"photometric": "minisblack", "metadata": {"axes": "CYX"}}),
        (PLANES, PLANES, {"photometric": "minisblack", "metadata": {"axes": "CYX"}, "tile": (32, 32)}),
        (GREY / np.float32(7e4), GREY[None] / np.float32(7e4), {"tile": (32, 32)}),
        (GREY.astype(np.int32) - 5, GREY[None].astype(np.int32) - 5, {"tile": (32, 32)}),
    ],
)
def test_windows_of_a_tiff_are_cut_from_the_whole(
    tmp_path: Path, stored: NDArray[Any], expected: NDArray[Any], options: dict[str, Any]
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(stored), **options)
    opened = open_windowed(path)
    assert (opened.channels, opened.height, opened.width) == expected.shape
    assert opened.cached_bytes == 0
    for top, left, height, width in AT:
        cut = expected[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(values(opened, top, left, height, width), cut)
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(values(again, 1, 2, 3, 4), expected[:, 1:4, 2:6])


@pytest.mark.parametrize("sub", [True, False])
def test_the_largest_level_of_a_pyramid_is_read(tmp_path: Path, sub: bool) -> None:
    path = tmp_path / "a.tif"
    tile = {"tile": (32, 32), "photometric": "minisblack", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(GREY, subifds=1 if sub else 0, **tile)
        tiff.write(GREY[::2, ::2].copy(), **tile)
    np.testing.assert_array_equal(values(open_windowed(path), 0, 0, H, W), GREY[None])


def test_pages_of_different_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(GREY, photometric="minisblack", metadata=None)
        tiff.write(GREY[:, :40].copy(), photometric="minisblack", metadata=None)
    with pytest.raises(ImageError, match=r"a\.tif: holds 2 pages that are not marked as channels"):
        open_windowed(path)


def test_tiles_in_jpeg_are_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    ramp = np.broadcast_to(np.array([200, 100, 50], np.uint8), (H, W, 3)).copy()
    tifffile.imwrite(path, ramp, tile=(32, 32), compression="jpeg", photometric="rgb")
    got = values(open_windowed(path), 3, 3, 60, 80)
    np.testing.assert_allclose(got, ramp.transpose(2, 0, 1)[:, 3:63, 3:83], atol=3)


def test_formats_without_parts_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    opened, cache = open_windowed(path), DecodedCache(2**20)
    assert opened.cached_bytes == RGB.size
    for top, left, height, width in AT:
        window = opened.read(top, left, height, width, cache).values
        np.testing.assert_array_equal(
            window, RGB.transpose(2, 0, 1)[:, top : top + height, left : left + width]
        )
        monkeypatch.setattr(windows, "read_image", None)  # from now on nothing is decoded


def test_a_tiff_of_one_large_strip_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression="zlib", rowsperstrip=H)
    monkeypatch.setattr(windows, "MAX_SEGMENT_BYTES", GREY.nbytes - 1)
    opened = open_windowed(path)
    assert opened.cached_bytes == GREY.nbytes
    np.testing.assert_array_equal(values(opened, 5, 7, 20, 30), GREY[None, 5:25, 7:37])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparent_pixels_are_absent(tmp_path: Path, suffix: str) -> None:
    path, alpha = tmp_path / f"a.{suffix}", (GREY > 30_000).astype(np.uint8) * 255
    pixels = np.dstack([RGB, alpha])
    if suffix == "png":
        Image.fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, tile=(32, 32), photometric="rgb", extrasamples=["unassalpha"])
    opened = open_windowed(path)
    window = opened.read(0, 0, H, W, DecodedCache(2**20))
    assert opened.channels == 3
    assert window.absent is not None
    np.testing.assert_array_equal(window.absent, alpha == 0)


def test_tiles_that_were_left_out_are_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tiles = iter([np.full((32, 32), 7, np.uint8), None, None, np.full((32, 32), 9, np.uint8)])
    tifffile.imwrite(path, tiles, shape=(64, 64), dtype=np.uint8, tile=(32, 32), compression="zlib")
    window = open_windowed(path).read(16, 16, 32, 32, DecodedCache(2**20))
    assert window.absent is not None
    assert window.absent[:16, 16:].all()
    assert window.absent[16:, :16].all()
    assert not window.absent[:16, :16].any()
    assert (window.values[0, :16, :16] == 7).all()


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 7, "compression": "lzw"}])
def test_a_truncated_tiff_fails_where_it_is_cut_off(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, **options)
    open_windowed(path).check()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    opened = open_windowed(path)
    np.testing.assert_array_equal(values(opened, 0, 0, 10, 10), GREY[None, :10, :10])
    with pytest.raises(ImageError, match=r"a\.tif: is truncated or damaged"):
        values(opened, H - 5, W - 5, 5, 5)
    with pytest.raises(ImageError, match="ends before its pixels"):
        opened.check()


def test_a_damaged_tile_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        start, count = tiff.pages[0].dataoffsets[-1], tiff.pages[0].databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)
    opened = open_windowed(path)
    values(opened, 0, 0, 10, 10)
    with pytest.raises(ImageError) as caught:
        values(opened, H - 2, W - 2, 2, 2)
    assert str(caught.value).startswith(f"{path}: is truncated or damaged")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"tile": (64, 64), "compression": "zlib"}, {}])
def test_a_window_does_not_take_the_memory_of_the_whole(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2048, 2048), np.uint16), **options)  # 8 MiB
    opened, cache = open_windowed(path), DecodedCache(2**17)
    opened.read(0, 0, 64, 64, cache)
    tracemalloc.start()
    try:
        for top in range(0, 2048, 256):
            opened.read(top, 1000, 64, 64, cache)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**19


def test_kept_parts_stay_within_the_limit() -> None:
    cache, made = DecodedCache(100), []

    def part(name: str) -> NDArray[Any]:
        return cache.get(name, lambda: made.append(name) or np.zeros(40, np.uint8))  # type: ignore[func-returns-value]

    for name in "abacab":  # c drops b, which was used longest ago
        part(name)
    assert made == ["a", "b", "c", "b"]
    assert cache.get("large", lambda: np.zeros(1000, np.uint8)).size == 1000
    assert cache.get("large", lambda: np.zeros(1, np.uint8)).size == 1000
    assert pickle.loads(pickle.dumps(cache)).limit == 100


def test_abutting_files_are_one_image(tmp_path: Path) -> None:
    cuts = {(1, 1): (slice(0, 30), slice(0, 50)), (1, 2): (slice(0, 30), slice(50, W))}
    cuts |= {(2, 1): (slice(30, H), slice(0, 50)), (2, 2): (slice(30, H), slice(50, W))}
    files = {place: tmp_path / f"{place[0]}_{place[1]}.tif" for place in cuts}
    for place, (rows, columns) in cuts.items():
        tifffile.imwrite(files[place], GREY[rows, columns].copy(), tile=(16, 16))
    mosaic = Mosaic(files)
    assert (mosaic.channels, mosaic.height, mosaic.width, mosaic.missing) == (1, H, W, ())
    for top, left, height, width in AT:
        np.testing.assert_array_equal(
            values(mosaic, top, left, height, width), GREY[None, top : top + height, left : left + width]
        )
    partial = Mosaic({place: path for place, path in files.items() if place != (2, 1)})
    window = partial.read(0, 0, H, W, DecodedCache(2**20))
    assert (partial.height, partial.width, partial.missing) == (H, W, ((2, 1),))
    assert window.absent is not None
    expected = np.zeros((H, W), bool)
    expected[30:, :50] = True
    np.testing.assert_array_equal(window.absent, expected)


def test_files_that_do_not_abut_are_refused(tmp_path: Path) -> None:
    for name, pixels in {"0": GREY, "1": GREY[:40], "3": GREY, "4": GREY.astype(np.uint8)}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels.copy())
    for column, problem in {
        1: "1.tif: is 40 pixels high, 0.tif in the same row is 70",
        3: "0.tif: is part of a grid without any file in column 1",
        4: "4.tif: has 1 × uint8, 0.tif has 1 × uint16",
    }.items():
        with pytest.raises(ImageError) as caught:
            Mosaic({(0, 0): tmp_path / "0.tif", (0, column): tmp_path / f"{column}.tif"})
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("coarse", "fits"),
    [
        ((50, 100), True),
        ((51, 101), True),
        ((33, 67), True),
        ((33, 66), True),
        ((50, 110), False),
        ((90, 100), False),
    ],
)
def test_one_field_at_two_resolutions(coarse: tuple[int, int], fits: bool) -> None:
    assert same_field(coarse, (100, 200)) is fits


def test_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\x00 and nothing more")
    for path in (tmp_path / "a.tif", tmp_path / "none.tif", tmp_path):
        with pytest.raises(ImageError, match=path.name):
            open_windowed(path)
