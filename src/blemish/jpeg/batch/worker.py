"""Encode one image of a batch and verify the new file, in a worker process; nothing is written here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blemish.data.opening import RENAME, RESAVE, file_bytes, image_format
from blemish.errors import BlemishError, FileError, ImageError, within_memory
from blemish.jpeg.batch.plan import EncodingJob
from blemish.jpeg.batch.records import Action, EncodedFile
from blemish.jpeg.batch.settings import BatchSettings
from blemish.jpeg.coefficients import Coefficients
from blemish.jpeg.file import from_bytes, recode
from blemish.jpeg.protection import RegionOfInterest, encode_protected, load_detector
from blemish.jpeg.source_image import (
    SourceImage,
    decode,
    orientation_segment,
    read_source,
)

if TYPE_CHECKING:
    from blemish.jpeg.encoder import Encoded, Encoder


@dataclass(frozen=True)
class EncodedJob:
    """Result of a job: its record, and the bytes of the output file."""

    job: EncodingJob
    record: EncodedFile
    data: bytes = field(repr=False)


def encode_one(job: EncodingJob) -> EncodedJob | FileError:
    """Read, encode, verify; runs in a worker process and writes nothing."""
    try:
        with within_memory(job.item.path):
            return _encode(job)
    except FileError as error:
        return error.without_frames()
    except BlemishError:
        raise
    except Exception as error:  # whatever it is, the other images go on
        problem = f"cannot be encoded ({type(error).__name__}: {error})"
        return ImageError(job.item.path, problem, "report this as a defect, with the image")


def lost_one(job: EncodingJob) -> FileError:
    """The error of an image that ends each process that encodes it."""
    problem = "ends the process that encodes it, by damage or for want of memory"
    return ImageError(job.item.path, problem, "save it again from its source, cut it, or leave it out")


def _encode(job: EncodingJob) -> EncodedJob:
    path, settings = job.item.path, job.settings
    _refuse_unwritable(job)
    before = file_bytes(path)  # read once: the record's SHA-256 is of the bytes that are encoded
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
    region, encoded = None, None
    action: Action
    if settings.lossless:
        action, data = "recoded", _recoded(path, before, source.segments, settings)
    else:
        if settings.protect is not None:
            region = RegionOfInterest(load_detector(settings.protect), source, settings.strength)
        encoded = _encoded(source, settings, region)
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
    if region is not None and encoded is not None and action == "encoded":
        protection = region.protection(encoded, _plain(source, settings, encoded.bits_per_pixel))
    height, width = source.pixels.shape[:2]
    return EncodedJob(
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


def _refuse_unwritable(job: EncodingJob) -> None:
    try:
        f"{job.item.name}{job.output}".encode()
    except UnicodeEncodeError:
        raise ImageError(job.item.path, "has a name that is not valid text here", RENAME) from None


def _encoded(source: SourceImage, settings: BatchSettings, region: RegionOfInterest | None) -> Encoded:
    """Encode with the encoder that the settings name, at their quality or target."""
    targets: dict[str, Any] = {
        "quality": settings.quality,
        "target_bpp": settings.target_bpp,
        "target_ssim": settings.target_ssim,
    }
    if settings.model is not None:
        learned: Encoded = learned_encoder(settings.model).encode(
            source.pixels, **targets, segments=source.segments
        )
        return learned
    tune, sampling = settings.tune or "balanced", settings.sampling or "4:2:0"
    if region is not None:
        return encode_protected(
            _encoder(),
            source.pixels,
            region.importance,
            **targets,
            tune=tune,
            sampling=sampling,
            segments=source.segments,
        )
    return _encoder().encode(source.pixels, **targets, tune=tune, sampling=sampling, segments=source.segments)


def _plain(source: SourceImage, settings: BatchSettings, bpp: float) -> Encoded:
    """Encode without protection, at ``bpp`` bits per pixel."""
    at_this_size = replace(settings, quality=None, target_bpp=bpp, target_ssim=None)
    return _encoded(source, at_this_size, None)


def _recoded(path: Path, before: bytes, segments: bytes, settings: BatchSettings) -> bytes:
    """Recode a JPEG file without loss; of dropped metadata only the orientation stays."""
    if not settings.keep_metadata:
        segments = orientation_segment(before)
    data = recode(before, segments=segments, name=path)
    if not np.array_equal(decode(before), decode(data)):
        raise ImageError(path, "is damaged: decoders do not agree on what it holds", RESAVE)
    return data


def _verify(path: Path, data: bytes, expected: Coefficients) -> None:
    """Decode a new file, and refuse one that does not hold the expected coefficients and tables."""
    shape = decode(data).shape[:2]
    found = from_bytes(data, name=path)
    same = shape == (expected.height, expected.width) and len(found.planes) == len(expected.planes)
    for plane, other in zip(found.planes, expected.planes, strict=False):
        same = same and np.array_equal(plane.coefficients, other.coefficients)
        same = same and np.array_equal(plane.table, other.table)
    if not same:
        raise _differs(path)


def _differs(path: Path) -> ImageError:
    return ImageError(
        path, "its new file does not decode to what was encoded and is not written", "report this as a defect"
    )


@lru_cache(maxsize=1)
def _encoder() -> Encoder:
    from blemish.jpeg.encoder import Encoder

    return Encoder()


@lru_cache(maxsize=1)
def learned_encoder(folder: Path) -> Any:
    """The learned encoder in a model folder, loaded once in each process."""
    from blemish import jpeg

    return jpeg.load(folder)
