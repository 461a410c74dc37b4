"""Decision on a scene, from the scores and overviews of its finished blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.scene_reader import SceneReader
from blemish.decision import Region, benjamini_hochberg, find_regions
from blemish.decision.regions import EIGHT_CONNECTED
from blemish.inspection.detector import Detector
from blemish.inspection.scene_records import InspectedBlock, ModalityRecord, SceneRecord, ScoredSquare, Sum
from blemish.inspection.subset_calibration import decision_without
from blemish.storage.tiled_array import TiledFile

MOST_REGIONS, MOST_STRONGEST = 100, 20


def decide_scene(
    detector: Detector, opened: SceneReader, hidden: Sequence[str], file: TiledFile[InspectedBlock]
) -> SceneRecord:
    """The record of a scene whose blocks are all finished.

    Parameters
    ----------
    hidden: names of modalities that the model was not shown.
    file: maps and block records of the scene.
    """
    lacking = {*opened.missing, *(name for name in hidden if name not in opened.missing)}
    subset = decision_without(detector, lacking)
    decision = subset.decision
    # Sums depend in their last bits on the order, which a stop and the number of processes change.
    records = sorted(file.records, key=lambda record: (record.row, record.column))
    squares = [
        (score, *_square_at(file, record, row, column))
        for record in records
        for row, line in enumerate(record.scores)
        for column, score in enumerate(line)
        if score is not None
    ]
    scores = np.array([score for score, *_ in squares])
    p = decision.p_values(scores)
    threshold, rate = decision.threshold, decision.promised_rate
    above = int((scores > threshold).sum())
    called = above if rate is None or not len(p) else int(benjamini_hochberg(p, rate).sum())
    strongest = [
        ScoredSquare(x=x, y=y, width=width, height=height, score=score, p_value=float(p[index]))
        for index, (score, x, y, width, height) in sorted(
            enumerate(squares), key=lambda item: (-item[1][0], item[0])
        )[:MOST_STRONGEST]
    ]
    return SceneRecord(
        path=opened.name,
        size=(opened.width, opened.height),
        score=float(scores.max(initial=0)),
        threshold=threshold,
        p_value=_simes(p),
        is_anomalous=called > 0,
        regions=_regions(file, decision.pixel_threshold),
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=sum(record.reading + record.computing + record.writing for record in records),
        squares=len(scores),
        above=above,
        called=called,
        strongest=tuple(strongest),
        modalities=_modalities(detector, opened, hidden, records),
        notices=(*opened.notices, *subset.notices),
    )


def _square_at(
    file: TiledFile[InspectedBlock], record: InspectedBlock, row: int, column: int
) -> tuple[int, int, int, int]:
    """x, y, width and height of the square at ``row`` and ``column`` of a block."""
    (height, width), side = file.size, file.attributes["square"]
    y, x = record.row * file.side + row * side, record.column * file.side + column * side
    return x, y, min(side, width - x), min(side, height - y)


def _simes(p: NDArray[np.float64]) -> float:
    """Combined p-value: min over i of m p₍ᵢ₎ / i (Simes, Biometrika 73(3), 1986)."""
    if not len(p):
        return 1.0
    return float(min(1.0, (np.sort(p) * len(p) / np.arange(1, len(p) + 1)).min()))


def _regions(file: TiledFile[InspectedBlock], pixel_threshold: float) -> tuple[Region, ...]:
    """The strongest regions of the overview, in pixels of the scene."""
    factor = file.attributes["overview_reduction"]
    overview = np.nan_to_num(file.read("overview_residual").astype(np.float32))
    height, width = file.size
    # A surface of another kind has millions of specks: only the strongest are described.
    labels, count = ndimage.label(overview > pixel_threshold, structure=EIGHT_CONNECTED)
    if count > MOST_REGIONS:
        peaks = ndimage.maximum(overview, labels, np.arange(1, count + 1))
        strongest = np.zeros(count + 1, np.bool_)
        strongest[1 + np.argsort(-peaks, kind="stable")[:MOST_REGIONS]] = True
        overview = np.where(strongest[labels], overview, 0)
    return tuple(
        region.model_copy(
            update={
                "x": region.x * factor,
                "y": region.y * factor,
                "width": min(region.width * factor, width - region.x * factor),
                "height": min(region.height * factor, height - region.y * factor),
                "area": region.area * factor**2,
            }
        )
        for region in find_regions(overview, pixel_threshold)
    )


def _modalities(
    detector: Detector, opened: SceneReader, hidden: Sequence[str], records: Sequence[InspectedBlock]
) -> tuple[ModalityRecord, ...]:
    def similarity(sums: Iterator[Sum]) -> float | None:
        totals, pixels = zip(*sums, strict=True)
        return 1 - sum(totals) / sum(pixels) if sum(pixels) else None

    def state(name: str) -> Literal["present", "missing", "hidden"]:
        if name in opened.missing:
            return "missing"
        return "hidden" if name in hidden else "present"

    training, residual = detector.file.training, detector.recipe.residual
    figures = {one.name: one for one in training.modalities}
    measure = "similarity" if residual is not None and residual.name == "modal-difference" else "SSIM"

    return tuple(
        ModalityRecord(
            measure=measure,
            linear=figures[one.name].linear if one.name in figures else None,
            constant=figures[one.name].constant if one.name in figures else None,
            is_learned=one.name not in training.not_learned,
            name=one.name,
            state=state(one.name),
            similarity=similarity(record.own[index] for record in records),
            from_others=similarity(record.cross[index] for record in records),
        )
        for index, one in enumerate(opened.modalities)
    )
