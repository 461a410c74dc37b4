"""Jobs of a batch: which image becomes which file, and which files an earlier run has written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from blemish.data.datasets import look_for_images
from blemish.data.items import Item
from blemish.errors import FileError, UsageError
from blemish.jpeg.batch.records import EncodedFile, file_sha256
from blemish.jpeg.batch.settings import BatchSettings
from blemish.storage.records_log import RecordsLog

_JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}
_ALSO = frozenset({".tga"})
"""Suffixes that a folder is searched for beside those of all images."""


@dataclass(frozen=True)
class EncodingJob:
    """One image to encode: ``output`` is the name of its file within ``root``."""

    item: Item
    root: Path
    output: str
    settings: BatchSettings
    in_place: bool
    fingerprint: str

    @property
    def path(self) -> Path:
        """Path of the output file; in place, the target of a link."""
        return self.path_of(self.output)

    def path_of(self, output: str) -> Path:
        """Path of the output file where it is called ``output``, as an original that is kept instead."""
        return _real(self.item.path) if self.in_place else self.root / output


def _real(path: Path) -> Path:
    """``path`` without links; unlike Path.resolve also where links lead in a circle, which reading reports."""
    return Path(os.path.realpath(path))


def plan_jobs(
    sources: Sequence[Path], out: Path | None, settings: BatchSettings, fingerprint: str
) -> tuple[list[EncodingJob], list[str]]:
    """One job for each image of ``sources``, and lines on what was passed over.

    ``out`` is None where files are replaced in place.

    Raises
    ------
    UsageError
        No source, an output folder that is a source, an image that lies where its output would, two images with one
        output.
    FileError
        A source without images.
    """
    if not sources:
        raise UsageError("no images are named; give files or folders")
    jobs: list[EncodingJob] = []
    lines: list[str] = []
    for source in sources:
        found = look_for_images(source, with_masks=True, also=_ALSO)
        items = found.items
        lines += found.notices()
        if out is None:
            root = source if source.is_dir() else source.parent
            jobs += [EncodingJob(item, root, item.name, settings, True, fingerprint) for item in items]
            continue
        if source.is_dir() and _real(out) == _real(source):
            raise UsageError(f"{out}: holds the images themselves; give another --out, or --in-place")
        if len(sources) > 1 and source.is_dir():
            folder = _real(source).name
            items = [Item(item.path, f"{folder}/{item.name}") for item in items]
        inside = _real(out)
        jobs += [
            EncodingJob(item, out, _output_name(item.name), settings, False, fingerprint)
            for item in items
            # within a folder that is searched, an earlier run's output
            if not source.is_dir() or inside not in _real(item.path).parents
        ]
    if out is None:
        return list({job.path: job for job in jobs}.values()), lines
    jobs = _with_distinct_outputs(jobs)
    if not jobs:
        raise FileError(sources[0], "holds no image beside the output", "name a folder with images")
    for job in jobs:
        if _real(job.path) == _real(job.item.path):
            raise UsageError(
                f"{job.item.path}: lies where its output would; give another --out, or --in-place"
            )
    return jobs, lines


def _output_name(name: str) -> str:
    path = PurePosixPath(name)
    return name if path.suffix.lower() in _JPEG_SUFFIXES else str(path.with_suffix(".jpg"))


def _with_distinct_outputs(jobs: Sequence[EncodingJob]) -> list[EncodingJob]:
    """The jobs, each with an output of its own: ``a.png`` beside ``a.jpg`` becomes ``a.png.jpg``."""

    def key(name: str) -> str:
        return name.casefold()  # some disks take a.jpg and A.JPG for one file

    taken: dict[str, list[EncodingJob]] = {}
    for job in jobs:
        taken.setdefault(key(job.output), []).append(job)
    result: dict[str, EncodingJob] = {}
    for job in jobs:
        if len(taken[key(job.output)]) > 1 and job.output != job.item.name:
            job = replace(job, output=f"{job.item.name}.jpg")
        other = result.setdefault(key(job.output), job)
        if other is not job:
            raise UsageError(
                f"{other.item.path} and {job.item.path} would both become {job.output}; rename one, or encode "
                "them into two folders"
            )
    return list(result.values())


def split_done(
    jobs: Sequence[EncodingJob], logs: dict[Path, RecordsLog[EncodedFile]], fingerprint: str
) -> tuple[dict[EncodingJob, EncodedFile], list[EncodingJob]]:
    """The jobs that an earlier run has done, with their records, and those that are left."""
    records: dict[tuple[Path, str], list[EncodedFile]] = {}
    for root, log in logs.items():
        for record in log.records:
            if record.settings == fingerprint:
                records.setdefault((root, record.output), []).append(record)
    done: dict[EncodingJob, EncodedFile] = {}
    left = []
    for job in jobs:
        names = dict.fromkeys((job.output, job.item.name))  # the second where the original was kept
        for record in (one for name in names for one in reversed(records.get((job.root, name), []))):
            if file_sha256(job.path_of(record.output)) == record.output_sha256 and (
                job.in_place or file_sha256(job.item.path) == record.input_sha256
            ):
                done[job] = record
                break
        else:
            left.append(job)
    return done, left
