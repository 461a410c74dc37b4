"""Many images into smaller JPEG files: a folder beside them, or each file in its place.

What is done is known from a journal, ``blemish-jpeg.jsonl``, in the output folder (in place: in the folder of
the images). Its line for a file holds the SHA-256 of what was read and of what was to be written, and the
settings. A line is written before its file, so a file without a line is not ours, and a line without its file
only means that the work is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict

from blemish._version import __version__
from blemish.data.datasets import Item, find_images
from blemish.data.opening import file_bytes, image_format
from blemish.errors import FileError, ImageError, UsageError
from blemish.jpeg.coefficients import Coefficients, Sampling
from blemish.jpeg.file import from_bytes, recode
from blemish.jpeg.protection import (
    DEFAULT_STRENGTH,
    Protection,
    RegionOfInterest,
    decisions_changed,
    encode_protected,
    load_detector,
)
from blemish.jpeg.rate_targets import check_aims
from blemish.jpeg.source_image import (
    SourceImage,
    decode,
    orientation_segment,
    read_source,
    within_memory,
)
from blemish.jpeg.tables import shipped_sha256
from blemish.observer import Observer
from blemish.report.numbers import counted
from blemish.storage.atomic import atomic_path
from blemish.storage.model_folder import MODEL_FILE, WEIGHTS_FILE
from blemish.storage.records_log import RecordsLog
from blemish.workers import each

if TYPE_CHECKING:
    from blemish.jpeg.distortion import Tune
    from blemish.jpeg.encoder import Encoded, Encoder

JOURNAL_FILE = "blemish-jpeg.jsonl"
PROTECTION_FILE = "blemish-jpeg.html"

Action: TypeAlias = Literal["encoded", "recoded", "kept"]

_JPEG_SUFFIXES = {".jpg", ".jpeg"}


@dataclass(frozen=True)
class BatchSettings:
    """How every image of a batch is encoded.

    quality: 1 to 100, the encoder's own where neither this nor a target is given. target_bpp: bits per pixel.
    target_ssim: SSIM of luma, below 1. tune, sampling: "balanced" and "4:2:0" where they are not given.
    lossless: of JPEG files only the entropy coding is made anew, from their own coefficients. protect: folder of
    a detector whose map says where bits must stay. protect_strength: what errors count for where it is
    suspicious, and its inverse elsewhere; 4 where it is not given. model: folder of a learned encoder to be used
    instead, with a tune and sampling of its own.

    Raises
    ------
    UsageError
        Settings that exclude each other or are out of range.
    """

    quality: float | None = None
    target_bpp: float | None = None
    target_ssim: float | None = None
    tune: Tune | None = None
    sampling: Sampling | None = None
    keep_metadata: bool = True
    lossless: bool = False
    protect: Path | None = None
    protect_strength: float | None = None
    model: Path | None = None

    def __post_init__(self) -> None:
        aims = (self.quality, self.target_bpp, self.target_ssim)
        options = ("--quality", "--target-bpp", "--target-ssim")
        check_aims(*aims, names=options)
        if self.lossless:
            choices = zip((*options, "--tune", "--sampling"), (*aims, self.tune, self.sampling), strict=True)
            for option in (option for option, value in choices if value is not None):
                raise UsageError(f"--lossless keeps the coefficients as they are; leave {option} out")
        self._check_models()

    def _check_models(self) -> None:
        if self.lossless and self.protect is not None:
            raise UsageError("--lossless keeps the bits where they are; leave --protect out")
        if self.model is not None:
            others = {
                "--lossless": self.lossless,
                "--protect": self.protect is not None,
                "--tune": self.tune is not None,
                "--sampling": self.sampling is not None,
            }
            for option in (option for option, given in others.items() if given):
                raise UsageError(f"--model is an encoder that knows no {option}; leave {option} out")
        if self.protect_strength is not None:
            if self.protect is None:
                raise UsageError("--protect-strength says how much --protect MODEL does; give --protect too")
            if not 1 <= self.protect_strength <= 100:
                raise UsageError(
                    f"--protect-strength {self.protect_strength:g}: choose a number from 1 to 100, such as 4"
                )

    @property
    def strength(self) -> float:
        """That of the protection."""
        return DEFAULT_STRENGTH if self.protect_strength is None else self.protect_strength

    def fingerprint(self) -> str:
        """The settings, and what else decides the files: version, shipped data, the content of models."""
        data = "" if self.lossless else shipped_sha256()
        found = asdict(self) | {"tune": self.tune or "balanced", "sampling": self.sampling or "4:2:0"}
        for models in ("protect", "protect_strength", "model"):
            del found[models]
        if self.protect is not None:
            found["protect"] = {"detector": _model_sha256(self.protect), "strength": self.strength}
        if self.model is not None:
            found["model"] = _model_sha256(self.model)
        return json.dumps({**found, "blemish": __version__, "data": data}, sort_keys=True)


class EncodedFile(BaseModel):
    """One line of the journal.

    ``input`` and ``output`` are names within their folders. ``action``: encoded from pixels, recoded without
    loss, or kept, the input's own bytes being the smallest. ``protection``: of files that were encoded with a
    detector.
    """

    model_config = ConfigDict(frozen=True)

    input: str
    input_sha256: str
    output: str
    output_sha256: str
    settings: str
    action: Action
    bytes_before: int
    bytes_after: int
    bits_per_pixel: float
    quality: float | None
    notices: tuple[str, ...]
    protection: Protection | None = None


@dataclass(frozen=True)
class Batch:
    """What became of the images that could be used; ``done_before`` of them by an earlier run.

    ``pages``: of the protection, one beside each journal.
    """

    files: tuple[EncodedFile, ...]
    done_before: int
    pages: tuple[Path, ...] = ()

    def in_words(self) -> str:
        """Sizes before and after."""
        before = sum(file.bytes_before for file in self.files)
        after = sum(file.bytes_after for file in self.files)
        kept = sum(file.action == "kept" for file in self.files)
        change = f" ({100 * (after / before - 1):+.1f} %)" if before else ""
        words = f"{counted(len(self.files), 'image')}: {_megabytes(before)} before, {_megabytes(after)} now{change}"
        if self.done_before:
            words += f"; {self.done_before} done by an earlier run"
        if kept:
            words += f"; {kept} kept as they were, for the new file would not have been smaller"
        judged = [file.protection for file in self.files if file.protection is not None]
        if judged:
            changed, unprotected = decisions_changed(judged)
            words += (
                f"; compression changed the detector's decision on {changed} of {len(judged)}, without "
                f"protection at the same size on {unprotected}"
            )
        return words


@dataclass(frozen=True)
class Job:
    """One image to encode: ``output`` is the name of its file within ``root``."""

    item: Item
    root: Path
    output: str
    settings: BatchSettings
    in_place: bool
    fingerprint: str

    @property
    def path(self) -> Path:
        """Where the file goes; in place, through a link to what it names."""
        return self.item.path.resolve() if self.in_place else self.root / self.output


@dataclass(frozen=True)
class BatchOutcome:
    """What a worker made of a job; ``data`` is what the output must hold."""

    job: Job
    record: EncodedFile
    data: bytes = field(repr=False)


def encode_folder(
    sources: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    in_place: bool = False,
    settings: BatchSettings | None = None,
    workers: int = 1,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Batch:
    """Encode images, each into a file of its own; what an earlier run did with the same settings is skipped.

    A file counts as done when the journal has a line for it with these settings (version and shipped data
    included), the input's SHA-256 is the line's and the output's too; in place, when the file has the SHA-256
    that was to be written, so that a second run loses nothing more. Every new file is decoded and its
    coefficients compared before it takes its name, by renaming. A JPEG never gets larger: where the new file
    is not smaller the old bytes are kept.

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
        A source that does not exist, an output folder that cannot be written. Images that cannot be used
        are told to the observer and the others go on; so are, in place, files that cannot be replaced.
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
    jobs = _plan(
        [Path(source) for source in given], None if out is None else Path(out), settings, fingerprint
    )
    journals = {root: RecordsLog(root / JOURNAL_FILE, EncodedFile) for root in {job.root for job in jobs}}
    done, left = _split(jobs, journals, fingerprint)
    earlier = f", {len(done)} already done" if done else ""
    observer.stage(f"Encoding {counted(len(left), 'image')}{earlier}")
    finished = dict(done)
    for result in each(encode_one, left, workers=workers, observer=observer):
        if isinstance(result, FileError):
            observer.problem(result)
            continue
        try:
            _write(result, journals[result.job.root], overwrite)
        except ImageError as problem:
            observer.problem(problem)
        except FileError as problem:
            if not in_place:
                raise
            observer.problem(problem)
        else:
            finished[result.job] = result.record
    written = {job: finished[job] for job in jobs if job in finished}
    pages = _write_pages(written, list(journals), settings, observer, anew=bool(left))
    return Batch(tuple(written.values()), len(done), pages)


# -- planning ------------------------------------------------------------------------------------------


def _load_models(settings: BatchSettings) -> None:
    """Refuse a model that is none before anything is done; with one worker it is the one that works."""
    load_detector.cache_clear()  # a folder may hold another model than in an earlier batch of this process
    _learned.cache_clear()
    if settings.protect is not None:
        load_detector(settings.protect)
    if settings.model is not None:
        _learned(settings.model)


def _plan(sources: Sequence[Path], out: Path | None, settings: BatchSettings, fingerprint: str) -> list[Job]:
    if not sources:
        raise UsageError("no images are named; give files or folders")
    jobs: list[Job] = []
    for source in sources:
        items = find_images(source)
        if out is None:
            root = source if source.is_dir() else source.parent
            jobs += [Job(item, root, item.name, settings, True, fingerprint) for item in items]
            continue
        if source.is_dir() and out.resolve() == source.resolve():
            raise UsageError(f"{out}: holds the images themselves; give another --out, or --in-place")
        if len(sources) > 1 and source.is_dir():
            folder = source.resolve().name
            items = [Item(item.path, f"{folder}/{item.name}") for item in items]
        inside = out.resolve()
        jobs += [
            Job(item, out, _output_name(item.name), settings, False, fingerprint)
            for item in items
            if inside not in item.path.resolve().parents  # an earlier run's output
        ]
    if out is None:
        return list({job.path: job for job in jobs}.values())
    jobs = _apart(jobs)
    if not jobs:
        raise FileError(sources[0], "holds no image beside the output", "name a folder with images")
    return jobs


def _output_name(name: str) -> str:
    path = PurePosixPath(name)
    return name if path.suffix.lower() in _JPEG_SUFFIXES else str(path.with_suffix(".jpg"))


def _apart(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with outputs of their own: ``a.png`` beside ``a.jpg`` becomes ``a.png.jpg``."""

    def key(name: str) -> str:
        return name.casefold()  # some disks take a.jpg and A.JPG for one file

    taken: dict[str, list[Job]] = {}
    for job in jobs:
        taken.setdefault(key(job.output), []).append(job)
    result: dict[str, Job] = {}
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


def _split(
    jobs: Sequence[Job], journals: dict[Path, RecordsLog[EncodedFile]], fingerprint: str
) -> tuple[dict[Job, EncodedFile], list[Job]]:
    """The jobs that an earlier run has done, with their records, and those that are left."""
    records: dict[tuple[Path, str], list[EncodedFile]] = {}
    for root, journal in journals.items():
        for record in journal.records:
            if record.settings == fingerprint:
                records.setdefault((root, record.output), []).append(record)
    done: dict[Job, EncodedFile] = {}
    left = []
    for job in jobs:
        for record in reversed(records.get((job.root, job.output), [])):
            if _sha256(job.path) == record.output_sha256 and (
                job.in_place or _sha256(job.item.path) == record.input_sha256
            ):
                done[job] = record
                break
        else:
            left.append(job)
    return done, left


# -- one image -----------------------------------------------------------------------------------------


def encode_one(job: Job) -> BatchOutcome | FileError:
    """Read, encode, verify; runs in a worker process and writes nothing."""
    try:
        with within_memory(job.item.path):
            return _encode(job)
    except FileError as error:
        return error


def _encode(job: Job) -> BatchOutcome:
    path, settings = job.item.path, job.settings
    _refuse_unwritable(job)
    before = file_bytes(path)  # once: what is encoded is what the record vouches for
    source = read_source(path, keep_metadata=settings.keep_metadata, data=before)
    is_jpeg = image_format(before) == "JPEG"
    if job.in_place and not is_jpeg:
        raise ImageError(path, "is no JPEG, and in place a file keeps its format", "use --out")
    if job.in_place and source.frames > 1:
        raise ImageError(
            path, f"holds {source.frames} images, and in place all but one would be lost", "use --out"
        )
    if settings.lossless and not is_jpeg:
        raise ImageError(path, "is no JPEG, which alone can be recoded without loss", "leave --lossless out")
    notices = list(source.notices)
    quality = None
    guard, encoded = None, None
    action: Action
    if settings.lossless:
        action, data = "recoded", _recoded(path, before, source.segments, settings)
    else:
        if settings.protect is not None:
            guard = RegionOfInterest(load_detector(settings.protect), source, settings.strength)
        encoded = _encoded(source, settings, guard)
        action, data, quality = "encoded", encoded.data, encoded.quality
        if encoded.notice:
            notices.append(f"{path}: {encoded.notice}")
        _verify(path, data, encoded.coefficients)
    dropped = b"" if settings.keep_metadata or not is_jpeg else read_source(path, data=before).segments
    if is_jpeg and len(data) >= len(before) - len(dropped):
        quality = None
        if not dropped:
            action, data = "kept", before
            notices.append(f"{path}: kept as it is, for the new file would not be smaller")
        elif not settings.lossless:
            action, data = "recoded", _recoded(path, before, b"", settings)
            notices.append(f"{path}: only its metadata is dropped, for the new file would not be smaller")
        if len(data) > len(before):
            raise ImageError(path, "would grow without its metadata", "use --keep-metadata")
    protection = None
    if guard is not None and encoded is not None and action == "encoded":
        protection = guard.judge(encoded, _plain(source, settings, encoded.bits_per_pixel))
    height, width = source.pixels.shape[:2]
    return BatchOutcome(
        job,
        EncodedFile(
            input=job.item.name,
            input_sha256=hashlib.sha256(before).hexdigest(),
            output=job.output,
            output_sha256=hashlib.sha256(data).hexdigest(),
            settings=job.fingerprint,
            action=action,
            bytes_before=len(before),
            bytes_after=len(data),
            bits_per_pixel=8 * len(data) / (height * width),
            quality=quality,
            notices=tuple(notices),
            protection=protection,
        ),
        data,
    )


def _refuse_unwritable(job: Job) -> None:
    try:
        f"{job.item.name}{job.output}".encode()
    except UnicodeEncodeError:
        raise ImageError(job.item.path, "has a name that is not valid text", "rename it") from None


def _encoded(source: SourceImage, settings: BatchSettings, guard: RegionOfInterest | None) -> Encoded:
    """The image by the encoder that the settings name, at their quality or target."""
    aims: dict[str, Any] = {
        "quality": settings.quality,
        "target_bpp": settings.target_bpp,
        "target_ssim": settings.target_ssim,
    }
    if settings.model is not None:
        learned: Encoded = _learned(settings.model).encode(source.pixels, **aims, segments=source.segments)
        return learned
    tune, sampling = settings.tune or "balanced", settings.sampling or "4:2:0"
    if guard is not None:
        return encode_protected(
            _encoder(),
            source.pixels,
            guard.importance,
            **aims,
            tune=tune,
            sampling=sampling,
            segments=source.segments,
        )
    return _encoder().encode(source.pixels, **aims, tune=tune, sampling=sampling, segments=source.segments)


def _plain(source: SourceImage, settings: BatchSettings, bpp: float) -> Encoded:
    """The same without protection, at as many bits per pixel."""
    at_this_size = replace(settings, quality=None, target_bpp=bpp, target_ssim=None)
    return _encoded(source, at_this_size, None)


def _recoded(path: Path, before: bytes, segments: bytes, settings: BatchSettings) -> bytes:
    """The same coefficients and tables in a smaller file; with metadata dropped, the orientation stays."""
    if not settings.keep_metadata:
        segments = orientation_segment(before)
    data = recode(before, segments=segments, name=path)
    if not np.array_equal(decode(before), decode(data)):
        raise _differs(path)
    return data


def _verify(path: Path, data: bytes, meant: Coefficients) -> None:
    """Decode a new file whole, and refuse one that does not hold what was meant."""
    shape = decode(data).shape[:2]
    found = from_bytes(data, name=path)
    same = shape == (meant.height, meant.width) and len(found.planes) == len(meant.planes)
    for plane, other in zip(found.planes, meant.planes, strict=False):
        same = same and np.array_equal(plane.coefficients, other.coefficients)
        same = same and np.array_equal(plane.table, other.table)
    if not same:
        raise _differs(path)


def _differs(path: Path) -> ImageError:
    return ImageError(
        path, "its new file does not decode to what was meant and is not written", "report this as a defect"
    )


# -- writing -----------------------------------------------------------------------------------------------


def _write(outcome: BatchOutcome, journal: RecordsLog[EncodedFile], overwrite: bool) -> None:
    job, record, path = outcome.job, outcome.record, outcome.job.path
    there = _sha256(path)
    if job.in_place:
        if there != record.input_sha256:
            raise ImageError(path, "has changed in the meantime and is left alone", "run again")
    elif there is not None and not overwrite:
        ours = {old.output_sha256 for old in journal.records if old.output == record.output}
        if there not in ours | {record.output_sha256}:
            raise ImageError(path, "is there already and not of an earlier run", "use --overwrite")
    journal.append(record)
    if there == record.output_sha256:
        return
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(outcome.data)
            file.flush()
            os.fsync(file.fileno())  # in place, the old file is gone once this one has its name
        if job.in_place:
            shutil.copymode(path, temporary)


def _sha256(path: Path) -> str | None:
    """Of a file's bytes; None where there is no file that can be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


@lru_cache(maxsize=1)
def _encoder() -> Encoder:
    from blemish.jpeg.encoder import Encoder

    return Encoder()


@lru_cache(maxsize=1)
def _learned(folder: Path) -> Any:
    """The learned encoder in a model folder, loaded once a process."""
    from blemish import jpeg

    return jpeg.load(folder)


def _model_sha256(folder: Path) -> str:
    """Of what decides a model's results."""
    files = [folder / name for name in (MODEL_FILE, WEIGHTS_FILE)]
    return hashlib.sha256("".join(f"{_sha256(path)}" for path in files).encode()).hexdigest()


def _write_pages(
    written: dict[Job, EncodedFile],
    roots: Sequence[Path],
    settings: BatchSettings,
    observer: Observer,
    *,
    anew: bool,
) -> tuple[Path, ...]:
    """A page beside each journal that tells of protected files; what is there stays where nothing was done."""
    if settings.protect is None:
        return ()
    from blemish.jpeg.protection_page import Protected, write_protection_page

    pages = []
    for root in roots:
        path = root / PROTECTION_FILE
        shown = [
            Protected(record.output, record.protection, None if job.in_place else job.item.path, job.path)
            for job, record in written.items()
            if job.root == root and record.protection is not None
        ]
        if shown and (anew or not path.exists()):
            write_protection_page(path, shown, load_detector(settings.protect), observer)
        if shown:
            pages.append(path)
    return tuple(pages)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
