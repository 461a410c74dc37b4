"""What ``--on`` does in the commands that work on archives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blemish.cli.session import print_json, say
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.inspection.detector import Detector
    from blemish.inspection.folder import Outputs
    from blemish.jpeg.batch import BatchSettings
    from blemish.observer import Observer
    from blemish.scale.archive import ArchiveResult


def refuse_outputs(
    outputs: Outputs, hide: list[str] | None, save: str | None, *, reconstruction: bool
) -> None:
    """Refuse options that have no meaning for an archive; raises UsageError."""
    if hide or save or reconstruction or outputs != type(outputs)():
        raise UsageError(
            "--on writes records alone; leave --overlays, --masks, --coco, --save, --hide and --reconstruction out"
        )


def inspect_on(
    on: str,
    workers: int | None,
    detector: Detector,
    images: list[str],
    out: Path,
    resume: bool,
    overwrite: bool,
    parts: str | None,
    observer: Observer,
) -> ArchiveResult:
    """Inspect images on the cluster ``on``."""
    from blemish.scale.archive import inspect_archive
    from blemish.scale.cluster import JobSettings

    job = JobSettings(on, workers, parts=parts)
    return inspect_archive(
        detector, images, out, job=job, resume=resume, overwrite=overwrite, observer=observer
    )


def encode_on(
    on: str,
    workers: int | None,
    images: list[str],
    out: Path,
    settings: BatchSettings,
    files: str | None,
    resume: bool,
    overwrite: bool,
    parts: str | None,
    observer: Observer,
) -> ArchiveResult:
    """Encode images on the cluster ``on``."""
    from blemish.scale.archive import encode_archive
    from blemish.scale.cluster import JobSettings

    return encode_archive(
        images,
        out,
        settings=settings,
        files=files,
        job=JobSettings(on, workers, parts=parts),
        resume=resume,
        overwrite=overwrite,
        observer=observer,
    )


def show_archive(archive: ArchiveResult, *, as_json: bool) -> None:
    """Print the summary of an archive."""
    for notice in archive.notices:
        say(notice, err=True)
    if as_json:
        print_json(archive.figures())
    else:
        say(archive.in_words())
        say(f"Records: {archive.folder / 'parts'}")
