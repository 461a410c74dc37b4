"""A folder of images inspected into a folder of records, maps, overlays and a report."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

import numpy as np

from blemish.data.appearance import stretch, stretched
from blemish.data.datasets import look_in_all
from blemish.data.fingerprint import file_sha256
from blemish.data.image import SUFFIXES, levels, read_image
from blemish.data.items import Item
from blemish.data.maps import read_map, write_image, write_map
from blemish.data.masks import read_masks
from blemish.data.opening import RENAME
from blemish.decision import Drift, Inspection, find_drift, read_records
from blemish.errors import BlemishError, FileError, ImageError, NameInTheWayError, Stopped
from blemish.inspection.detection import Detection
from blemish.inspection.detector import Detector
from blemish.inspection.exports import COCO_FILE, CSV_FILE, MASKS, write_coco, write_csv, write_masks
from blemish.inspection.settings import area_sha256, inspection_settings, settings_in_words
from blemish.observer import Observer
from blemish.report import ImageViews, ModelSummary, Section, overlay, write_inspection_report
from blemish.report.numbers import counted
from blemish.storage.records_log import RecordsLog
from blemish.storage.run_folder import RunFolder, RunMark
from blemish.storage.run_lock import owned

RECORDS_FILE, SETTINGS_FILE, REPORT_FILE = "inspections.jsonl", "inspection.json", "report.html"
EVALUATION_FILE = "evaluation.json"
IMAGE_FOLDERS = ("maps", "overlays", "reconstructions", MASKS)
# White on a written map; anything beyond is kept, at the cost of that map's resolution alone.
FULL_SCALE_LEVELS = 8.0


class InspectedImage(NamedTuple):
    """An inspected image, its result, and the SHA-256 of its file."""

    item: Item
    found: Detection
    sha256: str


@dataclass(frozen=True)
class Outputs:
    """What an inspection writes beside records, maps and report.

    overlays: of which images overlays are written. masks: whether label masks are written, to ``masks/``. coco: whether
    the regions are written in the format of COCO, to ``coco.json``.
    """

    overlays: Literal["all", "rejected", "none"] = "all"
    masks: bool = False
    coco: bool = False


class InspectionFolder:
    """The output folder of an inspection: finished images stay whatever happens to the next one.

    An image's map, overlay and reconstruction are written before its record, so a record vouches for them.

    Parameters
    ----------
    resume, overwrite: go on with an earlier inspection, or replace it.
    offer_resume: whether the command has such an option, to offer where neither is asked for.
    outputs: what is written beside records, maps and report.
    """

    def __init__(
        self,
        folder: str | Path,
        detector: Detector,
        *,
        resume: bool = False,
        overwrite: bool = False,
        offer_resume: bool = True,
        outputs: Outputs | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.detector = detector
        self.outputs = outputs or Outputs()
        self.problems: list[BlemishError] = []
        self.records: list[Inspection] = []
        """Records of the finished images."""
        self._log: RecordsLog[Inspection] | None = None
        resumed = self._run(offer_resume).claim(
            # Runs of before there was a choice have all overlays, and no such setting.
            {
                **inspection_settings(detector),
                "overlays": None if self.outputs.overlays == "all" else self.outputs.overlays,
                "mask": area_sha256(detector),
            },
            resume=resume,
            overwrite=overwrite,
            compared=("weights_sha256", "threshold", "level", "overlays", "mask"),
            written=self._written,
            emptied=IMAGE_FOLDERS,
        )
        if resumed:
            self._open_log()

    def _run(self, offer_resume: bool) -> RunFolder:
        refusal = "already holds an inspection; replace it with --overwrite, or choose another --out"
        if offer_resume:
            refusal += ", or go on with an unfinished one by --resume"
        return RunFolder(
            self.folder,
            [RunMark(RECORDS_FILE, refusal)],
            settings_file=SETTINGS_FILE,
            other="was inspected with another {setting}; use --overwrite or another --out",
            unreadable=("cannot be read, so the inspection cannot be resumed", "use --overwrite"),
        )

    def _written(self) -> Iterator[Path]:
        """Files of an earlier inspection, relative to the folder."""
        with suppress(FileError):  # without readable records, images of the same names are replaced
            for record in read_records(self.folder / RECORDS_FILE):
                for kind in IMAGE_FOLDERS:
                    yield _place(kind, record.path)
        yield from map(Path, (REPORT_FILE, EVALUATION_FILE, CSV_FILE, COCO_FILE))

    def _open_log(self) -> RecordsLog[Inspection]:
        """The log of the records, which is begun with the first of them."""
        if self._log is None:
            self._log = RecordsLog(self.folder / RECORDS_FILE, Inspection)
            self.records = self._log.records
        return self._log

    def finished(self, items: Sequence[Item], observer: Observer) -> set[str]:
        """Names of the images that have a record.

        Records whose maps are gone, or whose image in ``items`` is another one by its SHA-256, are dropped.
        """
        by_name = {item.name: item for item in items}
        if self.records:
            observer.stage(f"Comparing {counted(len(self.records), 'inspected image')} with the files")

        def is_valid(record: Inspection) -> bool:
            if not all(self._place(kind, record.path).is_file() for kind in self._kinds(record.is_anomalous)):
                return False
            if record.path not in by_name or record.sha256 is None:
                return True
            try:
                return file_sha256(by_name[record.path].path) == record.sha256
            except ImageError:
                return False  # to be reported when it is inspected again

        valid = [record for record in self.records if is_valid(record)]
        if len(valid) < len(self.records):
            changed = len(self.records) - len(valid)
            observer.stage(f"{counted(changed, 'image')} changed, or without maps: to be inspected again")
            self._open_log().keep(valid)
        return {record.path for record in valid}

    def _kinds(self, is_anomalous: bool) -> list[str]:
        """Folders with a file for a record; of a model that reconstructs nothing, there are no reconstructions."""
        kinds = ["maps"]
        if self._has_overlay(is_anomalous):
            kinds.append("overlays")
        if (self.folder / "reconstructions").is_dir():
            kinds.append("reconstructions")
        return kinds

    def _has_overlay(self, is_anomalous: bool) -> bool:
        return self.outputs.overlays == "all" or (self.outputs.overlays == "rejected" and is_anomalous)

    def add(self, one: InspectedImage, observer: Observer, label: str | None = None) -> None:
        """Write maps, overlay and record of one image; report one whose name they cannot take.

        Raises
        ------
        FileError
            When they cannot be written for another reason.
        """
        try:
            self._write(one, one.item.label if label is None else label)
        except NameInTheWayError as error:
            problem = error.of_image(one.item.path)
            observer.problem(problem)
            self.problems.append(problem)

    def _write(self, one: InspectedImage, label: str | None) -> None:
        found = one.found
        write_map(
            self._place("maps", found.name),
            found.map,
            full_scale=FULL_SCALE_LEVELS * found.pixel_threshold or 1.0,
            measure=self.detector.measure_name,
        )
        if found.planes is not None:
            # Plane by plane, and no name for one: floats of a large image are many.
            brighter = self._brightness if self.detector.file.preprocessing.range is None else 1.0
            planes = map(levels, map(partial(stretched, factor=brighter), found.planes()))
            write_image(self._place("reconstructions", found.name), np.stack(list(planes)))
        if self._has_overlay(found.is_anomalous):
            shown = stretched(found.loaded.pixels, self._brightness)
            drawn = overlay(shown, found.map, found.region_threshold, found.regions)  # (H, W, 3)
            write_image(self._place("overlays", found.name), np.moveaxis(drawn, -1, 0))
        self._open_log().append(found.record(label, one.sha256))

    def drift(self) -> Drift:
        """Drift between the images, without defective ones and those of another kind, and those of the calibration."""
        scores = [
            record.score
            for record in self.records
            if record.label in ("good", None) and record.other_kind is None
        ]
        decision = self.detector.decision
        return find_drift(decision.calibration.scores, scores, decision.threshold)

    @property
    def report(self) -> Path:
        """Path of the report page."""
        return self.folder / REPORT_FILE

    def in_words(self) -> str:
        """Summary in one line."""
        rejected = sum(record.is_anomalous is True for record in self.records)
        others = sum(record.other_kind is not None for record in self.records)
        apart = f", {others} of them as of another kind than the good images" if others else ""
        return f"{rejected} of {len(self.records)} images rejected{apart}."

    def remarks(self) -> list[str]:
        """Lines beside :meth:`in_words`: a drift, if there is one."""
        drift = self.drift().in_words()
        return [drift] if drift else []

    def write_exports(self) -> None:
        """Write the table in CSV, and label masks and annotations where they are asked for, of all finished images.

        Raises
        ------
        FileError
            When they cannot be written, or a map cannot be read.
        """
        level = self.detector.pixel_threshold
        write_csv(self.folder / CSV_FILE, self.records)
        if self.outputs.masks:
            write_masks(
                self.records,
                level,
                lambda name: self._place("maps", name),
                lambda name: self._place(MASKS, name),
            )
        if self.outputs.coco:
            write_coco(self.folder / COCO_FILE, self.records, level, lambda name: self._place("maps", name))

    @property
    def _brightness(self) -> float:
        """Factor by which images are brightened where people look at them."""
        return stretch(self.detector.file.fingerprint.appearance)

    def _place(self, kind: str, name: str) -> Path:
        return self.folder / _place(kind, name)

    def write_report(self, items: Sequence[Item], sections: Sequence[Section] = ()) -> None:
        """Write ``report.html`` from the files on disk; ``items`` say where the images and masks are."""
        by_name = {item.name: item for item in items}

        def panels(record: Inspection) -> ImageViews:
            item = by_name[record.path]
            image = read_image(item.path)
            mask = None
            with suppress(ImageError):  # evaluation has reported it; the image is still shown
                mask = read_masks(item.masks, size=image.size, image=item.path)
            reconstruction = self._place("reconstructions", record.path)
            return ImageViews(
                stretched(image.pixels, self._brightness),
                read_image(reconstruction).pixels if os.path.exists(reconstruction) else None,
                read_map(self._place("maps", record.path)),
                mask,
            )

        detector, recipe, decision = self.detector, self.detector.recipe, self.detector.decision
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
            calibration_scores=np.array(decision.calibration.scores),
            pixel_threshold=decision.pixel_threshold,
            guarantee=decision.guarantee,
            settings=settings_in_words(inspection_settings(detector)),
            problems=[str(problem) for problem in self.problems],
            sections=sections,
            drift=self.drift(),
            false_reject_rate=decision.promised_rate,
        )


def inspect_folder(
    detector: Detector,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    outputs: Outputs | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> InspectionFolder:
    """Inspect every image in ``images`` and write records, maps, overlays and the report to ``out``.

    An image that cannot be used is reported to the observer, and the others go on.

    Parameters
    ----------
    images: a folder, image or CSV list, or several; of several folders, names begin with that of the folder.
    outputs: what is written beside records, maps and report.

    Raises
    ------
    Stopped
        When the observer asked to stop: finished images are on disk and in the report.
    FileError
        When ``images`` holds no image or ``out`` cannot be written.
    """
    with owned(out):
        return _inspect_folder(
            detector,
            [Path(images)] if isinstance(images, (str, Path)) else [Path(one) for one in images],
            Path(out),
            outputs,
            resume,
            overwrite,
            observer or Observer(),
        )


def _inspect_folder(
    detector: Detector,
    sources: Sequence[Path],
    out: Path,
    outputs: Outputs | None,
    resume: bool,
    overwrite: bool,
    observer: Observer,
) -> InspectionFolder:
    images = ", ".join(map(str, sources))
    detector.file.check_subject("images", f"{images}: is inspected as images", "use inspect_scenes")
    collection = look_in_all(sources)
    for line in collection.notices():
        observer.stage(line)
    items = collection.items
    output = InspectionFolder(out, detector, resume=resume, overwrite=overwrite, outputs=outputs)
    finished = output.finished(items, observer)
    left = sum(item.name not in finished for item in items)
    done = f", {len(items) - left} already done" if finished else ""
    observer.stage(f"Inspecting {counted(left, 'image')} in {images}{done}")
    try:
        for one in inspections(detector, items, observer, finished, output.problems):
            output.add(one, observer)
    except BlemishError:
        with suppress(FileError):  # on a full disk the first failure is the one to report
            output.write_report(items)
            output.write_exports()
        raise
    output.write_report(items)
    output.write_exports()
    return output


def inspections(
    detector: Detector,
    items: Sequence[Item],
    observer: Observer,
    finished: Container[str] = (),
    problems: list[BlemishError] | None = None,
) -> Iterator[InspectedImage]:
    """Inspect ``items`` one by one, skipping ``finished`` names; errors of unusable images join ``problems``."""
    for count, item in enumerate(items, start=1):
        if item.name in finished:
            continue
        if observer.should_stop():
            raise Stopped(f"stopped after {count - 1} of {len(items)} images, which are finished")
        try:
            _refuse_unwritable(item)
            sha256 = file_sha256(item.path)
            found = detector.inspect(read_image(item.path), name=item.name)
        except ImageError as problem:
            observer.problem(problem)
            if problems is not None:
                problems.append(problem.without_frames())
        else:
            yield InspectedImage(item, found, sha256)
        observer.count(count, len(items))


def _refuse_unwritable(item: Item) -> None:
    try:
        item.name.encode()
    except UnicodeEncodeError:
        raise ImageError(item.path, "has a name that is not valid text here", RENAME) from None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _place(kind: str, name: str) -> Path:
    """``a.png`` keeps its name and ``a.bmp`` becomes ``a.bmp.png``, so an image ``a.bmp.png`` cannot."""
    path = PurePath(name)
    keeps = path.suffix.lower() == ".png" and PurePath(path.stem).suffix.lower() not in SUFFIXES
    return Path(kind) / (name if keeps else f"{name}.png")
