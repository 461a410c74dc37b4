from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from blemish.data import scene_splits as bands
from blemish.data.scene_reader import SceneReader
from blemish.data.scene_splits import calibration_squares, divided, sides_for, squares
from blemish.data.scenes import find_scenes
from blemish.errors import ImageError

Painting = Callable[..., Path]


def one_block(size: tuple[int, int], side: int) -> int:
    """Blocks so large that a scene is one."""
    return side * (max(size) // side + 1)


@pytest.mark.parametrize(("width", "patch"), [(512, 32), (20_000, 32), (96, 32), (400, 128), (97, 16)])
def test_bands_cover_the_scene_and_hold_a_patch_each(width: int, patch: int) -> None:
    found = bands.bands(width, patch)
    assert found is not None
    assert (found.train.start, found.calibration.stop) == (0, width)
    assert found.train.stop == found.validation.start
    assert found.validation.stop == found.calibration.start
    assert all(part.stop - part.start >= patch for part in found)


def test_shares_of_a_wide_scene() -> None:
    found = bands.bands(1000, 32)
    assert found is not None
    assert [part.stop - part.start for part in found] == [600, 150, 250]


@pytest.mark.parametrize("size", [(64, 94), (30, 160)])
def test_a_scene_too_small_for_its_bands_is_refused(
    painting: Painting, tmp_path: Path, size: tuple[int, int]
) -> None:
    (scene,) = find_scenes(painting(tmp_path / "small", height=size[0], width=size[1]))
    with pytest.raises(
        ImageError, match=f"small: is {size[1]} × {size[0]} pixels, too small for a patch of 32"
    ):
        divided(SceneReader(scene), 32)


def test_squares_are_whole_apart_inside_and_on_the_grid_of_an_inspection() -> None:
    found = squares([100, 70], [slice(60, 130), slice(10, 64)], 32)
    covered = np.zeros((2, 100, 200), int)
    for square in found:
        assert square.rows.stop - square.rows.start == square.columns.stop - square.columns.start == 32
        assert square.rows.start % 32 == square.columns.start % 32 == 0
        covered[square.scene, square.rows, square.columns] += 1
    assert covered.max() == 1
    assert covered[0].sum() == 6 * 32**2
    assert not covered[0, :, :60].any()
    assert not covered[0, :, 130:].any()
    assert covered[1].sum() == 2 * 32**2


def test_squares_are_as_large_as_the_false_reject_rate_allows(painting: Painting, tmp_path: Path) -> None:
    readers = [SceneReader(scene) for scene in find_scenes(painting(tmp_path / "eve", height=128, width=512))]
    columns = [slice(384, 512)]
    assert sides_for(32) == (128, 96, 64, 32)
    for needed, side, count in [(1, 128, 1), (2, 64, 4), (5, 32, 16), (99, 32, 16)]:
        found = calibration_squares(
            readers, columns, sides=sides_for(32), needed=needed, block_side=one_block
        )
        assert (found[0], len(found[1])) == (side, count)


def test_mostly_absent_squares_are_skipped(painting: Painting, tmp_path: Path) -> None:
    folder = painting(tmp_path / "eve", height=64, width=128)
    for name in ("rgb.png", "xray.tif"):
        (folder / name).unlink()
    pixels = np.full((64, 128), np.nan, np.float32)
    pixels[:32, 64:96] = 0.5  # one square in full
    pixels[32:, 64:72] = 0.5  # a quarter of another
    tifffile.imwrite(folder / "infrared.tif", pixels)
    tifffile.imwrite(folder / "other.tif", np.full((64, 128), np.nan, np.float32))
    readers = [SceneReader(scene) for scene in find_scenes(folder)]
    _, found = calibration_squares(readers, [slice(64, 128)], sides=(32,), needed=4, block_side=one_block)
    assert [(square.rows, square.columns) for square in found] == [(slice(0, 32), slice(64, 96))]


def test_many_squares_are_thinned_to_evenly_spaced_blocks(
    painting: Painting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [SceneReader(scene) for scene in find_scenes(painting(tmp_path / "eve", height=64, width=320))]

    def found(most: int) -> list[tuple[int, int]]:
        monkeypatch.setattr(bands, "MOST_SQUARES", most)
        _, chosen = calibration_squares(
            readers, [slice(0, 320)], sides=(32,), needed=1, block_side=lambda size, side: 2 * side
        )
        return [(square.rows.start // 32, square.columns.start // 32) for square in chosen]

    def block(number: int) -> set[tuple[int, int]]:
        return {(row, 2 * number + column) for row in (0, 1) for column in (0, 1)}

    assert found(20) == [(row, column) for row in (0, 1) for column in range(10)]
    assert set(found(8)) == block(0) | block(4)
    assert set(found(9)) == block(0) | block(2) | block(4)
    assert set(found(4)) == block(0)
