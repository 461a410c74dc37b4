from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from blemish.detectors.contracts import AnomalyMaps, Floats
from blemish.detectors.scoring import ArrayReader, score_blocks, whole
from blemish.storage.blocks import blocks


class Mean:
    """Anomaly model whose map is the mean over 3 × 3 pixels, the border repeated."""

    title = "mean of the neighbours"
    takes_absent = False

    def __init__(self) -> None:
        self.windows: list[tuple[int, ...]] = []
        self.hidden: list[Sequence[slice]] = []

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        return (
            slice(max(0, rows.start - 1), min(size[0], rows.stop + 1)),
            slice(max(0, columns.start - 1), min(size[1], columns.stop + 1)),
        )

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        self.windows.append(x.shape)
        self.hidden.append(hidden)
        padded = np.pad(x.mean(0), 1, mode="edge")
        height, width = x.shape[1:]
        shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return AnomalyMaps(np.mean(shifts, axis=0, dtype=np.float32), 1 - x, own=x[:1])


@pytest.fixture
def pixels() -> Floats:
    return np.random.default_rng(0).random((2, 11, 13), np.float32)


def test_blocks_are_scored_with_the_neighbours_that_the_model_asks_for(pixels: Floats) -> None:
    model, reader = Mean(), ArrayReader(pixels)
    expected = model.maps(pixels)
    stitched = np.full((11, 13), np.nan, np.float32)
    for found in score_blocks(model, reader, blocks((11, 13), 4)):
        rows, columns = found.block.rows, found.block.columns
        stitched[rows, columns] = found.maps.anomaly
        np.testing.assert_array_equal(found.image, pixels[:, rows, columns])
        assert found.maps.reconstruction is not None
        assert found.maps.own is not None
        np.testing.assert_array_equal(found.maps.reconstruction, 1 - pixels[:, rows, columns])
        np.testing.assert_array_equal(found.maps.own, pixels[:1, rows, columns])
        assert found.maps.cross is None
        assert min(found.reading, found.computing) >= 0
    np.testing.assert_array_equal(stitched, expected.anomaly)
    assert max(model.windows[1:]) == (2, 6, 6)


def test_an_image_is_one_block(pixels: Floats) -> None:
    model, reader = Mean(), ArrayReader(pixels)
    (found,) = score_blocks(model, reader, [whole(reader)])
    np.testing.assert_array_equal(found.maps.anomaly, model.maps(pixels).anomaly)
    assert model.windows[0] == pixels.shape == (reader.channels, reader.height, reader.width)


def test_hidden_channels_are_handed_to_the_model(pixels: Floats) -> None:
    model, reader = Mean(), ArrayReader(pixels)
    list(score_blocks(model, reader, blocks((11, 13), 8), hidden=[slice(1, 2)]))
    assert model.hidden == [[slice(1, 2)]] * 4


def test_a_block_is_scored_when_it_is_asked_for(pixels: Floats) -> None:
    model = Mean()
    scored = score_blocks(model, ArrayReader(pixels), blocks((11, 13), 4))
    assert model.windows == []
    next(scored)
    next(scored)
    assert len(model.windows) == 2
