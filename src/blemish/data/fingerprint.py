"""Fingerprint of a set of good images, taken while each file is checked."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from blemish.data.appearance import Range, appearance, outliers, ranges
from blemish.data.channels import check_channels, other_channels
from blemish.data.image import DEPTH_WORDS, ImageInfo, PixelKind, read_image
from blemish.data.items import Item
from blemish.errors import BlemishError, ImageError, UsageError, within_memory

_THREADS = 2
_SAMPLE = 2**20
_SAMPLES = 64


class Spread(BaseModel):
    """Smallest, median and largest of a length in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int
    median: float
    max: int


class Fingerprint(BaseModel):
    """Count, channels, depth and sizes of a set of images; ``sha256`` changes with any byte or name, not with order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    channels: int
    kind: PixelKind
    width: Spread
    height: Spread
    sha256: str
    appearance: dict[str, Range] = Field(default_factory=dict)
    """Range of each figure of :func:`~blemish.data.appearance.appearance`; empty of scenes and in version 0.1."""


@dataclass(frozen=True)
class _Checked:
    item: Item
    info: ImageInfo
    sha256: str
    appearance: dict[str, float]


def fingerprint(
    items: Sequence[Item],
    *,
    channels: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    remark: Callable[[Item, str], None] | None = None,
) -> tuple[Fingerprint, list[Item], list[ImageError]]:
    """Read every image once: fingerprint and items of those that fit together, and the faults of the others.

    Every file is hashed and decoded, so that a truncated one is found before training; no pixels are kept.
    The channels and kind that most images have are the rule, and the others are faults. With ``channels``
    every image is to be converted by ``select_channels``, so only those that cannot be are faults.

    Parameters
    ----------
    items: the images, with unique names.
    channels: the number of channels that the caller converts to.
    progress: called with (images done, images in all).
    remark: called with each image that looks very different from most others, and in what.

    Raises
    ------
    BlemishError
        Not one image can be used.
    """
    checked: list[_Checked] = []
    problems: list[ImageError] = []
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for done, result in enumerate(pool.map(lambda item: _check(item, channels), items), start=1):
            if isinstance(result, ImageError):
                problems.append(result)
            else:
                checked.append(result)
            if progress is not None:
                progress(done, len(items))
    finally:
        pool.shutdown(cancel_futures=True)
    if not checked:
        first = f"; the first: {problems[0]}" if problems else ""
        raise BlemishError(f"none of {len(items)} images can be used{first}")

    majority = _majority(checked)
    usable: list[_Checked] = []
    for one in checked:
        problem = _mismatch(one, majority)
        if problem is None:
            usable.append(one)
        else:
            problems.append(problem)
    if remark is not None:
        by_name = {one.item.name: one for one in usable}
        for name, words in outliers({name: one.appearance for name, one in by_name.items()}).items():
            remark(by_name[name].item, words)
    found = Fingerprint(
        count=len(usable),
        channels=majority.channels,
        kind=majority.kind,
        width=_spread([one.info.width for one in usable]),
        height=_spread([one.info.height for one in usable]),
        sha256=_digest(usable),
        appearance=ranges([one.appearance for one in usable]),
    )
    return found, [one.item for one in usable], problems


def _check(item: Item, channels: int | None) -> _Checked | ImageError:
    try:
        image = read_image(item.path)
        with within_memory(item.path):
            # What preprocessing takes; allocated, but not written, so that it costs no time.
            np.empty(image.pixels.shape, np.float32)
        sha256 = file_sha256(item.path)
    except ImageError as error:
        return error.without_frames()
    if channels is not None:
        try:
            check_channels(image.channels, channels)
        except UsageError as error:
            return ImageError(item.path, str(error), "convert it or remove it")
    info = ImageInfo(channels or image.channels, image.kind, image.width, image.height)
    return _Checked(item, info, sha256, appearance(image))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; raises ImageError for one that cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})", "check the disk and the path") from error
    return digest.hexdigest()


def sampled_sha256(path: Path) -> str:
    """SHA-256 of a file's size and bytes, in hex; of more than 64 MiB, of 64 samples of 1 MiB each.

    The samples lie evenly from the first byte to the last, so scans of many gigabytes are distinguished
    in a moment. An edit that keeps the size and lies between two samples is not noticed.

    Raises
    ------
    ImageError
        The file cannot be read.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(f"{size}\n".encode())
        if size <= _SAMPLES * _SAMPLE:
            digest.update(file_sha256(path).encode())
            return digest.hexdigest()
        with path.open("rb") as file:
            for number in range(_SAMPLES):
                file.seek((size - _SAMPLE) * number // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE))
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})", "check the disk and the path") from error
    return digest.hexdigest()


def _majority(checked: Sequence[_Checked]) -> ImageInfo:
    """The most frequent (channels, kind), as the info of an image that has it; the first wins a tie."""
    counts = Counter((one.info.channels, one.info.kind) for one in checked)
    (winner, _), *_ = counts.most_common()
    return next(one.info for one in checked if (one.info.channels, one.info.kind) == winner)


def _mismatch(one: _Checked, majority: ImageInfo) -> ImageError | None:
    if one.info.channels != majority.channels:
        plural = "s" if one.info.channels > 1 else ""
        problem = f"has {one.info.channels} channel{plural} where the others have {majority.channels}"
        remedy = other_channels(one.info.channels, majority.channels)
        return ImageError(one.item.path, problem, remedy)
    if one.info.kind != majority.kind:
        problem = f"is {DEPTH_WORDS[one.info.kind]} where the others are {DEPTH_WORDS[majority.kind]}"
        return ImageError(one.item.path, problem, f"convert it to {DEPTH_WORDS[majority.kind]}")
    return None


def _spread(lengths: Sequence[int]) -> Spread:
    return Spread(min=min(lengths), median=statistics.median(lengths), max=max(lengths))


def _digest(checked: Sequence[_Checked]) -> str:
    digest = hashlib.sha256()
    for name, sha256 in sorted((one.item.name, one.sha256) for one in checked):
        digest.update(os.fsencode(f"{sha256}  {name}\n"))  # a name need not be valid text
    return digest.hexdigest()
