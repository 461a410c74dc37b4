from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.errors import UsageError
from blemish.preprocessing.tiling import Blender, TilePlan, smallest_side, tile_starts


def blend(plan: TilePlan, pixels: NDArray[np.float32], batch: int = 3) -> NDArray[np.float32]:
    blender = Blender(plan, pixels.shape[0])
    for indices, tiles in plan.tiles(pixels, batch=batch):
        blender.add(indices, tiles)
    return blender.result()


@pytest.mark.parametrize("tile", [1, 4, 7])
@pytest.mark.parametrize("length", [7, 8, 23])
def test_starts_cover_everything_once_the_last_flush(length: int, tile: int) -> None:
    for stride in range(1, tile + 1):
        starts = tile_starts(length, tile, stride)
        covered = np.zeros(length, int)
        for start in starts:
            covered[start : start + tile] += 1
        assert covered.min() >= 1
        assert starts[0] == 0
        assert starts[-1] == length - tile
        assert len(set(starts)) == len(starts)
        assert np.diff(starts).max(initial=0) <= stride


def test_starts_refuse_gaps_and_short_lengths() -> None:
    with pytest.raises(ValueError, match="holds no tile"):
        tile_starts(3, 4, 2)
    for stride in (0, 5):
        with pytest.raises(ValueError, match="stride"):
            tile_starts(10, 4, stride)


SIZES = [(16, 16), (37, 53), (16, 41), (10, 40), (8, 8), (9, 15), (33, 17)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [(16, 16), (8, 8), (5, 11), (15, 15)])
def test_tiles_put_together_give_the_image(size: tuple[int, int], stride: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).random((3, *size), np.float32)
    blended = blend(TilePlan(size, (16, 16), stride), pixels)
    assert (blended.shape, blended.dtype) == (pixels.shape, np.float32)
    np.testing.assert_allclose(blended, pixels, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_constant_tiles_give_exactly_the_constant(size: tuple[int, int]) -> None:
    plan = TilePlan(size, (16, 16), (9, 7))
    for value in (0.1, 1.0, 3e4):
        blended = blend(plan, np.full((2, *size), value, np.float32))
        np.testing.assert_array_equal(blended, np.float32(value))


def test_tiles_may_be_oblong() -> None:
    pixels = np.random.default_rng(0).random((1, 30, 50), np.float32)
    plan = TilePlan((30, 50), (8, 20), (4, 10))
    _, tiles = next(plan.tiles(pixels, batch=len(plan)))
    assert tiles.shape == (len(plan), 1, 8, 20)
    np.testing.assert_allclose(blend(plan, pixels), pixels, atol=1e-6)


def test_disagreeing_tiles_blend_without_a_seam() -> None:
    plan = TilePlan((16, 100), (16, 32), (16, 16))
    blender = Blender(plan, 1)
    values = np.random.default_rng(0).random(len(plan))
    for index, value in enumerate(values):
        blender.add(slice(index, index + 1), np.full((1, 1, 16, 32), value))
    row = blender.result()[0, 8]
    # half a cosine from one tile's value to the next: its steepest step over 16 pixels is pi/32
    steepest = np.abs(np.diff(values)).max() * np.pi / 32
    assert np.abs(np.diff(row)).max() <= steepest * 1.5
    assert row.min() >= values.min()
    assert row.max() <= values.max()


def test_a_tile_counts_least_at_its_border() -> None:
    plan = TilePlan((8, 12), (8, 8), (8, 4))
    blender = Blender(plan, 1)
    blender.add(slice(0, 2), np.stack([np.zeros((1, 8, 8)), np.ones((1, 8, 8))]))
    row = blender.result()[0, 0]
    assert (row[:4] == 0).all()
    assert (row[8:] == 1).all()
    assert (np.diff(row[3:9]) > 0).all()


def test_batches_do_not_change_the_blend() -> None:
    pixels = np.random.default_rng(0).random((2, 37, 53), np.float32)
    plan = TilePlan((37, 53), (16, 16), (7, 7))
    first = blend(plan, pixels, batch=1)
    for batch in (2, 5, 1000):
        np.testing.assert_array_equal(blend(plan, pixels, batch=batch), first)


def test_batches_hold_at_most_what_was_asked_and_every_tile_once() -> None:
    plan = TilePlan((37, 53), (16, 16), (7, 7))
    pixels = np.arange(37 * 53, dtype=np.float32).reshape(1, 37, 53)
    seen = []
    for indices, tiles in plan.tiles(pixels, batch=4):
        assert 1 <= len(tiles) <= 4
        for index, tile in zip(range(indices.start, indices.stop), tiles, strict=True):
            row, column = plan.boxes[index]
            assert tile[0, 0, 0] == row * 53 + column
            seen.append(index)
    assert seen == list(range(len(plan))) == list(range(len(plan.boxes)))


def test_small_images_are_filled_up_by_reflection_about_their_border_pixels() -> None:
    plan = TilePlan((4, 8), (8, 8), (8, 8))
    pixels = np.arange(32, dtype=np.float32).reshape(1, 4, 8)
    padded = plan.pad(pixels)
    assert padded.shape == (1, 8, 8)
    np.testing.assert_array_equal(padded[0, :, 0], [16, 8, 0, 8, 16, 24, 16, 8])
    np.testing.assert_array_equal(padded[:, 2:6], pixels)


def test_the_smallest_side_works_and_one_less_is_refused_with_numbers() -> None:
    for tile in (1, 2, 3, 16, 17):
        side = smallest_side(tile)
        pixels = np.random.default_rng(0).random((1, side, side), np.float32)
        np.testing.assert_allclose(blend(TilePlan((side, side), (tile, tile), (tile, tile)), pixels), pixels)
    with pytest.raises(UsageError, match=r"40 × 7 pixels is too small for tiles of 16 × 16; .* 8 × 8"):
        TilePlan((7, 40), (16, 16), (8, 8))


def test_wrong_shapes_and_lost_or_doubled_tiles_are_errors() -> None:
    plan = TilePlan((16, 24), (16, 16), (8, 8))
    blender = Blender(plan, 1)
    with pytest.raises(ValueError, match="the plan is for pixels"):
        plan.pad(np.zeros((1, 24, 16)))
    with pytest.raises(ValueError, match="shape"):
        blender.add(slice(0, 1), np.zeros((1, 2, 16, 16)))
    blender.add(slice(0, 1), np.zeros((1, 1, 16, 16)))
    with pytest.raises(ValueError, match="twice"):
        blender.add(slice(0, 1), np.zeros((1, 1, 16, 16)))
    with pytest.raises(ValueError, match="1 of 2 tiles"):
        blender.result()


@pytest.mark.parametrize("size", [(37, 53), (16, 41), (10, 40), (100, 33)])
@pytest.mark.parametrize("stride", [(16, 16), (8, 8), (5, 11)])
@pytest.mark.parametrize("side", [7, 24])
def test_a_block_blended_from_its_window_is_that_of_the_whole(
    size: tuple[int, int], stride: tuple[int, int], side: int
) -> None:
    # Tiles disagree here: each is multiplied by a number that its content decides.
    def damaged(plan: TilePlan, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        blender = Blender(plan, 1)
        for indices, tiles in plan.tiles(pixels, batch=5):
            blender.add(indices, tiles * np.sin(tiles.sum(axis=(1, 2, 3), keepdims=True)))
        return blender.result()

    pixels = np.random.default_rng(0).random((1, *size), np.float32)
    plan = TilePlan(size, (16, 16), stride)
    whole = damaged(plan, pixels)
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            rows, columns = slice(top, min(top + side, size[0])), slice(left, min(left + side, size[1]))
            over, across = plan.around(rows, columns)
            window = pixels[:, over, across]
            block = damaged(TilePlan(window.shape[1:], plan.tile, plan.stride), window)
            inside = block[
                :,
                rows.start - over.start : rows.stop - over.start,
                columns.start - across.start : columns.stop - across.start,
            ]
            np.testing.assert_allclose(inside, whole[:, rows, columns], atol=1e-6)
            # Nothing is read that no tile over the block needs.
            assert over.start > rows.start - 16 - stride[0]
            assert over.stop < rows.stop + 16 + stride[0]
