"""Inspection of scenes block by block into maps, records and a report; memory does not depend on their size.

scene ─► blocks ─► scoring path ─► block of each map
                               └─► scores of its squares ─► record ─► report
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.open_scenes import open_useful, scene_sha256
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import Scene, find_scenes
from blemish.decision import SceneSquares
from blemish.errors import (
    BlemishError,
    FileError,
    ImageError,
    NameInTheWayError,
    Stopped,
    UsageError,
    nearest,
)
from blemish.inspection.detector import Detector
from blemish.inspection.reductions import maxima, means, sums
from blemish.inspection.scene_decision import decide_scene
from blemish.inspection.scene_files import save_scenes
from blemish.inspection.scene_page import FinishedScene, write_overviews, write_scene_report
from blemish.inspection.scene_records import InspectedBlock, SceneRecord
from blemish.inspection.scene_scorer import SceneBlock, SceneScorer, overview_reduction, scene_block_side
from blemish.inspection.settings import settings_in_words
from blemish.observer import Observer
from blemish.report import ModelSummary
from blemish.report.numbers import counted
from blemish.report.save_settings import SAVED, SaveSettings
from blemish.storage.blocks import Block
from blemish.storage.records_log import RecordsLog
from blemish.storage.run_lock import owned
from blemish.storage.tiled_array import Layer, TiledFile, claim, open_tiled, reading, tiled

RECORDS_FILE, SETTINGS_FILE, REPORT_FILE = "inspections.jsonl", "inspection.json", "report.html"
MAPS, OVERVIEWS = "maps", "overviews"


@dataclass
class SceneInspection:
    """The output folder of an inspection of scenes."""

    folder: Path
    settings: dict[str, Any]
    journal: RecordsLog[SceneRecord]
    problems: list[BlemishError] = field(default_factory=list)

    @property
    def records(self) -> list[SceneRecord]:
        """Records of the finished scenes."""
        return self.journal.records

    def map(self, scene: str, name: str) -> NDArray[np.float32]:
        """A whole map of a finished scene: ``residual`` (H, W), ``own`` or ``cross`` (M, H, W); NaN where absent.

        Raises
        ------
        FileError
            When it cannot be read.
        """
        path = tiled(self.folder / MAPS / scene)
        group = open_tiled(path)
        with reading(path):
            return np.asarray(group[name][...], np.float32)

    @property
    def report(self) -> Path:
        """Path of the report page."""
        return self.folder / REPORT_FILE

    def remarks(self) -> list[str]:
        """Lines beside :meth:`in_words`; none, because squares of one scene do not show a drift."""
        return []

    def in_words(self) -> str:
        """Summary in one line."""
        squares, above = (
            sum(getattr(record, key) for record in self.records) for key in ("squares", "above")
        )
        called = sum(record.is_anomalous for record in self.records)
        return (
            f"{counted(len(self.records), 'scene')} inspected, {called} with more above the threshold than "
            f"chance brings; {above} of {counted(squares, 'square')} are above it."
        )


def inspect_scenes(
    detector: Detector,
    source: str | Path,
    out: str | Path,
    *,
    hide: Sequence[str] = (),
    reconstruction: bool = False,
    save: SaveSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> SceneInspection:
    """Inspect every scene in ``source`` and write maps, overviews, records and the report to ``out``.

    The maps of a scene are Zarr arrays in ``out/maps/SCENE.zarr``, float16 at the scene's own grid, NaN where
    there was nothing to compare: ``residual`` (H, W), the anomaly map, which is scored; ``own`` and ``cross``
    (M, H, W), 1 − SSIM of each modality's reconstruction from all that the model was shown, and from the other
    modalities alone; ``reconstruction`` (C, H, W) where it is asked for. They grow block by block. A scene whose
    file turns out to be damaged is reported to the observer; its finished blocks stay, and the other scenes go on.

    Parameters
    ----------
    hide: names of modalities that the model is not shown, to see how well the others predict them.
    reconstruction: whether to write reconstructions at full size too.
    save: files for other programs, which ``resume`` also adds to a finished inspection.
    resume: go on with an inspection that was stopped, at the block where it stopped.
    overwrite: replace what an earlier inspection wrote.
    observer: hears of each block, and is asked before each whether to stop.

    Raises
    ------
    Stopped
        When the observer asked to stop: finished blocks are on disk, finished scenes in the report.
    UsageError
        When the model was not fitted on scenes, or knows no modality of a name to hide.
    FileError
        When ``source`` holds no scene or ``out`` cannot be written.
    """
    with owned(out):
        return _inspect_scenes(
            detector,
            Path(source),
            Path(out),
            hide,
            reconstruction,
            save,
            resume,
            overwrite,
            observer or Observer(),
        )


def _inspect_scenes(
    detector: Detector,
    source: Path,
    folder: Path,
    hide: Sequence[str],
    reconstruction: bool,
    save: SaveSettings | None,
    resume: bool,
    overwrite: bool,
    observer: Observer,
) -> SceneInspection:
    detector.file.check_subject("scenes", f"{source}: is inspected as scenes", "use inspect_folder")
    modalities = detector.file.preprocessing.modalities
    _check_hidden(detector, hide, [one.name for one in modalities])
    scenes = find_scenes(source, modalities)
    settings = _settings(detector, hide, reconstruction)
    claim(
        folder,
        SETTINGS_FILE,
        settings,
        below=MAPS,
        command="inspect",
        remove=(OVERVIEWS, REPORT_FILE, RECORDS_FILE, *SAVED),
        resume=resume,
        overwrite=overwrite,
    )
    done = SceneInspection(folder, settings, RecordsLog(folder / RECORDS_FILE, SceneRecord))
    work = [_Work(detector, scene, folder, hide, reconstruction) for scene in scenes]
    try:
        _inspect_all(work, done, observer)
    except BlemishError:
        with suppress(FileError):  # on a full disk the first failure is the one to report
            _report(work, done, detector)
        raise
    _report(work, done, detector)
    if save is not None:
        found = _finished(work, done)
        done.problems += save_scenes(folder, found, detector.decision.pixel_threshold, save, observer)
    return done


def _check_hidden(detector: Detector, hide: Sequence[str], names: Sequence[str]) -> None:
    for name in hide:
        if name not in names:
            raise UsageError(f"--hide {name}: the model knows no such modality; {nearest(name, names)}")
    if hide and not detector.model.takes_absent:
        raise UsageError(
            f"--hide: {detector.recipe.name} cannot do without a modality; fit fp-cae-concat or fp-cae-add"
        )
    if set(hide) == set(names):
        raise UsageError("--hide: nothing is left for the model to see; hide fewer modalities")


def square_side(detector: Detector) -> int:
    """Side of the squares that are scored, in pixels."""
    unit = detector.decision.calibration.unit
    assert isinstance(unit, SceneSquares), "detectors of scenes are calibrated on squares"
    return unit.side


class _Work:
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


@dataclass
class _Progress:
    """Blocks of all scenes that are to be finished, and those that are."""

    total: int = 0
    done: int = 0


def _inspect_all(work: Sequence[_Work], inspection: SceneInspection, observer: Observer) -> None:
    usable, progress = _usable(work, inspection, observer)
    before = progress.done
    again = (
        f", {before} of {progress.total} blocks already done"
        if before
        else f", {counted(progress.total, 'block')}"
    )
    observer.stage(f"Inspecting {counted(len(usable), 'scene')}{again}")
    for one, opened, sha256 in usable:
        file: TiledFile[InspectedBlock] | None = None
        try:
            with opened:
                for notice in opened.notices:
                    observer.stage(f"{one.scene.name}: {notice}")
                file = one.maps(opened, sha256)
                _inspect_blocks(one.scorer(opened), file, progress, observer)
                record = decide_scene(one.detector, opened, one.hide, file)
                record = record.model_copy(update={"sha256": sha256})
            folder = inspection.folder / OVERVIEWS / one.scene.name
            write_overviews(folder, FinishedScene(record, one.scene, file.path), one.detector.pixel_threshold)
        except (ImageError, NameInTheWayError) as error:
            problem = error if isinstance(error, ImageError) else error.of_image(one.scene.folder)
            observer.problem(problem)
            inspection.problems.append(problem.without_frames())
            if file is not None:
                progress.total -= file.count - len(file.done)
        else:
            inspection.journal.append(record)


def _usable(
    work: Sequence[_Work], inspection: SceneInspection, observer: Observer
) -> tuple[list[tuple[_Work, SceneReader, str]], _Progress]:
    """Unfinished scenes that can be inspected, opened, the SHA-256 of each, and how many blocks they have."""
    finished = _still_valid(work, inspection, observer)
    usable, progress = [], _Progress()
    for one in work:
        if one.scene.name in finished:
            continue
        try:
            with open_useful(one.scene, observer) as opened:
                one.scorer(opened)
                sha256 = scene_sha256(opened)
                maps = one.maps(opened, sha256)
        except (ImageError, NameInTheWayError) as error:
            problem = error if isinstance(error, ImageError) else error.of_image(one.scene.folder)
            observer.problem(problem)
            inspection.problems.append(problem.without_frames())
        else:
            usable.append((one, opened, sha256))
            progress.total, progress.done = progress.total + maps.count, progress.done + len(maps.done)
    return usable, progress


def _still_valid(work: Sequence[_Work], inspection: SceneInspection, observer: Observer) -> set[str]:
    """Names of the scenes with a record; records whose maps are gone, or whose scene has changed, are dropped."""
    scenes = {one.scene.name: one.scene for one in work}

    def is_valid(record: SceneRecord) -> bool:
        maps = tiled(inspection.folder / MAPS / record.path)
        if not maps.is_dir() or not (inspection.folder / OVERVIEWS / record.path).is_dir():
            return False
        if record.path not in scenes or record.sha256 is None:
            return True
        try:
            return scene_sha256(open_useful(scenes[record.path], Observer())) == record.sha256
        except ImageError:
            return False  # to be reported when it is inspected again

    valid = [record for record in inspection.records if is_valid(record)]
    if len(valid) < len(inspection.records):
        changed = len(inspection.records) - len(valid)
        observer.stage(f"{counted(changed, 'scene')} changed, or without maps: to be inspected again")
        inspection.journal.keep(valid)
    return {record.path for record in valid}


def _inspect_blocks(
    scorer: SceneScorer, file: TiledFile[InspectedBlock], progress: _Progress, observer: Observer
) -> None:
    def watched(blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            if observer.should_stop():
                raise Stopped(f"stopped after {progress.done} of {progress.total} blocks, which are finished")
            yield block

    for maps in scorer.blocks(watched(file.unfinished())):
        _write_block(scorer, file, maps)
        progress.done += 1
        observer.count(progress.done, progress.total)


def _write_block(scorer: SceneScorer, file: TiledFile[InspectedBlock], maps: SceneBlock) -> None:
    begun = time.perf_counter()
    block, scores = maps.block, scorer.scores(maps.anomaly)
    reduction = file.attributes["overview_reduction"]
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
    for layer in file.layers:
        file.write(layer, block, layers[layer])
    file.finish(
        InspectedBlock(
            row=block.row,
            column=block.column,
            scores=scores,
            own=sums(maps.own),
            cross=sums(maps.cross),
            reading=maps.reading,
            computing=maps.computing + computed - begun,
            writing=time.perf_counter() - computed,
        )
    )


def _report(work: Sequence[_Work], done: SceneInspection, detector: Detector) -> None:
    """Write ``report.html`` of the finished scenes from the files on disk."""
    recipe, training, decision = detector.recipe, detector.file.training, detector.decision
    settings = done.settings
    write_scene_report(
        done.folder / REPORT_FILE,
        model=ModelSummary(
            name=recipe.title,
            recipe=recipe.name,
            paper=recipe.paper,
            measure=detector.measure_name,
            trained=f"trained in {training.steps} steps, {training.seconds:.0f} s",
        ),
        found=_finished(work, done),
        pixel_threshold=decision.pixel_threshold,
        square=square_side(detector),
        false_reject_rate=decision.promised_rate,
        guarantee=decision.guarantee,
        settings=settings_in_words(settings),
        problems=[str(problem) for problem in done.problems],
    )


def _finished(work: Sequence[_Work], done: SceneInspection) -> list[FinishedScene]:
    by_name = {record.path: record for record in done.records}
    return [
        FinishedScene(by_name[one.scene.name], one.scene, tiled(done.folder / MAPS / one.scene.name))
        for one in work
        if one.scene.name in by_name
    ]


def _settings(detector: Detector, hide: Sequence[str], reconstruction: bool) -> dict[str, Any]:
    """Settings of an inspection, for ``inspection.json`` and the report's last section."""
    recipe, file, decision = detector.recipe, detector.file, detector.decision
    return {
        "recipe": recipe.name,
        "modalities": [one.name for one in file.preprocessing.modalities],
        "hidden": list(hide),
        "reconstruction": reconstruction,
        "score": recipe.score.name,
        "threshold_rule": decision.rule,
        "false_reject_rate": decision.promised_rate,
        "threshold": decision.threshold,
        "level": decision.pixel_threshold,
        "patch": recipe.patch.size,
        "stride": recipe.patch.stride,
        "scored_squares": square_side(detector),
        "calibration_squares": len(decision.calibration.scores),
        "training_steps": file.training.steps,
        "trained_on": file.training.machine_words,
        "pictures_sha256": file.fingerprint.sha256,
        "weights_sha256": file.weights_sha256,
        "fitted_by": f"blemish {file.blemish}",
    }
