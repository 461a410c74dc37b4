"""Inspection of scenes block by block into maps, records and a report; memory does not depend on their size.

scene ─► blocks ─► scoring path ─► block of each map
                               └─► scores of its squares ─► record ─► report
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.open_scenes import open_useful, scene_sha256
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
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
from blemish.inspection.scene_blocks import (
    MAPS,
    SceneTask,
    SceneWork,
    inspect_in_workers,
    square_side,
    write_block,
)
from blemish.inspection.scene_decision import decide_scene
from blemish.inspection.scene_files import save_scenes
from blemish.inspection.scene_page import FinishedScene, write_overviews, write_scene_report
from blemish.inspection.scene_records import InspectedBlock, SceneRecord
from blemish.inspection.scene_scorer import SceneScorer
from blemish.inspection.settings import scene_settings, settings_in_words
from blemish.observer import Observer
from blemish.report import ModelSummary
from blemish.report.numbers import counted
from blemish.report.save_settings import SAVED, SaveSettings
from blemish.storage.blocks import Block
from blemish.storage.records_log import RecordsLog
from blemish.storage.run_lock import owned
from blemish.storage.tiled_array import TiledFile, claim, open_tiled, reading, tiled

RECORDS_FILE, SETTINGS_FILE, REPORT_FILE = "inspections.jsonl", "inspection.json", "report.html"
OVERVIEWS = "overviews"


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
    workers: int = 1,
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
    workers: processes that share the blocks. Scores and maps are the same to the last bit. Each process holds the model,
        and of a scene what a single one does; files that can only be decoded whole are decoded in each.
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
            workers,
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
    workers: int,
    resume: bool,
    overwrite: bool,
    observer: Observer,
) -> SceneInspection:
    if workers < 1:
        raise UsageError(f"--workers {workers}: give at least 1")
    detector.file.check_subject("scenes", f"{source}: is inspected as scenes", "use inspect_folder")
    modalities = detector.file.preprocessing.modalities
    _check_hidden(detector, hide, [one.name for one in modalities])
    scenes = find_scenes(source, modalities)
    settings = scene_settings(detector, hide, reconstruction, square_side(detector))
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
    work = [SceneWork(detector, scene, folder, hide, reconstruction) for scene in scenes]
    try:
        _inspect_all(work, done, workers, observer)
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


@dataclass
class _Progress:
    """Blocks of all scenes that are to be finished, and those that are."""

    total: int = 0
    done: int = 0


def _inspect_all(
    work: Sequence[SceneWork], inspection: SceneInspection, workers: int, observer: Observer
) -> None:
    usable, progress = _usable(work, inspection, observer)
    before = progress.done
    again = (
        f", {before} of {progress.total} blocks already done"
        if before
        else f", {counted(progress.total, 'block')}"
    )
    observer.stage(f"Inspecting {counted(len(usable), 'scene')}{again}")
    if workers > 1:
        _share_blocks(usable, inspection, workers, progress, observer)
        return
    for one, opened, sha256 in usable:
        file: TiledFile[InspectedBlock] | None = None
        try:
            with opened:
                for notice in opened.notices:
                    observer.stage(f"{one.scene.name}: {notice}")
                file = one.maps(opened, sha256)
                _inspect_blocks(one.scorer(opened), file, progress, observer)
            _finish(one, opened, sha256, file, inspection)
        except (ImageError, NameInTheWayError) as error:
            _failed(one, error, inspection, observer)
            if file is not None:
                progress.total -= file.count - len(file.done)


def _finish(
    one: SceneWork,
    opened: SceneReader,
    sha256: str,
    file: TiledFile[InspectedBlock],
    inspection: SceneInspection,
) -> None:
    """Decide on a scene whose blocks are all finished, and record it."""
    record = decide_scene(one.detector, opened, one.hide, file).model_copy(update={"sha256": sha256})
    folder = inspection.folder / OVERVIEWS / one.scene.name
    write_overviews(folder, FinishedScene(record, one.scene, file.path), one.detector.pixel_threshold)
    inspection.journal.append(record)


def _failed(
    one: SceneWork, error: ImageError | NameInTheWayError, inspection: SceneInspection, observer: Observer
) -> None:
    problem = error if isinstance(error, ImageError) else error.of_image(one.scene.folder)
    observer.problem(problem)
    inspection.problems.append(problem.without_frames())


def _share_blocks(
    usable: Sequence[tuple[SceneWork, SceneReader, str]],
    inspection: SceneInspection,
    workers: int,
    progress: _Progress,
    observer: Observer,
) -> None:
    """Inspect the blocks of all scenes in worker processes, and finish each scene after its last block."""
    files = [one.maps(opened, sha256) for one, opened, sha256 in usable]
    failed: set[int] = set()

    def finish(number: int) -> None:
        one, opened, sha256 = usable[number]
        try:
            with opened:
                _finish(one, opened, sha256, files[number], inspection)
        except (ImageError, NameInTheWayError) as error:
            fail(number, error)

    def fail(number: int, error: ImageError | NameInTheWayError) -> None:
        failed.add(number)
        _failed(usable[number][0], error, inspection, observer)
        progress.total -= files[number].count - len(files[number].done)

    tasks = []
    for number, ((one, opened, _), file) in enumerate(zip(usable, files, strict=True)):
        for notice in opened.notices:
            observer.stage(f"{one.scene.name}: {notice}")
        shared = SceneTask(
            number,
            opened.scene,
            opened.missing,
            square_side(one.detector),
            one.hide,
            file.arrays,
            file.attributes["overview_reduction"],
        )
        unfinished = [(shared, block) for block in file.unfinished()]
        tasks += unfinished
        if not unfinished:
            finish(number)
    if not tasks:
        return
    found = inspect_in_workers(usable[0][0].detector, tasks, workers, observer, failed.__contains__)
    try:
        for number, result in found:
            if number in failed:
                continue
            if isinstance(result, ImageError):
                fail(number, result)
                continue
            files[number].finish(result)
            progress.done += 1
            observer.count(progress.done, progress.total)
            if len(files[number].done) == files[number].count:
                finish(number)
    except Stopped:
        raise _stopped(progress) from None


def _usable(
    work: Sequence[SceneWork], inspection: SceneInspection, observer: Observer
) -> tuple[list[tuple[SceneWork, SceneReader, str]], _Progress]:
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
            _failed(one, error, inspection, observer)
        else:
            usable.append((one, opened, sha256))
            progress.total, progress.done = progress.total + maps.count, progress.done + len(maps.done)
    return usable, progress


def _still_valid(work: Sequence[SceneWork], inspection: SceneInspection, observer: Observer) -> set[str]:
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
                raise _stopped(progress)
            yield block

    for maps in scorer.blocks(watched(file.unfinished())):
        file.finish(write_block(scorer, file.arrays, file.attributes["overview_reduction"], maps))
        progress.done += 1
        observer.count(progress.done, progress.total)


def _stopped(progress: _Progress) -> Stopped:
    return Stopped(f"stopped after {progress.done} of {progress.total} blocks, which are finished")


def _report(work: Sequence[SceneWork], done: SceneInspection, detector: Detector) -> None:
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


def _finished(work: Sequence[SceneWork], done: SceneInspection) -> list[FinishedScene]:
    by_name = {record.path: record for record in done.records}
    return [
        FinishedScene(by_name[one.scene.name], one.scene, tiled(done.folder / MAPS / one.scene.name))
        for one in work
        if one.scene.name in by_name
    ]
