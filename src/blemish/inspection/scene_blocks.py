"""Inspection of single blocks of a scene, in this process or in worker processes.

A block is computed from the scene and the model alone, and its chunks belong to no other block, so that a worker writes
them itself and gives only their record back. Which process computes a block changes nothing in its maps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import Scene
from blemish.decision import SceneSquares
from blemish.errors import ImageError
from blemish.inspection.detector import Detector, load
from blemish.inspection.reductions import maxima, means, sums
from blemish.inspection.scene_records import InspectedBlock
from blemish.inspection.scene_scorer import SceneBlock, SceneScorer, overview_reduction, scene_block_side
from blemish.observer import Observer
from blemish.storage.blocks import Block
from blemish.storage.leftovers import temporary_folder
from blemish.storage.tiled_array import Layer, TiledArrays, TiledFile
from blemish.workers import each

MAPS = "maps"
"""Folder of the maps, in that of an inspection."""


def square_side(detector: Detector) -> int:
    """Side of the squares that are scored, in pixels."""
    unit = detector.decision.calibration.unit
    assert isinstance(unit, SceneSquares), "detectors of scenes are calibrated on squares"
    return unit.side


class SceneWork:
    """One scene to inspect, and where its maps are kept."""

    def __init__(
        self, detector: Detector, scene: Scene, folder: Path, hide: Sequence[str], reconstruction: bool
    ) -> None:
        self.detector, self.scene, self.folder = detector, scene, folder
        self.hide, self.reconstruction = tuple(hide), reconstruction

    def scorer(self, opened: SceneReader) -> SceneScorer:
        """Scores the opened scene; refuses one that cannot be inspected."""
        return SceneScorer(self.detector, opened, square_side(self.detector), self.hide)

    def maps(self, opened: SceneReader, sha256: str) -> TiledFile[InspectedBlock]:
        """The file of the maps of the scene with this content, as far as they are finished.

        Raises
        ------
        FileError, UsageError
            When it cannot be written, or is of another scene.
        """
        size, channels, count = (opened.height, opened.width), opened.channels, len(opened.modalities)
        reduction, square = overview_reduction(size), square_side(self.detector)
        layers = {
            "residual": Layer(),
            "own": Layer((count,)),
            "cross": Layer((count,)),
            **({"reconstruction": Layer((channels,))} if self.reconstruction else {}),
            # Blocks of an overview are small; a file for each plane of each would be a great many.
            "overview_picture": Layer((channels,), reduction, together=True),
            "overview_reconstruction": Layer((channels,), reduction, together=True),
            "overview_residual": Layer((), reduction),
            "overview_own": Layer((count,), reduction, together=True),
            "overview_cross": Layer((count,), reduction, together=True),
        }
        attributes = {
            "scene": self.scene.name,
            "modalities": [one.name for one in opened.modalities],
            "channels": [one.channels for one in opened.modalities],
            "missing": list(opened.missing),
            "hidden": list(self.hide),
            "overview_reduction": reduction,
            "square": square,
            "measure": self.detector.measure_name,
        }
        path = self.folder / MAPS / self.scene.name
        side = scene_block_side(size, self.detector.recipe.patch.stride, square)
        return TiledFile(
            path, InspectedBlock, layers, size=size, side=side, attributes=attributes, content=sha256
        )


def write_block(scorer: SceneScorer, arrays: TiledArrays, reduction: int, maps: SceneBlock) -> InspectedBlock:
    """Write the maps of one block and give its record.

    Parameters
    ----------
    reduction: pixels of the scene along a side for one of the overviews.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    begun = time.perf_counter()
    block, scores = maps.block, scorer.scores(maps.anomaly)
    layers = {
        "residual": maps.anomaly,
        "own": maps.own,
        "cross": maps.cross,
        "reconstruction": maps.reconstruction,
        "overview_picture": means(maps.image, reduction),
        "overview_reconstruction": means(maps.reconstruction, reduction),
        # The brightest value, as wherever an anomaly map is reduced: a mean would hide a defect of a few pixels.
        "overview_residual": maxima(maps.anomaly, reduction),
        "overview_own": means(maps.own, reduction),
        "overview_cross": means(maps.cross, reduction),
    }
    computed = time.perf_counter()
    for layer in arrays.layers:
        arrays.write(layer, block, layers[layer])
    return InspectedBlock(
        row=block.row,
        column=block.column,
        scores=scores,
        own=sums(maps.own),
        cross=sums(maps.cross),
        reading=maps.reading,
        computing=maps.computing + computed - begun,
        writing=time.perf_counter() - computed,
    )


@dataclass(frozen=True)
class SceneTask:
    """What a worker process needs to inspect blocks of one scene."""

    number: int
    """Of the scene."""
    scene: Scene
    missing: tuple[str, ...]
    """Modalities that the model has none of, as the scene was opened."""
    square: int
    hidden: tuple[str, ...]
    arrays: TiledArrays
    reduction: int


@dataclass(frozen=True)
class BlockTask:
    """One block for a worker process."""

    model: Path
    of: SceneTask
    block: Block


def inspect_in_workers(
    detector: Detector,
    tasks: Sequence[tuple[SceneTask, Block]],
    workers: int,
    observer: Observer,
    unwanted: Callable[[int], bool],
) -> Iterator[tuple[int, InspectedBlock | ImageError]]:
    """Inspect blocks in ``workers`` processes; the number of the scene and the record, or the damage, of each.

    Every process holds the model and, of the scenes, what a single one would hold. They compute on the processor.

    Parameters
    ----------
    observer: is asked whether to stop.
    unwanted: whether the blocks of the scene of this number are no longer needed.

    Raises
    ------
    Stopped
        When the observer asked to stop; blocks in hand are given first.
    BlemishError
        When a block cannot be written, or a process was killed.
    """
    with temporary_folder() as folder:
        model = detector.save(folder / "model")
        found = each(
            _inspect_block,
            [BlockTask(model, of, block) for of, block in tasks],
            workers=workers,
            observer=_StopOnly(observer),
            unwanted=lambda task: unwanted(task.of.number),
        )
        yield from found


class _StopOnly(Observer):
    """Passes on the question whether to stop; progress is counted over all blocks, finished ones included."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def should_stop(self) -> bool:
        return self._observer.should_stop()


_opened: tuple[Path, SceneTask, SceneScorer] | None = None
"""Model and scene that this worker process inspected last."""


def _inspect_block(task: BlockTask) -> tuple[int, InspectedBlock | ImageError]:
    try:
        scorer = _scorer(task)
        (maps,) = scorer.blocks([task.block])
    except ImageError as error:
        return task.of.number, error.without_frames()
    return task.of.number, write_block(scorer, task.of.arrays, task.of.reduction, maps)


def _scorer(task: BlockTask) -> SceneScorer:
    global _opened
    of = task.of
    if _opened is not None and _opened[0] == task.model and _opened[1] == of:
        return _opened[2]
    detector = _opened[2].detector if _opened is not None and _opened[0] == task.model else load(task.model)
    opened = SceneReader(of.scene, without=of.missing)
    scorer = SceneScorer(detector, opened, of.square, of.hidden)
    _opened = task.model, of, scorer
    return scorer
