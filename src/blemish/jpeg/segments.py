"""Segments of a JPEG file: markers with their parameters, metadata among them, and what follows the end (ITU-T T.81, B.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blemish.errors import ImageError, UsageError

SOI = b"\xff\xd8"
EOI, SOS, DQT = 0xD9, 0xDA, 0xDB
APP0, APP1, APP2, APP11, APP14, COM = 0xE0, 0xE1, 0xE2, 0xEB, 0xEE, 0xFE
METADATA = frozenset({*range(0xE0, 0xF0), COM})  # APPn and COM
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn: all but DHT, JPG and DAC

# The next marker that has a length, or EOI; neither stuffing nor restarts nor fill bytes (T.81, B.1.1).
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")

RESAVE = "save it again from its source, or remove it"

_JFIF, _ADOBE = (APP0, b"JFIF\0"), (APP14, b"Adobe")
_IMAGES = (APP2, b"MPF\0")
"""Directory of the further images of a file (CIPA DC-007)."""
_READ = (
    (APP0, b""),  # JFIF and its thumbnails, AVI1
    (APP1, b"Exif\0"),
    (APP1, b"http://ns.adobe.com/xap/1.0/\0"),
    (APP2, b"ICC_PROFILE\0"),
    (COM, b""),
    _IMAGES,
    _ADOBE,
)
"""Segments that are read and written anew, or that hold for the old file alone: marker and beginning."""


@dataclass(frozen=True)
class Segment:
    """``data[start:end]`` is a marker with its parameters; ``payload`` is what follows the length."""

    marker: int
    start: int
    end: int
    payload: bytes


def walk(data: bytes) -> Iterator[Segment]:
    """All segments from SOI to EOI, stepping over the entropy-coded data; ValueError where they break off."""
    if not data.startswith(SOI):
        raise ValueError("it does not start as a JPEG does")
    position = 2
    while True:
        match = _MARKER.search(data, position)
        if match is None:
            raise ValueError("it breaks off before its end")
        marker, start, after = data[match.start() + 1], match.start(), match.end()
        if marker == EOI:
            yield Segment(marker, start, after, b"")
            return
        position = after + int.from_bytes(data[after : after + 2], "big")
        if not after + 2 <= position <= len(data):
            raise ValueError("it breaks off before its end")
        yield Segment(marker, start, position, data[after + 2 : position])


def segments_of(data: bytes, name: str | Path) -> list[Segment]:
    """All segments of a JPEG file; an ImageError where they break off."""
    try:
        return list(walk(data))
    except ValueError as error:
        problem = f"is truncated or damaged ({error})" if data.startswith(SOI) else "is not a JPEG"
        raise ImageError(name, problem, RESAVE) from error


def check_metadata(segments: bytes) -> None:
    """Refuse with a UsageError what is not whole APPn and COM segments."""
    framed = SOI + segments + b"\xff\xd9"
    try:
        *parts, _ = walk(framed)
    except ValueError:
        parts = []
    whole = b"".join(framed[part.start : part.end] for part in parts) == segments
    if not whole or any(part.marker not in METADATA for part in parts):
        raise UsageError(
            "segments for a JPEG file have to be whole APPn and COM segments, one after the other"
        )


def metadata_of(data: bytes) -> bytes:
    """The metadata segments of a JPEG file as they are, JFIF's first; empty for a damaged file.

    Left out: Adobe's marker, which says how colours are coded, and the directory of further images, whose places it
    gives.
    """
    parts = [part for part in _metadata(data) if not _is_any(part, _ADOBE, _IMAGES)]
    parts.sort(key=lambda part: not _is_any(part, _JFIF))
    return b"".join(data[part.start : part.end] for part in parts)


def other_metadata(data: bytes) -> bytes:
    """The metadata segments of a JPEG file that nothing here reads, as they are: IPTC (APP13), C2PA (APP11) and others."""
    return b"".join(data[part.start : part.end] for part in _metadata(data) if not _is_any(part, *_READ))


def metadata_bytes(data: bytes) -> int:
    """Number of bytes of a JPEG file's metadata, without JFIF's and Adobe's headers, which say how to decode it."""
    return sum(part.end - part.start for part in _metadata(data) if not _is_any(part, _JFIF, _ADOBE))


def has_manifest(data: bytes) -> bool:
    """True if a JPEG file holds a C2PA manifest: APP11 with boxes of JUMBF (C2PA 2.0, A.3.1)."""
    return any(part.marker == APP11 and b"jumb" in part.payload[:64] for part in _metadata(data))


def bytes_after_end(data: bytes) -> int:
    """Number of bytes that follow a JPEG file's first image, 0 where they are padding: all of one value, 0 or 255."""
    try:
        *_, last = walk(data)
    except ValueError:
        return 0
    rest = data[last.end :]
    padding = not rest.strip(b"\0") or not rest.strip(b"\xff")
    return 0 if padding else len(rest)


def _metadata(data: bytes) -> list[Segment]:
    try:
        return [part for part in walk(data) if part.marker in METADATA]
    except ValueError:
        return []


def _is_any(part: Segment, *kinds: tuple[int, bytes]) -> bool:
    return any(part.marker == marker and part.payload.startswith(start) for marker, start in kinds)
