"""JPEG files from coefficients, and coefficients from JPEG files, without loss either way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from blemish.errors import ImageError, UsageError
from blemish.extras import explain_missing
from blemish.jpeg.coefficients import Coefficients, Plane, Sampling
from blemish.jpeg.native_process import NativeCodeError, optimise
from blemish.jpeg.segments import (
    APP0,
    APP14,
    DQT,
    FRAMES,
    METADATA,
    RESAVE,
    SOI,
    SOS,
    Segment,
    check_metadata,
    segments_of,
    walk,
)
from blemish.limits import MAX_JPEG_SCANS, MAX_PIXELS
from blemish.storage.leftovers import temporary_folder, temporary_prefix

_READABLE = {0xC0, 0xC1, 0xC2}  # Huffman-coded: baseline, extended, progressive

_CONVERT = "save it as an 8-bit grey or YCbCr JPEG of 4:4:4 or 4:2:0"


def to_bytes(coefficients: Coefficients, *, segments: bytes = b"") -> bytes:
    """A standard JPEG file that holds exactly these coefficients and tables.

    Written twice, with optimal Huffman tables as baseline and by mozjpeg's lossless transcoding as
    progressive; the smaller is returned.

    Parameters
    ----------
    coefficients: of 1 or 3 planes; planes with equal tables share one.
    segments: APPn and COM segments, complete with markers and lengths, to be put after the JFIF header. An
    APP0 that comes first is taken for the JFIF header (it holds the pixel density).

    Raises
    ------
    UsageError
        ``segments`` is something else.
    FileError
        The folder for temporary files cannot be written, by whose files jpeglib is given and gives.
    MissingExtraError
        jpeglib or mozjpeg-lossless-optimization is not installed.

    Examples
    --------
    >>> block = np.zeros((1, 1, 8, 8), np.int16)
    >>> grey = Coefficients(8, 8, (Plane(block, np.full((8, 8), 9, np.uint16)),), "4:4:4")
    >>> from_bytes(to_bytes(grey)) == grey
    True
    """
    with explain_missing():
        import mozjpeg_lossless_optimization

    check_metadata(segments)
    baseline = _baseline(coefficients)
    progressive: bytes = mozjpeg_lossless_optimization.optimize(baseline)
    smaller = min(baseline, progressive, key=len)
    header = next(walk(smaller))  # the JFIF APP0, which libjpeg always writes
    return _joined(smaller[header.start : header.end], segments, smaller[header.end :])


def recode(data: bytes, *, segments: bytes = b"", name: str | Path = "JPEG data") -> bytes:
    """The same coefficients and tables, of any sampling, in a file that mozjpeg has made smaller where it can.

    Its own metadata is left out for ``segments``; images after the first, and what else follows it, too. Adobe's
    marker stays where colours other than YCbCr are read by it.

    Parameters
    ----------
    data: the whole file, of a kind that :func:`from_bytes` reads but for its sampling and colours: CMYK and RGB too.
    segments: as for :func:`to_bytes`.
    name: what errors call the file.

    Raises
    ------
    UsageError
        ``segments`` is something else.
    ImageError
        Not a JPEG, damaged, or of another kind: 12 bits, arithmetic coding.
    MissingExtraError
        mozjpeg-lossless-optimization is not installed.
    """
    with explain_missing():
        import mozjpeg_lossless_optimization  # noqa: F401 (in this process, to say when it is missing)

    check_metadata(segments)
    found = segments_of(data, name)
    try:
        frame = _check_kind(found, MAX_PIXELS, any_colours=True)
    except ValueError as error:
        raise ImageError(name, str(error), "save it as an 8-bit JPEG, baseline or progressive") from error
    jfif = frame[5] == 1 or (frame[5] == 3 and not _is_rgb(found, frame[6::3]))
    bare = _without_metadata(data, found, keep=frozenset() if jfif else frozenset({APP14}))
    try:
        optimised = optimise(bare)
    except NativeCodeError as error:
        raise ImageError(
            name, f"is damaged: mozjpeg cannot read its coefficients ({error})", RESAVE
        ) from None
    if not jfif:  # no JFIF header, which would make YCbCr of RGB
        smaller = min(bare, optimised, key=len)
        return b"".join((SOI, segments, smaller[len(SOI) :]))
    header = next(walk(optimised))
    smaller = min(bare[len(SOI) :], optimised[header.end :], key=len)
    return _joined(optimised[header.start : header.end], segments, smaller)


def _joined(header: bytes, segments: bytes, rest: bytes) -> bytes:
    """A file of a JFIF header, unless ``segments`` begin with one, the segments, and tables and scans."""
    own = b"" if segments[1:2] == bytes([APP0]) else header
    return b"".join((SOI, own, segments, rest))


def from_bytes(data: bytes, *, name: str | Path = "JPEG data", max_pixels: int = MAX_PIXELS) -> Coefficients:
    """The coefficients of a JPEG file: Huffman-coded, baseline or progressive, 8 bits, grey or YCbCr.

    Parameters
    ----------
    data: the whole file.
    name: what errors call it.
    max_pixels: more are refused by the header, before anything is decoded.

    Raises
    ------
    ImageError
        Not a JPEG, damaged, or of another kind: CMYK, RGB, 12 bits, arithmetic coding, other samplings.
    FileError
        The folder for temporary files cannot be written.
    MissingExtraError
        jpeglib is not installed.
    """
    found = segments_of(data, name)
    try:
        sampling = _sampling(_check_kind(found, max_pixels))
        return _read(_without_metadata(data, found), sampling)
    except ValueError as error:
        raise ImageError(name, str(error), _CONVERT) from error
    except UsageError as error:
        raise ImageError(name, f"cannot be used ({error})", _CONVERT) from error
    except _Unreadable as error:
        raise ImageError(name, "is damaged: libjpeg cannot read its coefficients", RESAVE) from error


def _baseline(coefficients: Coefficients) -> bytes:
    jpeglib = _jpeglib()
    tables: list[np.ndarray] = []
    numbers = []
    for plane in coefficients.planes:
        known = [index for index, table in enumerate(tables) if np.array_equal(table, plane.table)]
        if not known:
            tables.append(plane.table)
        numbers.append(known[0] if known else len(tables) - 1)
    image = jpeglib.from_dct(
        *(np.ascontiguousarray(plane.coefficients) for plane in coefficients.planes),
        qt=np.stack(tables),
        quant_tbl_no=np.array(numbers),
    )
    # What jpeglib infers from the block counts is wrong for sides that are no multiples of 8, and for the
    # sampling of tiny images.
    image.width, image.height = coefficients.width, coefficients.height
    if len(coefficients.planes) == 3:
        image.samp_factor = coefficients.sampling
    with temporary_image() as path:
        image.write_dct(str(path), flags=["+OPTIMIZE_CODING"])
        return _numbered_from_one(path.read_bytes())


def _jpeglib() -> Any:
    """The package jpeglib, whose own temporary files get names by which those of a killed run are recognised."""
    with explain_missing():
        import jpeglib
        from jpeglib import dct_jpeg

    def named(**options: Any) -> Any:
        return tempfile.NamedTemporaryFile(prefix=temporary_prefix(), **options)

    dct_jpeg.tempfile = SimpleNamespace(NamedTemporaryFile=named)
    return jpeglib


class _Unreadable(Exception):
    """libjpeg does not read the coefficients."""


@contextmanager
def temporary_image() -> Iterator[Path]:
    """Path of a temporary JPEG file, removed after the block; an ``OSError`` in it becomes a FileError."""
    with temporary_folder() as folder:
        yield folder / "image.jpg"


def _numbered_from_one(data: bytes) -> bytes:
    """Give the components the numbers that JFIF asks for, 1, 2, 3; jpeglib writes 0, 1, 2."""
    numbered = bytearray(data)
    for segment in walk(data):
        if segment.marker in FRAMES:
            first, step = segment.start + 10, 3
        elif segment.marker == SOS:
            first, step = segment.start + 5, 2
        else:
            continue
        for component in range(numbered[first - 1]):
            numbered[first + step * component] = component + 1
    return bytes(numbered)


def _check_kind(found: list[Segment], max_pixels: int, *, any_colours: bool = False) -> bytes:
    """The frame header of a grey or YCbCr file, or of one of any colours; ValueError for all others."""
    frames = [segment for segment in found if segment.marker in FRAMES]
    markers = [segment.marker for segment in found]
    if len(frames) != 1 or SOS not in markers:
        raise ValueError("holds no image, or a hierarchy of them")
    if frames[0].marker not in _READABLE:
        raise ValueError("is a lossless or arithmetic-coded JPEG")
    if markers.count(SOS) > MAX_JPEG_SCANS:
        raise ValueError(f"has {markers.count(SOS)} scans, more than the {MAX_JPEG_SCANS} allowed")
    if DQT in markers[markers.index(SOS) :]:
        raise ValueError("changes its tables between scans")
    frame = frames[0].payload
    if len(frame) < 6 or len(frame) != 6 + 3 * frame[5]:
        raise ValueError("has a damaged frame header")
    bits, components = frame[0], frame[5]
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if bits != 8:
        raise ValueError(f"holds {bits} bits a value")
    if height * width == 0:
        raise ValueError(f"has {width} × {height} pixels")
    if height * width > max_pixels:
        raise ValueError(f"has {width} × {height} pixels, more than the {max_pixels} allowed")
    if components not in ((1, 3, 4) if any_colours else (1, 3)):
        raise ValueError(f"has {components} components" + " (CMYK)" * (components == 4))
    if components == 3 and not any_colours and _is_rgb(found, frame[6::3]):
        raise ValueError("stores RGB instead of YCbCr")
    return frame


def _sampling(frame: bytes) -> Sampling:
    """Sampling in a frame header; ValueError for one that is not ours to read."""
    if frame[5] == 1:
        return "4:4:4"
    luma, *chroma = ((factors >> 4, factors & 15) for factors in frame[7::3])  # (horizontal, vertical)
    if chroma == [luma, luma]:
        return "4:4:4"
    if luma == (2, 2) and chroma == [(1, 1), (1, 1)]:
        return "4:2:0"
    factors = ", ".join(f"{horizontal}×{vertical}" for horizontal, vertical in (luma, *chroma))
    raise ValueError(f"has the chroma sampling {factors}")


def _is_rgb(found: list[Segment], numbers: bytes) -> bool:
    """True if components are RGB, by libjpeg's rule: the JFIF marker, then Adobe's, then the components' names."""
    if any(part.marker == APP0 and part.payload.startswith(b"JFIF\0") for part in found):
        return False
    for part in found:
        if part.marker == APP14 and part.payload.startswith(b"Adobe") and len(part.payload) >= 12:
            return part.payload[11] == 0
    return numbers == b"RGB"


def _without_metadata(data: bytes, found: list[Segment], keep: frozenset[int] = frozenset()) -> bytes:
    """The file from SOI to EOI without APPn and COM, of which jpeglib has room for few, but for those to ``keep``."""
    pieces, position = [], 0
    for segment in found:
        if segment.marker in METADATA - keep:
            pieces.append(data[position : segment.start])
            position = segment.end
    pieces.append(data[position : found[-1].end])
    return b"".join(pieces)


def sampling_of(data: bytes, *, name: str | Path = "JPEG data") -> tuple[tuple[int, int], ...]:
    """(horizontal, vertical) sampling factors of each component of a JPEG file, from its frame header.

    Raises
    ------
    ImageError
        Not a JPEG, or damaged.
    """
    for segment in segments_of(data, name):
        if segment.marker in FRAMES:
            return tuple((factors >> 4, factors & 15) for factors in segment.payload[7::3])
    raise ImageError(name, "holds no image", RESAVE)


def _read(data: bytes, sampling: Sampling) -> Coefficients:
    jpeglib = _jpeglib()
    with temporary_image() as path:
        path.write_bytes(data)
        try:
            image = jpeglib.read_dct(str(path))
            image.load()
        except OSError as error:
            raise _Unreadable from error
    components = (image.Y, image.Cb, image.Cr)[: image.num_components]
    planes = tuple(
        Plane(np.array(values, np.int16), np.array(image.get_component_qt(index), np.uint16))
        for index, values in enumerate(components)
    )
    return Coefficients(int(image.width), int(image.height), planes, sampling)
