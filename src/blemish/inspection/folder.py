"""A folder of images inspected into a folder of records, maps, overlays and a report."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from blemish.data.datasets import Item, find_images, read_mask
from blemish.data.image import SUFFIXES, read_image
from blemish.data.maps import read_map, write_image, write_map
from blemish.decision import Drift, Inspection, append_record, find_drift, read_records
from blemish.errors import BlemishError, FileError, ImageError, Stopped, UsageError
from blemish.inspection.detector import Detection, Detector
from blemish.observer import Observer
from blemish.report import ImageViews, ModelSummary, Section, overlay, write_inspection_report
from blemish.report.numbers import counted
from blemish.storage.atomic import write_json

RECORDS_FILE, SETTINGS_FILE, REPORT_FILE = "inspections.jsonl", "inspection.json", "report.html"
EVALUATION_FILE = "evaluation.json"
IMAGE_FOLDERS = ("maps", "overlays", "reconstructions")
# White on a written map; anything beyond is kept, at the cost of that map's resolution alone.
FULL_SCALE_LEVELS = 8.0


class InspectionFolder:
    """The output folder of an inspection: finished images stay whatever happens to the next one.

    An image's map, overlay and reconstruction are written before its record, so a record vouches for them.
    """

    def __init__(
        self, folder: str | Path, detector: Detector, *, resume: bool = False, overwrite: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.detector = detector
        self.problems: list[BlemishError] = []
        settings = _settings(detector)
        self.records: list[Inspection] = []
        path = self.folder / RECORDS_FILE
        if resume and overwrite:
            raise UsageError("--resume goes on with what is there, --overwrite replaces it; give one")
        there = os.path.exists(path)
        if there and resume:
            self.records = read_records(path)
            self._refuse_other(settings)
        elif there and overwrite:
            self._clear()
        elif there:
            raise UsageError(
                f"{self.folder}: already holds an inspection; replace it with --overwrite, choose another "
                f"--out, or go on with an unfinished blemish inspect by --resume"
            )
        write_json(self.folder / SETTINGS_FILE, settings)

    def _clear(self) -> None:
        """Remove what an earlier inspection wrote, and nothing else; the records last, since they list it."""
        records = self.folder / RECORDS_FILE
        with suppress(FileError):  # without readable records, images of the same names are replaced
            for record in read_records(records):
                place = PurePath(record.path)
                if not place.is_absolute() and ".." not in place.parts:
                    for kind in IMAGE_FOLDERS:
                        _remove(self._place(kind, record.path))
        for kind in IMAGE_FOLDERS:
            _remove_empty(self.folder / kind)
        for name in (REPORT_FILE, EVALUATION_FILE, SETTINGS_FILE, RECORDS_FILE):
            _remove(self.folder / name)

    def _refuse_other(self, settings: dict[str, Any]) -> None:
        """Records of another model or threshold must not be mixed with these."""
        path = self.folder / SETTINGS_FILE
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise FileError(
                path, "cannot be read, so the inspection cannot go on", "use --overwrite"
            ) from None
        for key in ("weights_sha256", "threshold", "level"):
            if before.get(key) != settings[key]:
                raise UsageError(
                    f"{self.folder}: was inspected with another {key.removesuffix('_sha256')}; "
                    f"use --overwrite or another --out"
                )

    def done(self) -> set[str]:
        """Names of the images that have a record."""
        return {record.path for record in self.records}

    def add(self, found: Detection, label: str | None = None) -> Inspection:
        """Write what was found in one image."""
        write_map(
            self._place("maps", found.name),
            found.map,
            full_scale=FULL_SCALE_LEVELS * found.level or 1.0,
            measure=self.detector.measure_name,
        )
        if found.reconstruction is not None:
            write_image(self._place("reconstructions", found.name), found.reconstruction)
        drawn = overlay(found.image, found.map, found.level, found.regions)  # (H, W, 3)
        write_image(self._place("overlays", found.name), np.moveaxis(drawn, -1, 0) / 255)
        record = found.record(label)
        append_record(self.folder / RECORDS_FILE, record)
        self.records.append(record)
        return record

    def drift(self) -> Drift:
        """Whether the images look like those of the calibration; without those known to be blemished."""
        scores = [record.score for record in self.records if record.label in ("good", None)]
        return find_drift(self.detector.file.calibration.scores, scores, self.detector.threshold)

    def _place(self, kind: str, name: str) -> Path:
        """``a.png`` keeps its name and ``a.bmp`` becomes ``a.bmp.png``, so an image ``a.bmp.png`` cannot."""
        path = PurePath(name)
        keeps = path.suffix.lower() == ".png" and PurePath(path.stem).suffix.lower() not in SUFFIXES
        return self.folder / kind / (name if keeps else f"{name}.png")

    def write_report(self, items: Sequence[Item], sections: Sequence[Section] = ()) -> None:
        """``report.html`` from what is on disk; ``items`` say where the images and masks are."""
        by_name = {item.name: item for item in items}

        def panels(record: Inspection) -> ImageViews:
            item = by_name[record.path]
            image = read_image(item.path)
            mask = None
            if item.mask is not None:
                with suppress(ImageError):  # evaluating has said so, and the image is worth showing
                    mask = read_mask(item.mask, size=image.size)
            return ImageViews(
                image.floats(),
                read_image(self._place("reconstructions", record.path)).floats(),
                read_map(self._place("maps", record.path)),
                mask,
            )

        detector, recipe = self.detector, self.detector.recipe
        training = detector.file.training
        write_inspection_report(
            self.folder / REPORT_FILE,
            model=ModelSummary(
                name=recipe.title,
                recipe=recipe.name,
                paper=recipe.paper,
                measure=detector.measure_name,
                trained=f"trained on {counted(len(detector.file.split['train']), 'good image')} "
                f"with {recipe.name} in {_duration(training.seconds)}",
            ),
            records=[record for record in self.records if record.path in by_name],
            panels=panels,
            calibration_scores=np.array(detector.file.calibration.scores),
            level=detector.level,
            guarantee=detector.guarantee,
            settings={key.replace("_", " "): str(value) for key, value in _settings(detector).items()},
            problems=[str(problem) for problem in self.problems],
            sections=sections,
            drift=self.drift(),
            false_reject_rate=detector.rule.false_reject_rate if detector.rule.rule == "conformal" else None,
        )


def inspect_folder(
    detector: Detector,
    images: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> InspectionFolder:
    """Inspect every image in ``images`` and write records, maps, overlays and the report to ``out``.

    An image that cannot be used is told to the observer and the others go on.

    Raises
    ------
    Stopped
        When the observer asked to stop: finished images are on disk and in the report.
    FileError
        When ``images`` holds no image or ``out`` cannot be written.
    """
    observer = observer or Observer()
    items = find_images(Path(images))
    output = InspectionFolder(out, detector, resume=resume, overwrite=overwrite)
    finished = output.done()
    left = sum(item.name not in finished for item in items)
    done = f", {len(items) - left} already done" if finished else ""
    observer.stage(f"Inspecting {counted(left, 'image')} in {images}{done}")
    try:
        for item, found in inspections(detector, items, observer, finished, output.problems):
            output.add(found, item.label)
    except BlemishError:
        with suppress(FileError):  # on a full disk the first failure is the one to tell
            output.write_report(items)
        raise
    output.write_report(items)
    return output


def inspections(
    detector: Detector,
    items: Sequence[Item],
    observer: Observer,
    finished: Container[str] = (),
    problems: list[BlemishError] | None = None,
) -> Iterator[tuple[Item, Detection]]:
    """Inspect ``items`` one by one, skipping ``finished`` names; what cannot be used joins ``problems``."""
    for count, item in enumerate(items, start=1):
        if item.name in finished:
            continue
        if observer.should_stop():
            raise Stopped(f"stopped after {count - 1} of {len(items)} images, which are finished")
        try:
            _refuse_unwritable(item)
            found = detector.inspect(read_image(item.path), name=item.name)
        except ImageError as problem:
            observer.problem(problem)
            if problems is not None:
                problems.append(problem)
        else:
            yield item, found
        observer.count(count, len(items))


def _refuse_unwritable(item: Item) -> None:
    try:
        item.name.encode()
    except UnicodeEncodeError:
        raise ImageError(item.path, "has a name that is not valid text", "rename it") from None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _settings(detector: Detector) -> dict[str, Any]:
    """What an inspection was made with; ``inspection.json``, and the report's last section."""
    recipe, file = detector.recipe, detector.file
    return {
        "recipe": recipe.name,
        "score": recipe.score.name,
        "threshold_rule": detector.rule.rule,
        "false_reject_rate": detector.rule.false_reject_rate if detector.rule.rule == "conformal" else None,
        "threshold": detector.threshold,
        "level": detector.level,
        "patch": recipe.patch.size,
        "stride": recipe.patch.stride,
        "resized_to": file.preparation.size,
        "channels": file.preparation.channels,
        "calibration_images": len(file.calibration.scores),
        "training_images": len(file.split["train"]),
        "training_steps": file.training.steps,
        "trained_on": file.training.machine_words,
        "images_sha256": file.fingerprint.sha256,
        "weights_sha256": file.weights_sha256,
        "fitted_by": f"blemish {file.blemish}",
    }


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(path, f"cannot be replaced ({error.strerror})", "choose another --out") from None


def _remove_empty(folder: Path) -> None:
    """Remove ``folder`` and the folders below it as far as they are empty."""
    if not folder.is_dir():
        return
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            below.rmdir()
    with suppress(OSError):
        folder.rmdir()
