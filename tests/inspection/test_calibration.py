from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.data.scene_reader import SceneReader
from blemish.data.scene_splits import Square
from blemish.data.scenes import find_scenes
from blemish.decision import image_score
from blemish.errors import Stopped
from blemish.inspection.scoring import score_squares

SQUARES = [Square(0, slice(0, 32), slice(100, 132)), Square(0, slice(32, 64), slice(128, 160))]


class FirstChannel:
    """A detector whose map is the first channel of the window that it is given."""

    recipe = SimpleNamespace(
        score=SimpleNamespace(name="smoothed-max", quantile=0.99, sigma=2.0), patch=SimpleNamespace(size=16)
    )

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def examine(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.shapes.append(x.shape)
        return x[0], x


def test_a_score_is_of_its_square_seen_with_its_surroundings(
    painting: Callable[..., Path], tmp_path: Path, recorder: Any
) -> None:
    panel = SceneReader(find_scenes(painting(tmp_path / "eve"))[0])
    detector: Any = FirstChannel()
    scores, peaks = score_squares(detector, [panel], [slice(100, 160)], SQUARES, recorder())
    for square, score, peak in zip(SQUARES, scores, peaks, strict=True):
        own = panel.read(square.rows.start, square.columns.start, 32, 32)[0]
        assert score == image_score(own, kind="smoothed-max", quantile=0.99, sigma=2.0)
        assert peak == own.max()
    # 16 pixels more on each side, but not beyond the panel nor the band.
    assert detector.shapes == [(5, 48, 48), (5, 48, 48)]


def test_stopping(painting: Callable[..., Path], tmp_path: Path, recorder: Any) -> None:
    panel = SceneReader(find_scenes(painting(tmp_path / "eve"))[0])
    detector: Any = FirstChannel()
    with pytest.raises(Stopped, match="while calibrating"):
        score_squares(detector, [panel], [slice(100, 160)], SQUARES, recorder(stop_after=1))
    assert len(detector.shapes) == 1
