from __future__ import annotations

import pytest

from blemish.inspection.scene_scorer import block_side, overview_reduction, scene_block_side


@pytest.mark.parametrize("stride", [1, 16, 24, 33, 64, 128])
@pytest.mark.parametrize("parts", [(1, 128), (16, 96), (4, 64), (256, 32)])
def test_blocks_hold_whole_squares_and_waste_little(stride: int, parts: tuple[int, int]) -> None:
    side = block_side(stride, *parts)
    assert side >= 512
    assert all(side % part == 0 for part in parts)
    assert (side / stride + 1) ** 2 <= 1.1 * (side / stride) ** 2


@pytest.mark.parametrize("longest", [1, 1999, 2000, 2001, 5000, 20_000, 64_001])
def test_overviews_stay_within_their_side(longest: int) -> None:
    reduction = overview_reduction((longest // 2, longest))
    assert -(-longest // reduction) <= 2000
    assert reduction == 1 or -(-longest // (reduction // 2)) > 2000


def test_the_blocks_of_a_scene_hold_whole_squares_and_whole_pixels_of_the_overview() -> None:
    side = scene_block_side((20_000, 5_000), 16, 96)
    assert side % 96 == side % overview_reduction((20_000, 5_000)) == 0
    assert side == scene_block_side((20_000, 20_000), 16, 96)
