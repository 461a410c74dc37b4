"""Encode one image of a batch and verify the new file, in a worker process; nothing is written here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blemish.data.opening import RENAME, RESAVE, file_bytes, image_format
from blemish.errors import BlemishError, DiskFullError, FileError, ImageError, within_memory
from blemish.jpeg.batch.plan import EncodingJob
from blemish.jpeg.batch.records import Action, EncodedFile
from blemish.jpeg.batch.settings import BatchSettings
from blemish.jpeg.coefficients import Coefficients, Sampling
from blemish.jpeg.file import from_bytes, recode, sampling_of
from blemish.jpeg.protection import RegionOfInterest, encode_protected, load_detector
from blemish.jpeg.segments import bytes_after_end, has_manifest, metadata_bytes, metadata_of
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

    @property
    def path(self) -> Path:
        """Path of the output file."""
        return self.job.path_of(self.record.output)


def encode_one(job: EncodingJob) -> EncodedJob | FileError:
    """Read, encode, verify; runs in a worker process and writes nothing."""
    try:
        with within_memory(job.item.path):
            return _encode(job)
    except DiskFullError:  # of temporary files, which every other image needs as well
        raise
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
    behind = bytes_after_end(before) if is_jpeg and source.frames == 1 else 0
    _refuse_loss(job, source, is_jpeg, behind)
    notices: list[str] = []
    region, encoded = None, None
    action: Action = "recoded"
    data = _recoded(path, before, settings) if settings.lossless else b""
    if not settings.lossless:
        if settings.protect is not None:
            region = RegionOfInterest(load_detector(settings.protect), source, settings.strength)
        encoded = _encoded(
            source, settings, region, _sampling(before, settings) if is_jpeg else settings.sampling
        )
        action, data = "encoded", encoded.data
        _verify(path, data, encoded.coefficients)
        recoded = _recoded_if_possible(path, before, settings) if is_jpeg else None
        if recoded is not None and len(recoded) <= len(data):
            action, data = "recoded", recoded
    if len(data) >= len(before):
        action, data = _kept(job, before, data, action, is_jpeg, notices)
    if action == "encoded" and encoded is not None:
        notices += _of_encoding(path, before if is_jpeg else None, encoded)
    if action != "recoded" or not is_jpeg or source.frames > 1:
        notices[:0] = source.notices if action != "kept" else ()
    if action != "kept" and behind:
        notices.append(f"{path}: holds {behind} bytes behind its end, such as a video; they are left out")
    if action != "kept" and settings.keep_metadata and is_jpeg and has_manifest(before):
        notices.append(f"{path}: its C2PA manifest is kept, and vouches for the former file alone")
    protection = None
    if region is not None and encoded is not None and action == "encoded":
        protection = region.protection(encoded, _plain(source, settings, encoded))
    height, width = source.pixels.shape[:2]
    held = metadata_bytes(data)
    return EncodedJob(
        job,
        EncodedFile(
            input=job.item.name,
            input_sha256=hashlib.sha256(before).hexdigest(),
            output=job.item.name if action == "kept" and not is_jpeg else job.output,
            output_sha256=hashlib.sha256(data).hexdigest(),
            settings=job.fingerprint,
            action=action,
            bytes_before=len(before),
            bytes_after=len(data),
            bits_per_pixel=8 * len(data) / (height * width),
            quality=encoded.quality if encoded is not None and action == "encoded" else None,
            notices=tuple(notices),
            sampling=encoded.coefficients.sampling if encoded is not None and action == "encoded" else None,
            metadata_kept=held,
            metadata_left_out=max(metadata_bytes(before) - held, 0) if is_jpeg else 0,
            after_end_left_out=0 if action == "kept" else behind,
            protection=protection,
        ),
        data,
    )


def _refuse_loss(job: EncodingJob, source: SourceImage, is_jpeg: bool, behind: int) -> None:
    """Refuse what would be lost in place, and what cannot be recoded."""
    path = job.item.path
    if job.in_place and not is_jpeg:
        raise ImageError(path, "is no JPEG, and in place a file keeps its format", "use --out")
    if job.in_place and source.frames > 1:
        raise ImageError(
            path, f"holds {source.frames} images, and in place all but one would be lost", "use --out"
        )
    if job.in_place and behind:
        problem = f"holds {behind} bytes behind its end, such as a video, and in place they would be lost"
        raise ImageError(path, problem, "use --out")
    if job.settings.lossless and not is_jpeg:
        raise ImageError(path, "is no JPEG, which alone can be recoded without loss", "leave --lossless out")


def _kept(
    job: EncodingJob, before: bytes, data: bytes, action: Action, is_jpeg: bool, notices: list[str]
) -> tuple[Action, bytes]:
    """What becomes of a file whose new one is not smaller, with a notice."""
    path = job.item.path
    held = metadata_bytes(before) > len(orientation_segment(before)) if is_jpeg else True
    if held and not job.settings.keep_metadata:
        if is_jpeg:
            raise ImageError(path, "would grow without its metadata", "use --keep-metadata")
        if len(data) > len(before):
            notices.append(
                f"{path}: grows from {len(before)} to {len(data)} bytes; as it is, it holds its metadata"
            )
        return action, data
    larger = "the new file would not be smaller" if is_jpeg else f"a JPEG would have {len(data)} bytes"
    notices.append(f"{path}: kept as it is, for {larger}")
    return "kept", before


def _of_encoding(path: Path, jpeg: bytes | None, encoded: Encoded) -> list[str]:
    """Lines on a target that was missed, and on chroma of a JPEG that lost its size."""
    lines = [f"{path}: {encoded.notice}"] if encoded.notice else []
    if jpeg is not None and encoded.coefficients.sampling == "4:2:0" and not _halves_chroma(jpeg):
        lines.append(f"{path}: its chroma, of a larger size, is halved to 4:2:0")
    return lines


def _halves_chroma(jpeg: bytes) -> bool:
    """True if chroma of a JPEG has at most half the rows and columns; of grey, too."""
    luma, *chroma = sampling_of(jpeg)
    return all(2 * across <= luma[0] and 2 * down <= luma[1] for across, down in chroma)


def _sampling(jpeg: bytes, settings: BatchSettings) -> Sampling:
    """The sampling for a JPEG: as asked, otherwise no smaller than its own."""
    return settings.sampling or ("4:2:0" if _halves_chroma(jpeg) else "4:4:4")


def _refuse_unwritable(job: EncodingJob) -> None:
    try:
        f"{job.item.name}{job.output}".encode()
    except UnicodeEncodeError:
        raise ImageError(job.item.path, "has a name that is not valid text here", RENAME) from None


def _encoded(
    source: SourceImage, settings: BatchSettings, region: RegionOfInterest | None, sampling: Sampling | None
) -> Encoded:
    """Encode with the encoder that the settings name, at their quality or target; no ``sampling`` leaves it to that."""
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
    tune = settings.tune or "balanced"
    if region is not None:
        return encode_protected(
            _encoder(),
            source.pixels,
            region.importance,
            **targets,
            tune=tune,
            sampling=sampling or "auto",
            segments=source.segments,
        )
    return _encoder().encode(
        source.pixels, **targets, tune=tune, sampling=sampling or "auto", segments=source.segments
    )


def _plain(source: SourceImage, settings: BatchSettings, encoded: Encoded) -> Encoded:
    """Encode without protection, at the size and sampling of ``encoded``."""
    at_this_size = replace(settings, quality=None, target_bpp=encoded.bits_per_pixel, target_ssim=None)
    return _encoded(source, at_this_size, None, encoded.coefficients.sampling)


def _recoded_if_possible(path: Path, before: bytes, settings: BatchSettings) -> bytes | None:
    try:
        return _recoded(path, before, settings)
    except ImageError:  # arithmetic coding, 12 bits, or damage that only some decoders overlook
        return None


def _recoded(path: Path, before: bytes, settings: BatchSettings) -> bytes:
    """Recode a JPEG file without loss; of dropped metadata only the orientation stays."""
    segments = metadata_of(before) if settings.keep_metadata else orientation_segment(before)
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
