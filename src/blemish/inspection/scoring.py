"""Scores of squares of panels, to calibrate the decision on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blemish.data.scene_reader import SceneReader
from blemish.data.scene_splits import Square
from blemish.decision import image_score
from blemish.errors import Stopped
from blemish.observer import Observer

if TYPE_CHECKING:
    from blemish.inspection.detector import Detector


def score_squares(
    detector: Detector,
    panels: Sequence[SceneReader],
    columns: Sequence[slice],
    squares: Sequence[Square],
    observer: Observer,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scores and map maxima of ``squares``.

    A square is examined with a patch more on each side, as far as the panel and its ``columns`` go, so that
    all tiles over it are there and no pixel of another band is seen.

    Raises
    ------
    ImageError
        A panel cannot be read there.
    Stopped
        When the observer asked to stop.
    """
    rule, margin = detector.recipe.score, detector.recipe.patch.size
    scores: list[float] = []
    peaks: list[float] = []
    for done, square in enumerate(squares, start=1):
        if observer.should_stop():
            raise Stopped("stopped while calibrating; the trained network is in the checkpoint")
        panel = panels[square.panel]
        rows = _widened(square.rows, margin, slice(0, panel.height))
        band = _widened(square.columns, margin, columns[square.panel])
        window = panel.read(rows.start, band.start, rows.stop - rows.start, band.stop - band.start)
        whole, _ = detector.examine(window)
        inside = whole[
            square.rows.start - rows.start : square.rows.stop - rows.start,
            square.columns.start - band.start : square.columns.stop - band.start,
        ]
        scores.append(image_score(inside, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma))
        peaks.append(float(inside.max()))
        observer.count(done, len(squares))
    return tuple(scores), tuple(peaks)


def _widened(part: slice, margin: int, whole: slice) -> slice:
    return slice(max(part.start - margin, whole.start), min(part.stop + margin, whole.stop))
