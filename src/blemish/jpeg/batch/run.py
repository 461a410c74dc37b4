"""Encode many images: into an output folder, or each file in its place."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from blemish.errors import DiskFullError, FileError, ImageError, NameInTheWayError, UsageError
from blemish.jpeg.batch.plan import EncodingJob, plan_jobs, split_done
from blemish.jpeg.batch.records import JOURNAL_FILE, BatchResult, EncodedFile, file_sha256
from blemish.jpeg.batch.settings import BatchSettings
from blemish.jpeg.batch.worker import EncodedJob, encode_one, learned_encoder, lost_one
from blemish.jpeg.protection import load_detector
from blemish.observer import Observer
from blemish.report.numbers import counted
from blemish.storage.atomic import atomic_path
from blemish.storage.leftovers import remove_leftovers
from blemish.storage.records_log import RecordsLog
from blemish.storage.run_lock import owned
from blemish.workers import each

PROTECTION_FILE = "blemish-jpeg.html"


def encode_folder(
    sources: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    in_place: bool = False,
    settings: BatchSettings | None = None,
    workers: int = 1,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> BatchResult:
    """Encode images, each into a file of its own; files that an earlier run wrote with the same settings are skipped.

    A file is skipped when the log has a line for it with these settings (version and shipped tables included) and
    with the SHA-256 of both input and output; in place, when the file has the SHA-256 of the output, so that a
    second run loses no quality. Every new file is decoded and its coefficients are compared before it takes its
    name, by renaming. Of a JPEG the lossless recoding is always tried, and taken where it is no larger than the newly
    encoded file. Nothing gets larger: where the new file is not smaller, the old bytes are kept, of other formats under
    their own name (but for dropped metadata, which they would hold).

    Parameters
    ----------
    sources: images, folders and CSV lists. From one folder names are kept as they are below it; of several
        each is a folder of its own in ``out``.
    out: folder for the files; JPEG files keep their names, others end in .jpg (``a.png.jpg`` where ``a.jpg``
        would be taken).
    in_place: replace each JPEG by the new file instead. Other formats are refused.
    workers: processes.
    overwrite: replace files in ``out`` that are not of an earlier run.

    Raises
    ------
    UsageError
        Options that exclude each other, sources that share an output.
    FileError
        A source that does not exist, an output folder that cannot be written, a full disk. Images that cannot be used
        are reported to the observer and skipped; so are, in place, files that cannot be replaced.
    Stopped
        When the observer asked to stop; finished files stay.
    """
    observer = observer or Observer()
    settings = settings or BatchSettings()
    if in_place == (out is not None):
        raise UsageError("give either --out, a folder for the new files, or --in-place")
    given = [sources] if isinstance(sources, (str, Path)) else list(sources)
    _load_models(settings)
    fingerprint = settings.fingerprint()
    jobs, passed_over = plan_jobs(
        [Path(source) for source in given], None if out is None else Path(out), settings, fingerprint
    )
    roots = sorted({job.root for job in jobs})
    with ExitStack() as held:
        for root in roots:
            held.enter_context(owned(root))
        for folder in {job.path.parent for job in jobs}:  # in place, links may lead out of the roots
            remove_leftovers(folder)
        result = _encode_jobs(jobs, roots, settings, in_place, workers, overwrite, observer)
    return replace(result, passed_over=tuple(passed_over))


def _encode_jobs(
    jobs: list[EncodingJob],
    roots: Sequence[Path],
    settings: BatchSettings,
    in_place: bool,
    workers: int,
    overwrite: bool,
    observer: Observer,
) -> BatchResult:
    fingerprint = settings.fingerprint()
    logs = {root: RecordsLog(root / JOURNAL_FILE, EncodedFile) for root in roots}
    done, left = split_done(jobs, logs, fingerprint)
    earlier = f", {len(done)} already done" if done else ""
    observer.stage(f"Encoding {counted(len(left), 'image')}{earlier}")
    finished = dict(done)
    for result in each(encode_one, left, workers=workers, observer=observer, lost=lost_one):
        if isinstance(result, FileError):
            observer.problem(result)
            continue
        try:
            _write(result, logs[result.job.root], overwrite)
        except ImageError as problem:
            observer.problem(problem)
        except NameInTheWayError as error:
            observer.problem(error.of_image(result.job.item.path))
        except FileError as problem:
            if not in_place or isinstance(problem, DiskFullError):
                raise
            observer.problem(problem)
        else:
            finished[result.job] = result.record
    written = {job: finished[job] for job in jobs if job in finished}
    if not in_place:
        _drop_superseded(logs, written)
    pages = _write_pages(written, list(logs), settings, observer, anew=bool(left))
    return BatchResult(tuple(written.values()), len(done), pages)


def _drop_superseded(
    logs: Mapping[Path, RecordsLog[EncodedFile]], written: Mapping[EncodingJob, EncodedFile]
) -> None:
    """Leave one record of each file that was written: of an image that has changed since, the former one goes.

    Not before all is written: by its former record a run that is killed knows its own file again.
    """
    for root, log in logs.items():
        now = {record.output: record for job, record in written.items() if job.root == root}
        kept = [record for record in log.records if now.get(record.output, record) == record]
        if len(kept) < len(log.records):
            log.keep(kept)


def _load_models(settings: BatchSettings) -> None:
    """Refuse a folder without a model before anything is encoded; with one worker the loaded model is used."""
    load_detector.cache_clear()  # a folder may hold another model than in an earlier batch of this process
    learned_encoder.cache_clear()
    if settings.protect is not None:
        load_detector(settings.protect)
    if settings.model is not None:
        learned_encoder(settings.model)


def _write(outcome: EncodedJob, log: RecordsLog[EncodedFile], overwrite: bool) -> None:
    job, record, path = outcome.job, outcome.record, outcome.path
    there = file_sha256(path)
    if job.in_place:
        if there != record.input_sha256:
            raise ImageError(path, "has changed in the meantime and is left alone", "run again")
    elif there is not None and not overwrite:
        ours = {old.output_sha256 for old in log.records if old.output == record.output}
        if there not in ours | {record.output_sha256}:
            raise ImageError(path, "is there already and not of an earlier run", "use --overwrite")
    if record not in log.records:  # as after a kill between the line and the file
        log.append(record)
    if there == record.output_sha256:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(outcome.data)
        if job.in_place:
            shutil.copymode(path, temporary)


def _write_pages(
    written: dict[EncodingJob, EncodedFile],
    roots: Sequence[Path],
    settings: BatchSettings,
    observer: Observer,
    *,
    anew: bool,
) -> tuple[Path, ...]:
    """Write a report on protected files beside each log; an existing one stays where nothing was encoded."""
    if settings.protect is None:
        return ()
    from blemish.jpeg.protection_page import Protected, write_protection_page

    pages = []
    for root in roots:
        path = root / PROTECTION_FILE
        shown = [
            Protected(
                record.output,
                record.protection,
                None if job.in_place else job.item.path,
                job.path_of(record.output),
            )
            for job, record in written.items()
            if job.root == root and record.protection is not None
        ]
        if shown and (anew or not path.exists()):
            write_protection_page(path, shown, load_detector(settings.protect), observer)
        if shown:
            pages.append(path)
    return tuple(pages)
