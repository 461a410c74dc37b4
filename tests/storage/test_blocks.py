from __future__ import annotations

import numpy as np
import pytest

from blemish.storage.blocks import Block, block_at, blocks


@pytest.mark.parametrize(("size", "side"), [((5, 7), 4), ((8, 8), 8), ((3, 20), 5)])
def test_blocks_cover_an_area_once(size: tuple[int, int], side: int) -> None:
    covered = np.zeros(size, int)
    for block in blocks(size, side):
        covered[block.rows, block.columns] += 1
        assert max(block.shape) <= side
    assert (covered == 1).all()


def test_every_pixel_has_its_block() -> None:
    for block in blocks((9, 14), 4):
        for top in range(block.rows.start, block.rows.stop):
            for left in range(block.columns.start, block.columns.stop):
                assert block_at((9, 14), 4, top, left) == block


def test_within_a_window_and_reduced() -> None:
    block = Block(1, 0, slice(4, 8), slice(0, 4))
    assert block.within(slice(2, 9), slice(0, 9)) == (slice(2, 6), slice(0, 4))
    assert block.reduced(4) == Block(1, 0, slice(1, 2), slice(0, 1))
