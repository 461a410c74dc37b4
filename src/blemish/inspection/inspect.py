"""Inspection of files by what a detector was fitted on: images or scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from blemish.decision import Inspection
from blemish.errors import UsageError
from blemish.inspection.detector import Detector
from blemish.inspection.document import Subject
from blemish.inspection.folder import Outputs, inspect_folder
from blemish.observer import Observer
from blemish.report.save_settings import SaveSettings


class InspectionResult(Protocol):
    """The output folder of an inspection."""

    @property
    def records(self) -> Sequence[Inspection]:
        """Records of the finished images or scenes."""

    @property
    def report(self) -> Path:
        """Path of the report page."""

    def in_words(self) -> str:
        """Summary in one line."""

    def remarks(self) -> list[str]:
        """Lines beside :meth:`in_words`."""


def inspect(
    detector: Detector,
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    hide: Sequence[str] = (),
    reconstruction: bool = False,
    save: SaveSettings | None = None,
    workers: int = 1,
    outputs: Outputs | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> InspectionResult:
    """Inspect every image or scene in ``source``, and write records, maps and the report to ``out``.

    Parameters
    ----------
    source: of images also several files and folders.
    outputs: what is written beside records, maps and report, of images only.
    hide, reconstruction, save, workers: as :func:`~blemish.inspection.scenes.inspect_scenes` takes them, of scenes only.
    resume: go on with an inspection that was stopped.
    overwrite: replace what an earlier inspection wrote.

    Raises
    ------
    Stopped
        When the observer asked to stop: what is finished is on disk and in the report.
    UsageError
        When an option is not for what the model was fitted on.
    FileError
        When ``source`` holds nothing to inspect or ``out`` cannot be written.
    """
    return _INSPECT[detector.file.subject](
        detector,
        [source] if isinstance(source, (str, Path)) else list(source),
        out,
        {"hide": hide, "reconstruction": reconstruction, "save": save, "workers": workers},
        outputs,
        {"resume": resume, "overwrite": overwrite, "observer": observer},
    )


Options = Mapping[str, Any]


def _images(
    detector: Detector,
    sources: Sequence[str | Path],
    out: str | Path,
    of_scenes: Options,
    outputs: Outputs | None,
    common: Options,
) -> InspectionResult:
    if of_scenes["hide"] or of_scenes["reconstruction"]:
        raise UsageError("--hide and --reconstruction are for scenes; this model was fitted on images")
    if of_scenes["save"] is not None:
        raise UsageError("--save is for scenes; this model was fitted on images")
    if of_scenes["workers"] != 1:
        raise UsageError("--workers is for scenes; this model was fitted on images")
    return inspect_folder(detector, sources, out, outputs=outputs, **common)


def _scenes(
    detector: Detector,
    sources: Sequence[str | Path],
    out: str | Path,
    of_scenes: Options,
    outputs: Outputs | None,
    common: Options,
) -> InspectionResult:
    if outputs is not None and outputs != Outputs():
        raise UsageError("--overlays, --masks and --coco are for images; this model was fitted on scenes")
    if len(sources) != 1:
        raise UsageError("several folders of scenes are inspected one by one; name one")
    from blemish.inspection.scenes import inspect_scenes  # needs the extra [large], which images do without

    return inspect_scenes(detector, sources[0], out, **of_scenes, **common)


_INSPECT: Mapping[Subject, Callable[..., InspectionResult]] = {"images": _images, "scenes": _scenes}
