"""Evaluation of a detector on scenes with masks of what is to be found.

A scene's masks lie in the folder ``masks`` in its own: ``masks/losses.png`` marks the losses, at any resolution. A scene
without masks counts as flawless. Figures of images are those of the scored squares; figures of pixels are read from the
written maps block by block, so that memory does not depend on the size of a scene. A region that blocks cut counts in
each.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.data.fingerprint import file_sha256
from blemish.data.image import SUFFIXES
from blemish.data.modality import list_folder
from blemish.data.open_scenes import scene_sha256
from blemish.data.scene_area import SceneMask
from blemish.data.scene_description import description_of
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import Scene, find_scenes, holds_scenes
from blemish.data.windowed_image import DecodedCache
from blemish.decision import PixelMetrics
from blemish.errors import FileError, ImageError, UsageError
from blemish.evaluation.figures import (
    Evaluation,
    FalseRejects,
    ModalityPixels,
    image_results,
    number_text,
    pixel_figure,
)
from blemish.inspection.detector import Detector
from blemish.inspection.document import versions
from blemish.inspection.folder import EVALUATION_FILE
from blemish.inspection.scene_blocks import MAPS, square_side
from blemish.inspection.scene_records import InspectedBlock, SceneRecord
from blemish.inspection.scenes import inspect_scenes
from blemish.observer import Observer
from blemish.report import Prose, Section, TableSection, write_page
from blemish.storage.atomic import write_json
from blemish.storage.blocks import Block, blocks
from blemish.storage.leftovers import temporary_folder
from blemish.storage.records_log import RecordsLog
from blemish.storage.tiled_array import JOURNAL, open_tiled, reading, tiled

MASKS = "masks"
PAGE_FILE = "evaluation.html"
_CACHE = 64 * 2**20


def scene_parts(dataset: str | Path) -> tuple[Path | None, Path] | None:
    """Folders of the scenes of ``dataset`` to fit on, if there is one, and to test on; None of one of images.

    They are ``train`` and ``test`` where there is a ``test`` with scenes, or else ``dataset`` itself.
    """
    dataset = Path(dataset)
    if holds_scenes(dataset / "test"):
        train = dataset / "train"
        return (train if holds_scenes(train) else None), dataset / "test"
    return (None, dataset) if description_of(dataset) is not None or holds_scenes(dataset) else None


def evaluate_scenes(
    detector: Detector,
    dataset: str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    command: str = "",
    observer: Observer | None = None,
) -> Evaluation:
    """Inspect the scenes of ``dataset``, and compare their squares and maps with their masks.

    Parameters
    ----------
    dataset: scenes, or a folder with such in ``test``.
    out: folder for ``evaluation.json``, ``evaluation.html``, and the inspection; without it nothing is written.
    command: kept in the result, to say how it was made.

    Raises
    ------
    UsageError
        When ``out`` holds an inspection already, without ``overwrite``.
    FileError
        When ``dataset`` holds no scene that can be used, or no mask, or ``out`` cannot be written.
    Stopped
        When the observer asked to stop.
    """
    observer = observer or Observer()
    if out is None:
        with temporary_folder() as folder:
            return _evaluate(detector, Path(dataset), folder / "found", None, False, command, observer)
    return _evaluate(detector, Path(dataset), Path(out), Path(out), overwrite, command, observer)


def _evaluate(
    detector: Detector,
    dataset: Path,
    found: Path,
    out: Path | None,
    overwrite: bool,
    command: str,
    observer: Observer,
) -> Evaluation:
    begun = time.monotonic()
    parts = scene_parts(dataset)
    source = dataset if parts is None else parts[1]
    detector.file.check_subject("scenes", f"{source}: is evaluated as scenes", "give images with labels")
    scenes = {one.name: one for one in find_scenes(source, detector.file.preprocessing.modalities)}
    if not any(_masks(scene) for scene in scenes.values()):
        raise FileError(
            source,
            "has no masks to compare with",
            f"put them into the folder {MASKS} of each scene, as {MASKS}/losses.png",
        )
    if out is not None and overwrite:
        (out / EVALUATION_FILE).unlink(missing_ok=True)
    inspection = inspect_scenes(detector, source, found, overwrite=overwrite, observer=observer)
    gathered = _Gathered(square_side(detector), [one.name for one in detector.file.preprocessing.modalities])
    observer.stage("Comparing the maps with the masks")
    problems = [str(problem) for problem in inspection.problems]
    for number, record in enumerate(inspection.records):
        scene = scenes[record.path]
        try:
            gathered.add(_Written(found, record, detector.threshold), _opened(scene, record))
        except ImageError as error:
            observer.problem(error)
            problems.append(str(error))
        observer.count(number + 1, len(inspection.records))
    if not gathered.labels:
        raise FileError(source, "holds no scene that can be evaluated", "correct the files above")
    labels, scores = np.array(gathered.labels), np.array(gathered.scores)
    good = scores[labels == "good"]
    rejected = int((good > detector.threshold).sum())
    pixel = gathered.union.result()
    evaluation = Evaluation(
        dataset=dataset.resolve().name,
        recipe=detector.recipe.name,
        threshold=detector.threshold,
        level=detector.pixel_threshold,
        guarantee=detector.guarantee,
        unit="square",
        image=image_results(labels, scores, detector.threshold),
        pixel=pixel.model_copy(
            update={"groups": {kind: one.result() for kind, one in sorted(gathered.kinds.items())}}
        ),
        modalities=gathered.by_modality(),
        false_rejects=FalseRejects(
            rejected=rejected,
            good=len(good),
            ratio=rejected / len(good),
            promised=detector.decision.promised_rate,
            # Squares of a scene depend on each other, so that no interval is known.
            low=None,
            high=None,
            within=None,
        )
        if len(good)
        else None,
        without_mask=0,
        skipped=tuple(problems),
        seconds=time.monotonic() - begun,
        milliseconds_per_image=1000 * float(np.median([one.seconds for one in inspection.records])),
        settings=detector.recipe,
        training=detector.file.training,
        images=detector.file.fingerprint,
        items_sha256=scenes_sha256([*scenes.values()]),
        versions=versions(),
        command=command,
    )
    if out is not None:
        _write_page(out / PAGE_FILE, evaluation)
        # Last, because compare takes it for the mark of a finished evaluation.
        write_json(out / EVALUATION_FILE, evaluation.model_dump(mode="json"))
    return evaluation


def scenes_sha256(scenes: Sequence[Scene]) -> str:
    """SHA-256 of the names and content of scenes and of their masks, whatever their order."""
    digest = hashlib.sha256()
    for scene in sorted(scenes, key=lambda one: one.name):
        try:
            content = scene_sha256(SceneReader(scene))
        except ImageError:
            content = "unreadable"
        masks = sorted((path.name, file_sha256(path)) for paths in _masks(scene).values() for path in paths)
        digest.update(os.fsencode(f"{scene.name!r} {content} {masks!r}\n"))
    return digest.hexdigest()


class _Truth(NamedTuple):
    """Masks of one scene by what they mark, read by windows."""

    masks: dict[str, list[SceneMask]]
    cache: DecodedCache

    def read(self, block: Block) -> dict[str, NDArray[np.bool_]]:
        """Masks (h, w) of what is marked in a block."""
        window = block.rows.start, block.columns.start, *block.shape
        found = {}
        for kind, masks in self.masks.items():
            marked = np.any([mask.read(*window, self.cache) for mask in masks], axis=0)
            if marked.any():
                found[kind] = marked
        return found


def _masks(scene: Scene) -> dict[str, list[Path]]:
    """Files of the masks of a scene, by what they mark."""
    folder = scene.folder / MASKS
    found: dict[str, list[Path]] = {}
    for path in list_folder(folder) if folder.is_dir() else []:
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            found.setdefault("defect" if path.stem in ("all", "good") else path.stem, []).append(path)
    return found


def _opened(scene: Scene, record: SceneRecord) -> _Truth:
    width, height = record.size
    masks = {
        kind: [SceneMask(path, (height, width)) for path in paths] for kind, paths in _masks(scene).items()
    }
    return _Truth(masks, DecodedCache(_CACHE))


class _Written:
    """What an inspection wrote of one scene, by blocks."""

    def __init__(self, folder: Path, record: SceneRecord, threshold: float) -> None:
        path = folder / MAPS / record.path
        self._path = tiled(path)
        self._group: Any = open_tiled(self._path)
        self.hidden = {one.name for one in record.modalities if one.state != "present"}
        width, height = record.size
        self._blocks = blocks((height, width), int(self._group.attrs["block"]))
        log = RecordsLog(path.with_name(path.name + JOURNAL), InspectedBlock)
        self._scores = {(one.row, one.column): one.scores for one in log.records}
        # Scenes that lack a modality have a threshold of their own: their scores are brought to the common one.
        self._factor = threshold / record.threshold if record.threshold > 0 < threshold else 1.0

    def __iter__(self) -> Iterator[tuple[Block, NDArray[np.float32], NDArray[np.float32], Any]]:
        """Each block with its anomaly map (h, w), its cross-modal maps (M, h, w), and its scores."""
        for block in self._blocks:
            window = (block.rows, block.columns)
            with reading(self._path):
                anomaly, cross = (
                    np.asarray(self._group[name][(..., *window)], np.float32)
                    for name in ("residual", "cross")
                )
            scores = [
                [None if score is None else score * self._factor for score in line]
                for line in self._scores[block.row, block.column]
            ]
            yield block, anomaly, cross, scores


class _Gathered:
    """Labels and scores of squares, and pixel metrics of the maps."""

    def __init__(self, side: int, modalities: Sequence[str]) -> None:
        self._side, self._modalities = side, modalities
        self.labels: list[str] = []
        self.scores: list[float] = []
        self.union = PixelMetrics()
        self.kinds: dict[str, PixelMetrics] = {}
        self._cross: dict[tuple[str, str], PixelMetrics] = {}

    def add(self, written: _Written, truth: _Truth) -> None:
        """Count one scene.

        Raises
        ------
        ImageError
            When a mask cannot be read.
        """
        for kind in truth.masks:
            if kind not in self.kinds:
                self.kinds[kind] = PixelMetrics(resamples=0)
                for name in self._modalities:
                    self._cross[kind, name] = PixelMetrics(resamples=0)
        for block, anomaly, cross, scores in written:
            masks = truth.read(block)
            self._add_squares(scores, masks)
            union = np.any([*masks.values()], axis=0) if masks else np.zeros(block.shape, np.bool_)
            _update(self.union, anomaly, union, np.ones_like(union))
            for kind, metrics in self.kinds.items():
                own = masks.get(kind, np.zeros_like(union))
                # What another mask marks is neither found by mistake nor of this kind.
                counted = own | ~union
                _update(metrics, anomaly, own, counted)
                for name, plane in zip(self._modalities, cross, strict=True):
                    if name not in written.hidden:
                        _update(self._cross[kind, name], plane, own, counted)

    def _add_squares(
        self, scores: Sequence[Sequence[float | None]], masks: dict[str, NDArray[np.bool_]]
    ) -> None:
        side = self._side
        for row, line in enumerate(scores):
            for column, score in enumerate(line):
                if score is None:
                    continue
                window = (
                    slice(row * side, (row + 1) * side),
                    slice(column * side, (column + 1) * side),
                )
                counts = {kind: int(mask[window].sum()) for kind, mask in masks.items()}
                largest = max(counts, key=lambda kind: counts[kind], default="good")
                self.labels.append(largest if counts.get(largest) else "good")
                self.scores.append(score)

    def by_modality(self) -> dict[str, dict[str, ModalityPixels]]:
        """For each kind the figures of the map of each modality against its prediction from the others."""
        found: dict[str, dict[str, ModalityPixels]] = {}
        for (kind, name), metrics in sorted(self._cross.items()):
            result = metrics.result()
            if result.images and result.auroc is not None:
                found.setdefault(kind, {})[name] = ModalityPixels(auroc=result.auroc, ap=result.ap)
        return found


def _update(
    metrics: PixelMetrics,
    values: NDArray[np.float32],
    truth: NDArray[np.bool_],
    counted: NDArray[np.bool_],
) -> None:
    counted = counted & np.isfinite(values)
    if counted.any():
        metrics.update(np.maximum(np.nan_to_num(values), 0), truth, counted=counted)


def _write_page(path: Path, evaluation: Evaluation) -> None:
    squares: list[Sequence[str | float | None]] = []
    for name, result in evaluation.image.items():
        figures = (number_text(result.figures[key].value) for key in ("auroc", "ap", "bad_rejected"))
        squares.append([name, result.defective, *figures])
    pixels: list[Sequence[str | float | None]] = [
        [name, *(pixel_figure(result, key) for key in ("auroc", "ap", "f1max", "aupro_30"))]
        for name, result in {"all": evaluation.pixel, **evaluation.pixel.groups}.items()
    ]
    names = sorted({name for one in evaluation.modalities.values() for name in one})
    crossed: list[Sequence[str | float | None]] = [
        [
            kind,
            *(
                f"{number_text(one[name].auroc)} / {number_text(one[name].ap)}" if name in one else "–"
                for name in names
            ),
        ]
        for kind, one in evaluation.modalities.items()
    ]
    sections: list[Section] = [
        *([Prose(_rejects_in_words(evaluation.false_rejects))] if evaluation.false_rejects else []),
        TableSection(
            "Squares",
            ["marked", "squares", "AUROC", "AP", "rejected"],
            squares,
            "A square counts as what marks most of its pixels, and as flawless where nothing is marked.",
        ),
        TableSection(
            "Pixels of the anomaly map",
            ["marked", "AUROC", "AP", "F1 max", "AUPRO 0.3"],
            pixels,
            "Brackets hold 95 % bootstrap intervals over blocks. Pixels that another mask marks do not count.",
        ),
        TableSection(
            "Pixels of what a modality shows and the others do not predict: AUROC / AP",
            ["marked", *names],
            crossed,
        ),
    ]
    write_page(
        path,
        title=f"{evaluation.recipe} on {evaluation.dataset}",
        subtitle="Maps of scenes compared with masks; the inspection is in report.html",
        sections=sections,
        footer="Written by Blemish. This file is complete: it opens without a network.",
    )


def _rejects_in_words(rejects: FalseRejects) -> str:
    aim = "" if rejects.promised is None else f"; the calibration aims at {100 * rejects.promised:.3g} %"
    return f"{rejects.rejected} of {rejects.good} flawless squares are above the threshold{aim}."


def refuse_label(good_label: str | None, dataset: Path) -> None:
    """Refuse a label of good images, which scenes have not."""
    if good_label is not None:
        raise UsageError(f"{dataset}: holds scenes, whose masks say what is flawless; leave --good out")
