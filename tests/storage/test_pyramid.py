from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.errors import FileError, Stopped
from blemish.storage import pyramid
from blemish.storage.pyramid import Raster, build_pyramid, halved, level_sizes, open_levels, windows


def raster_of(values: NDArray[np.float32]) -> Raster:
    return Raster(*values.shape, lambda top, left, h, w: values[:, top : top + h, left : left + w])


def random_values(shape: tuple[int, ...], hole: bool = False) -> NDArray[np.float32]:
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    if hole:
        values[:, : shape[1] // 3, : shape[2] // 4] = np.nan
    return values


def reference(values: NDArray[np.float32], step: int) -> NDArray[np.float64]:
    """Means over step × step pixels, by a loop."""
    channels, height, width = values.shape
    result = np.full((channels, -(-height // step), -(-width // step)), np.nan)
    for y in range(result.shape[1]):
        for x in range(result.shape[2]):
            part = values[:, y * step : (y + 1) * step, x * step : (x + 1) * step]
            for channel in range(channels):
                present = part[channel][np.isfinite(part[channel])]
                result[channel, y, x] = present.astype(np.float64).mean() if len(present) else np.nan
    return result


def test_a_level_is_the_mean_of_the_present_pixels() -> None:
    values = random_values((2, 31, 45), hole=True)
    np.testing.assert_allclose(halved(values), reference(values, 2), rtol=1e-6)


def test_levels_of_a_whole_image_are_its_area_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "TILE", 32)
    monkeypatch.setattr(pyramid, "_WINDOW", 64)
    monkeypatch.setattr(level_sizes, "__defaults__", (32,))
    values = random_values((1, 64, 128))
    levels = build_pyramid(raster_of(values), tmp_path / "a")
    assert [level.size for level in levels] == [(64, 128), (32, 64), (16, 32)]
    for number, level in enumerate(levels):
        np.testing.assert_allclose(level.read(0, 0, *level.size), reference(values, 2**number), rtol=1e-5)
    again = open_levels(tmp_path / "a", (64, 128))
    assert np.array_equal(again[2].read(3, 5, 9, 11), levels[2].read(3, 5, 9, 11))


def test_windows_of_any_size_give_the_same_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level_sizes, "__defaults__", (32,))
    values = random_values((1, 131, 77), hole=True)
    whole = halved(halved(halved(values)))
    for side in (32, 64, 256):
        monkeypatch.setattr(pyramid, "_WINDOW", side)
        levels = build_pyramid(raster_of(values), tmp_path / str(side), whole=False)
        assert [level.size for level in levels] == [(131, 77), (66, 39), (33, 20), (17, 10)]
        np.testing.assert_array_equal(levels[3].read(0, 0, 17, 10), whole)


def test_the_largest_keeps_a_single_bright_pixel() -> None:
    values = np.zeros((1, 9, 9), np.float32)
    values[0, 8, 3] = 5
    assert halved(halved(values, "max"), "max").max() == 5
    assert halved(halved(values)).max() == 5 / 4  # the last row of pixels has no second one


def test_windows_cover_an_area_once() -> None:
    count = np.zeros((70, 33), int)
    for top, left, height, width in windows((70, 33), 32):
        count[top : top + height, left : left + width] += 1
    assert (count == 1).all()


def test_no_window_is_larger_than_it_has_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not depend on the size: no read is larger than a window."""
    monkeypatch.setattr(level_sizes, "__defaults__", (32,))
    monkeypatch.setattr(pyramid, "_WINDOW", 64)
    values, largest = random_values((1, 300, 500)), 0

    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        nonlocal largest
        largest = max(largest, height * width)
        return values[:, top : top + height, left : left + width]

    build_pyramid(Raster(1, 300, 500, read), tmp_path)
    assert largest == 64 * 64


def test_a_stop_ends_the_work(tmp_path: Path) -> None:
    def watch() -> None:
        raise Stopped("stopped")

    with pytest.raises(Stopped):
        build_pyramid(raster_of(random_values((1, 40, 40))), tmp_path, watch=watch)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __setitem__(self, place: Any, values: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pyramid.zarr, "open_array", lambda *_, **__: Full())
    monkeypatch.setattr(pyramid, "_of_array", lambda *_: None)
    with pytest.raises(FileError, match="the disk is full"):
        build_pyramid(raster_of(random_values((1, 40, 40))), tmp_path)
