"""Inspect and encode archives: listed by the driver, worked on by Ray Data's actors, written by the driver in parts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish._version import __version__
from blemish.errors import BlemishError, FileError, Stopped
from blemish.inspection.settings import area_sha256, inspection_settings
from blemish.jpeg.batch.records import size_in_words
from blemish.jpeg.batch.settings import BatchSettings
from blemish.jpeg.batch.worker import learned_encoder
from blemish.jpeg.protection import load_detector
from blemish.observer import Observer
from blemish.report.numbers import counted
from blemish.scale.archive_folder import ArchiveFolder
from blemish.scale.cluster import JobSettings, connected
from blemish.scale.listing import ArchiveListing, look_at
from blemish.scale.parts_copy import PartsCopy
from blemish.scale.stream import result_tables, stored
from blemish.scale.tables import ERROR, FORMER, UNREAD, result_schema
from blemish.scale.work import EncodingWork, ImageWork, InspectionWork, contents, output_name, sha256_of_files
from blemish.scale.worker import planned_row
from blemish.storage.leftovers import remove_temporary_folders, temporary_folder
from blemish.storage.run_lock import owned

if TYPE_CHECKING:
    import pyarrow as pa

    from blemish.inspection.detector import Detector

FILES = "files"
"""Folder of the encoded files, in the output folder."""
_GIVEN_UP = 100
"""Images in a row whose store does not answer, after which a job stops."""
_TABLES = (16, 64, 256, 512)
"""Images of a table that is worked on at once, and lost at once where a worker is killed: small ones first, so that few
images are spread over all workers; each size is taken by :data:`_OF_A_SIZE` tables, the last by all others."""
_OF_A_SIZE = 64


@dataclass(frozen=True)
class ArchiveResult:
    """Counts over all parts, of earlier runs too, and what this run took."""

    folder: Path
    images: int
    rejected: int
    errors: int
    unread: int
    """Images without a result, because a store did not answer or a file could not be written; a job that is resumed takes them
    again."""
    done_before: int
    seconds: float
    starting_seconds: float
    """Until the first results came, as the cluster starts and its workers load the model."""
    starting_images: int
    """Images of these first results."""
    workers: int
    bytes_read: int
    bytes_written: int
    cpu_seconds: float
    notices: tuple[str, ...] = field(default=(), repr=False)

    @property
    def images_per_second(self) -> float:
        """Of this run, from the first image listed to the last part written."""
        return (self.images - self.done_before) / self.seconds if self.seconds else 0.0

    def figures(self) -> dict[str, Any]:
        """The figures of ``summary.json``."""
        names = (one.name for one in fields(self) if one.name not in ("folder", "notices"))
        return {name: getattr(self, name) for name in names} | {"images_per_second": self.images_per_second}

    def in_words(self) -> str:
        """Summary in one line."""
        words = f"{counted(self.images, 'image')}: {self.rejected} rejected, {self.errors} could not be used"
        if self.unread:
            words += f", {self.unread} could not be read or written now"
        if self.done_before:
            words += f"; {self.done_before} done by an earlier run"
        return (
            f"{words}; {size_in_words(self.bytes_read)} read, {self.images_per_second:.3g} images/s "
            f"with {counted(self.workers, 'worker')}"
        )


def inspect_archive(
    detector: Detector,
    sources: Sequence[str],
    out: str | Path,
    *,
    job: JobSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> ArchiveResult:
    """Inspect all images of ``sources`` on a cluster; records are rows of the Parquet files in ``out``/parts.

    Scores are those of ``Detector.inspect``. An image that cannot be used is a row with its error, and the others go on.

    Parameters
    ----------
    sources: folders, images, CSV lists, Parquet listings with a column ``image``, and URLs, which all workers can read.
    out: folder of the machine that this runs on.
    job: how the job is run.
    resume: go on with a job that was stopped or killed; finished images are not read again.
    overwrite: replace the results of an earlier job.

    Raises
    ------
    Stopped
        When the observer asked to stop: finished images are in parts.
    UsageError
        The output folder holds results of another job; a source, or the cluster's address, is none.
    FileError
        A source that cannot be listed, an output folder that cannot be written, a store that does not answer.
    """
    detector.file.check_subject("images", "an archive is one of single images", "inspect scenes without --on")
    with temporary_folder() as folder:
        files = contents(detector.save(folder / "model"))
    settings = {
        "work": "inspection",
        **inspection_settings(detector),
        "mask": area_sha256(detector),
        "model_sha256": sha256_of_files(files),
        "blemish": __version__,
    }
    compared = ("work", "weights_sha256", "threshold", "level", "mask", "blemish")
    return _run(
        InspectionWork(files),
        look_at(sources),
        Path(out),
        settings,
        compared,
        job,
        resume,
        overwrite,
        observer,
    )


def encode_archive(
    sources: Sequence[str],
    out: str | Path,
    *,
    settings: BatchSettings | None = None,
    files: str | None = None,
    job: JobSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> ArchiveResult:
    """Encode all images of ``sources`` as JPEG files on a cluster; records are rows of the Parquet files in ``out``/parts.

    Other parameters and errors are those of :func:`inspect_archive`.

    Parameters
    ----------
    settings: of the encoder.
    files: folder or URL that all workers can write the files to; ``out``/files without.
    """
    settings = settings or BatchSettings()
    fingerprint = settings.fingerprint()
    root = files or str(Path(out).absolute() / FILES)
    work = EncodingWork(
        settings,
        fingerprint,
        root,
        protect=None if settings.protect is None else _files_of(settings.protect, load_detector),
        model=None if settings.model is None else _files_of(settings.model, learned_encoder),
        overwrite=overwrite,
    )
    stored = {"work": "encoding", "settings": json.loads(fingerprint, parse_constant=str), "files": root}
    return _run(work, look_at(sources), Path(out), stored, tuple(stored), job, resume, overwrite, observer)


def _files_of(folder: Path, load: Callable[[Path], object]) -> dict[str, bytes]:
    """Files of a model's folder; one that holds no model is refused before any worker starts."""
    load(folder)
    return contents(folder)


def _run(
    work: ImageWork,
    listing: ArchiveListing,
    out: Path,
    settings: Mapping[str, Any],
    compared: Sequence[str],
    job: JobSettings | None,
    resume: bool,
    overwrite: bool,
    observer: Observer | None,
) -> ArchiveResult:
    job, observer = job or JobSettings(), observer or Observer()
    job.check()
    schema = result_schema(work.record, listing.carried)
    with owned(out):
        folder = ArchiveFolder(out, work, settings, compared, resume=resume, overwrite=overwrite)
        with closing(folder):
            copy = None if job.parts is None else PartsCopy(out, job.parts, overwrite=overwrite)
            if copy is not None:
                copy.bring(folder.parts)
            done_before = sum(part.images for part in folder.parts)
            written_before = {part.name for part in folder.parts}
            begun = time.perf_counter()
            tables = _tables(work, listing, folder, observer)
            first = next(tables, None)
            unread, workers, starting, first_images = 0, 0, 0.0, 0
            if first is not None:
                observer.stage(f"Starting workers on {job.on}")
                with connected(job) as workers:
                    writer = _work_off(first, tables, work, folder, copy, schema, job, workers, observer)
                unread, starting, first_images = writer.unread, writer.begun - begun, writer.first
                # Workers of a driver that was killed may have ended while this one was at work.
                remove_temporary_folders()
            folder.drop_superseded()
            new = [part for part in folder.parts if part.name not in written_before]
            result = ArchiveResult(
                folder=out,
                images=sum(part.images for part in folder.parts),
                rejected=sum(part.rejected for part in folder.parts),
                errors=sum(part.errors for part in folder.parts),
                unread=unread,
                done_before=done_before,
                seconds=time.perf_counter() - begun,
                starting_seconds=starting,
                starting_images=first_images,
                workers=workers,
                bytes_read=sum(part.bytes_read for part in new),
                bytes_written=sum(part.bytes for part in new),
                cpu_seconds=sum(part.cpu_seconds for part in new),
                notices=tuple(listing.notices),
            )
            folder.vouch(result.figures())
            if copy is not None:
                copy.bring(folder.parts)
                copy.finish()
    return result


def _tables(
    work: ImageWork, listing: ArchiveListing, folder: ArchiveFolder, observer: Observer
) -> Iterator[pa.Table]:
    """The images that have no result yet, in tables."""
    import pyarrow as pa

    observer.stage("Listing images")
    fixed = [pa.field(name, pa.string()) for name in ("path", "image", "version", FORMER)]
    schema = pa.schema([*fixed, *listing.carried])
    carried = [one.name for one in listing.carried]
    rows: list[dict[str, Any]] = []
    made = 0
    for image in listing.images():
        if not folder.first(image.name, image.place):
            continue
        if isinstance(work, EncodingWork):
            folder.first(f"output {output_name(image.name)}".casefold(), image.place)
        if folder.is_finished(image.name, image.version):
            continue
        rows.append(planned_row(image, carried, folder.output_of(image.name)))
        if len(rows) == _TABLES[min(made // _OF_A_SIZE, len(_TABLES) - 1)]:
            yield pa.Table.from_pylist(rows, schema=schema)
            rows, made = [], made + 1
    if rows:
        yield pa.Table.from_pylist(rows, schema=schema)


def _work_off(
    first: pa.Table,
    tables: Iterator[pa.Table],
    work: ImageWork,
    folder: ArchiveFolder,
    copy: PartsCopy | None,
    schema: pa.Schema,
    job: JobSettings,
    workers: int,
    observer: Observer,
) -> _Writer:
    """Work on all tables and write the results."""
    total = 0

    def counting() -> Iterator[pa.Table]:
        nonlocal total
        for table in chain([first], tables):
            total += table.num_rows
            yield table

    planned = stored(counting())
    observer.stage(f"Working on {counted(total, 'image')} with {counted(workers, 'worker')}")
    results = result_tables(planned, work, schema, job, workers)
    with closing(_Writer(folder, copy, job)) as writer:
        try:
            for result in results:
                writer.take(result, observer)
                observer.count(writer.taken, total)
                if writer.taken < total and observer.should_stop():
                    raise Stopped(f"stopped after {writer.taken} of {total} images, which are finished")
        finally:
            writer.write()
    if writer.taken != total:
        raise BlemishError(f"the cluster gave {writer.taken} of {total} images back; go on with --resume")
    return writer


class _Writer:
    """Collects results until there are enough for a part."""

    def __init__(self, folder: ArchiveFolder, copy: PartsCopy | None, job: JobSettings) -> None:
        self.taken = self.unread = self.first = 0
        self.begun = time.perf_counter()
        """When the first results came, of :attr:`first` images."""
        self._folder, self._copy, self._job = folder, copy, job
        self._waiting: list[pa.Table] = []
        self._since = time.monotonic()
        self._in_a_row = 0

    def take(self, table: pa.Table, observer: Observer) -> None:
        """Take results, and write a part where there are enough."""
        import pyarrow.compute as pc

        if not self.taken:
            self.begun, self.first = time.perf_counter(), table.num_rows
        self.taken += table.num_rows
        failed = table.filter(pc.field(UNREAD))
        self.unread += failed.num_rows
        self._in_a_row = self._in_a_row + failed.num_rows if failed.num_rows == table.num_rows else 0
        for line in table.filter(pc.is_valid(pc.field(ERROR))).column(ERROR).to_pylist():
            observer.problem(BlemishError(line))
        if self._in_a_row >= _GIVEN_UP:
            raise FileError(self._folder.path, f"{failed.column(ERROR)[0]}", "go on with --resume")
        kept = table.filter(~pc.field(UNREAD)).drop_columns([UNREAD])
        if kept.num_rows:
            self._waiting.append(kept)
        enough = sum(one.num_rows for one in self._waiting) >= self._job.part
        if enough or time.monotonic() - self._since > self._job.seconds:
            self.write()

    def write(self) -> None:
        """Write what waits as a part."""
        import pyarrow as pa

        if self._waiting:
            self._folder.add(pa.concat_tables(self._waiting))
            if self._copy is not None:
                self._copy.bring(self._folder.parts)
        self._waiting, self._since = [], time.monotonic()

    def close(self) -> None:
        """Forget what waits."""
        self._waiting = []
