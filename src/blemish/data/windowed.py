"""Reading an image file by windows, so that an image larger than the memory can be used.

A TIFF gives up the tiles, strips or rows that a window touches, a JPEG 2000 file its blocks, a cube its values. Other
formats have no such parts: they are decoded whole and kept while they are in use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.envi import EnviImage, envi_header
from blemish.data.hdf5 import Hdf5Image, is_hdf5
from blemish.data.image import ImageInfo, image_info, read_image
from blemish.data.jpeg_2000 import by_blocks
from blemish.data.opening import (
    ENDS_EARLY,
    JPEG_IN_TIFF,
    TIFF_AXES,
    TIFF_BY_PILLOW,
    TIFF_PLAIN,
    first_bytes,
    full_size_series,
    image_format,
    open_tiff,
    reading,
    several_images,
    tiff_orientation,
)
from blemish.data.windowed_image import DecodedCache, ReadWindow, WindowedImage, full_scale, overlap
from blemish.errors import ImageError
from blemish.limits import MAX_SCENE_FILE_BYTES, MAX_SEGMENT_BYTES

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

_YCBCR, _WHITE_IS_ZERO = 6, 0
_ALPHA = {1, 2}
_ANY_SIZE = 2**62


def open_windowed(path: str | Path, dataset: str = "") -> WindowedImage:
    """Open any image that ``read_image`` reads, and also TIFFs of any numeric type, BigTIFFs, pyramids, ENVI cubes, HDF5.

    Of a pyramid the largest level is read. A cube is named by its data file, beside which its header lies. Values are the
    file's own. Alpha is no channel: where it is 0, the image is absent.

    Parameters
    ----------
    dataset: path within an HDF5 file (:class:`~blemish.data.hdf5.Hdf5Image`).

    Raises
    ------
    ImageError
        The file is missing, no image, or its header is damaged.
    """
    path = Path(path)
    header = envi_header(path)
    if header is not None:
        return EnviImage(path, header)
    start = first_bytes(path)
    if is_hdf5(start):
        return Hdf5Image(path, dataset)
    if dataset:
        raise ImageError(path, f"is no HDF5 file, and has no dataset '{dataset}'", "remove 'dataset'")
    kind = image_format(start)
    if kind == "TIFF":
        with reading(path):
            return _windowed_tiff(path)
    if kind == "JPEG 2000" and (opened := by_blocks(path)) is not None:
        return opened
    return _Whole(path, _info(path))


class _Whole(WindowedImage):
    """A file that can only be decoded as a whole."""

    def __init__(self, path: Path, info: ImageInfo) -> None:
        self.path = path
        self._has_alpha = info.channels in (2, 4)
        self.channels = info.channels - self._has_alpha
        self.height, self.width = info.height, info.width
        self.dtype = np.dtype(info.kind)
        self.full_scale = full_scale(self.dtype)
        self.cached_bytes = info.channels * info.height * info.width * self.dtype.itemsize

    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> ReadWindow:
        pixels = cache.get(self.path, self._decode)
        values = pixels[:, top : top + height, left : left + width]
        return ReadWindow(values[: self.channels], values[-1] == 0 if self._has_alpha else None)

    def _decode(self) -> NDArray[Any]:
        return read_image(self.path, max_pixels=_ANY_SIZE, max_bytes=MAX_SCENE_FILE_BYTES).pixels

    def check(self) -> None:
        """Do nothing: whether a compressed file is complete shows only when it is decoded."""


@dataclass(frozen=True)
class _Page:
    """Positions of the segments (tiles or strips) of one page in the file."""

    offsets: Sequence[int]
    counts: Sequence[int]
    tables: bytes | None


class _Tiff(WindowedImage):
    """A TIFF by its tiles, strips or, where it is not compressed and not tiled, rows."""

    def __init__(self, path: Path, series: TiffPageSeries, page: TiffPage) -> None:
        self.path = path
        planes, _, self.height, self.width, samples = page.shaped  # (separate samples, depth, H, W, samples)
        self.dtype = np.dtype(page.dtype)
        self.full_scale = full_scale(self.dtype) if page.bitspersample == 8 * self.dtype.itemsize else None
        self._stored = self.dtype.newbyteorder(page.parent.byteorder)
        self._inverted = page.photometric == _WHITE_IS_ZERO
        self._planes, self._samples = int(planes), int(samples)
        self._size = page.parent.filehandle.size
        pages = list(series.pages)
        stored = len(pages) * planes * samples
        self._has_alpha = bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA
        self.channels = stored - self._has_alpha
        if self.channels < 1:
            raise ValueError("nothing but alpha")
        self._rows: list[int] | None = None
        self._pages: list[_Page] = []
        self._decode = page.decode
        self._jpegheader = page.jpegheader if page.compression in JPEG_IN_TIFF else None
        self._is_jpeg = page.compression in JPEG_IN_TIFF
        self._tile: tuple[int, int] = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, self.height), self.width)
        )
        self.cached_bytes = 0
        if page.is_final and all(each is not None or series.dataoffset is not None for each in pages):
            plane = self.height * self.width * samples * self.dtype.itemsize
            self._rows = [
                (each.dataoffsets[0] if each is not None else series.dataoffset + number * plane * planes)
                + sample * plane
                for number, each in enumerate(pages)
                for sample in range(planes)
            ]
            return
        if any(each is None for each in pages):
            raise EOFError("the chain of pages breaks off")
        self._pages = [_Page(each.dataoffsets, each.databytecounts, each.jpegtables) for each in pages]

    @property
    def segment_bytes(self) -> int:
        """Bytes of a decoded tile or strip; 0 where rows are read."""
        if self._rows is not None:
            return 0
        height, width = self._tile
        return height * width * self._samples * self.dtype.itemsize

    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> ReadWindow:
        stored = self.channels + self._has_alpha
        with reading(self.path):
            values = np.zeros((stored, height, width), self.dtype)
            absent = np.zeros((height, width), np.bool_)
            if self._rows is not None:
                self._read_rows(values, top, left)
            else:
                self._read_segments(values, absent, top, left, cache)
        if self._inverted:
            values = (1 if self.dtype.kind == "f" else np.iinfo(self.dtype).max) - values
        if self._has_alpha:
            absent |= values[-1] == 0
        return ReadWindow(values[: self.channels], absent if absent.any() else None)

    def _read_rows(self, values: NDArray[Any], top: int, left: int) -> None:
        assert self._rows is not None
        _, height, width = values.shape
        row = self.width * self._samples * self.dtype.itemsize
        for plane, offset in enumerate(self._rows):
            if offset + (top + height) * row > self._size:
                raise EOFError(ENDS_EARLY)
            rows = np.memmap(
                self.path,
                self._stored,
                "r",
                offset=offset + top * row,
                shape=(height, self.width, self._samples),
            )
            where = slice(plane * self._samples, (plane + 1) * self._samples)
            values[where] = rows[:, left : left + width].transpose(2, 0, 1)

    def _read_segments(
        self, values: NDArray[Any], absent: NDArray[np.bool_], top: int, left: int, cache: DecodedCache
    ) -> None:
        _, height, width = values.shape
        tile_h, tile_w = self._tile
        down, across = -(-self.height // tile_h), -(-self.width // tile_w)
        with self.path.open("rb") as file:
            for number, page in enumerate(self._pages):
                for sample in range(self._planes):
                    first = (number * self._planes + sample) * self._samples
                    for row in range(top // tile_h, (top + height - 1) // tile_h + 1):
                        for column in range(left // tile_w, (left + width - 1) // tile_w + 1):
                            index = (sample * down + row) * across + column
                            y, y_in = overlap(row * tile_h, tile_h, top, height)
                            x, x_in = overlap(column * tile_w, tile_w, left, width)
                            if page.counts[index] == 0:  # a sparse file leaves out tiles that hold nothing
                                absent[y, x] = True
                                continue
                            segment = cache.get(
                                (self.path, number, index),
                                lambda page=page, index=index: self._segment(file, page, index),  # type: ignore[misc]
                            )
                            values[first : first + self._samples, y, x] = segment[:, y_in, x_in]

    def _segment(self, file: Any, page: _Page, index: int) -> NDArray[Any]:
        """(samples, th, tw), decoded."""
        offset, count = page.offsets[index], page.counts[index]
        if offset + count > self._size:
            raise EOFError(ENDS_EARLY)
        file.seek(offset)
        data = file.read(count)
        if len(data) < count:
            raise EOFError(ENDS_EARLY)
        tables = {"jpegtables": page.tables, "jpegheader": self._jpegheader} if self._is_jpeg else {}
        segment, _, _ = self._decode(data, index, **tables)  # (1, th, tw, samples)
        native = segment[0].astype(self.dtype, copy=False)
        return np.ascontiguousarray(native.transpose(2, 0, 1))

    def check(self) -> None:
        with reading(self.path):
            if self._rows is not None:
                plane = self.height * self.width * self._samples * self.dtype.itemsize
                complete = max(self._rows) + plane <= self._size
            else:
                complete = all(
                    offset + count <= self._size
                    for page in self._pages
                    for offset, count in zip(page.offsets, page.counts, strict=True)
                )
            if not complete:
                raise EOFError(ENDS_EARLY)

    def __reduce__(self) -> tuple[Callable[[Path], WindowedImage], tuple[Path]]:
        return open_windowed, (self.path,)  # a decoder of tifffile cannot be pickled


def _windowed_tiff(path: Path) -> WindowedImage:
    with open_tiff(path) as tiff:
        series = _largest(path, tiff)
        page = series.keyframe
        is_upright = tiff_orientation(page) == 1
        converted = page.photometric in TIFF_BY_PILLOW and not (
            page.photometric == _YCBCR and page.compression in JPEG_IN_TIFF
        )
        plain = page.photometric in TIFF_PLAIN or (page.photometric == _YCBCR and not converted)
        numeric = page.dtype is not None and page.dtype.kind in "uif" and page.bitspersample >= 8
        if is_upright and plain and numeric and page.imagedepth == 1:
            opened = _Tiff(path, series, page)
            if opened.segment_bytes <= MAX_SEGMENT_BYTES:
                return opened
    return _Whole(path, _info(path))


def _info(path: Path) -> ImageInfo:
    return image_info(path, max_pixels=_ANY_SIZE, max_bytes=MAX_SCENE_FILE_BYTES)


def _largest(path: Path, tiff: TiffFile) -> TiffPageSeries:
    """The one series of full-size pages; smaller ones of the same shape are levels of a pyramid."""
    found = full_size_series(tiff)
    found.sort(key=lambda series: -series.keyframe.imagelength * series.keyframe.imagewidth)
    if not found:
        raise ImageError(path, "holds no image at full size", "save it again from its source")
    first, *others = found
    if first.axes not in TIFF_AXES or not all(_is_level(other, first) for other in others):
        raise several_images(path, tiff, f"axes {first.axes}")
    return first


def _is_level(other: TiffPageSeries, first: TiffPageSeries) -> bool:
    """True if ``other`` is ``first`` at a lower resolution, to a pixel's rounding."""
    height, width = first.keyframe.imagelength, first.keyframe.imagewidth
    level_h, level_w = other.keyframe.imagelength, other.keyframe.imagewidth
    same_kind = other.axes == first.axes and other.dtype == first.dtype
    return same_kind and level_h < height and same_field((level_h, level_w), (height, width))


def same_field(coarse: tuple[int, int], fine: tuple[int, int], *, rounded: bool = False) -> bool:
    """True if (height, width) ``coarse`` is ``fine`` at another scale, each side rounded up or down.

    With ``rounded`` both are of a third image at scales of their own, so that ``fine`` was rounded too.

    >>> same_field((50, 33), (100, 67)), same_field((50, 40), (100, 67))
    (True, False)
    >>> same_field((51, 70), (65, 93)), same_field((51, 70), (65, 93), rounded=True)
    (False, True)
    """
    low = max((side - 1) / (whole + rounded) for side, whole in zip(coarse, fine, strict=True))
    high = min((side + 1) / max(whole - rounded, 1) for side, whole in zip(coarse, fine, strict=True))
    return low < high


class Mosaic(WindowedImage):
    """Abutting files as one image; a file that is not there is a region that is absent.

    Parameters
    ----------
    files: by (row, column); the numbers may begin anywhere.
    dataset: path within each of them, where they are HDF5 files.

    Raises
    ------
    ImageError
        A whole row or column is missing, or a file does not fit beside the others.
    """

    def __init__(self, files: dict[tuple[int, int], Path], dataset: str = "") -> None:
        self._parts = {place: open_windowed(path, dataset) for place, path in sorted(files.items())}
        first = next(iter(self._parts.values()))
        self.path, self.channels, self.dtype = first.path, first.channels, first.dtype
        self.full_scale = first.full_scale
        self.cached_bytes = sum(part.cached_bytes for part in self._parts.values())
        for part in self._parts.values():
            if (part.channels, part.dtype, part.full_scale) != (self.channels, self.dtype, self.full_scale):
                problem = f"has {part.channels} × {part.dtype}, {first.path.name} has {self.channels} × {self.dtype}"
                raise ImageError(
                    part.path, problem, "save all files of a modality with the same channels and type"
                )
        self._tops = self._starts("row", 0)
        self._lefts = self._starts("column", 1)
        self.height, self.width = self._tops[-1][1], self._lefts[-1][1]
        self.missing = tuple(
            (row, column)
            for row in range(self._first[0], self._first[0] + len(self._tops))
            for column in range(self._first[1], self._first[1] + len(self._lefts))
            if (row, column) not in self._parts
        )

    @property
    def _first(self) -> tuple[int, int]:
        return min(row for row, _ in self._parts), min(column for _, column in self._parts)

    def _starts(self, word: str, axis: int) -> list[tuple[int, int]]:
        """(start, stop) in pixels of each row or column of files."""
        sizes: dict[int, tuple[int, Path]] = {}
        for place, part in self._parts.items():
            size = (part.height, part.width)[axis]
            before, path = sizes.setdefault(place[axis], (size, part.path))
            if size != before:
                side = ("high", "wide")[axis]
                problem = f"is {size} pixels {side}, {path.name} in the same {word} is {before}"
                raise ImageError(part.path, problem, "cut the files so that they abut")
        starts, start = [], 0
        for number in range(min(sizes), max(sizes) + 1):
            if number not in sizes:
                problem = f"is part of a grid without any file in {word} {number}"
                raise ImageError(self.path, problem, f"add the files of that {word}, or number without gaps")
            starts.append((start, start + sizes[number][0]))
            start += sizes[number][0]
        return starts

    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> ReadWindow:
        values = np.zeros((self.channels, height, width), self.dtype)
        absent = np.ones((height, width), np.bool_)
        for (row, column), part in self._parts.items():
            y0, y1 = self._tops[row - self._first[0]]
            x0, x1 = self._lefts[column - self._first[1]]
            if y1 <= top or y0 >= top + height or x1 <= left or x0 >= left + width:
                continue
            y, y_in = overlap(y0, y1 - y0, top, height)
            x, x_in = overlap(x0, x1 - x0, left, width)
            read = part.read(y_in.start, x_in.start, y_in.stop - y_in.start, x_in.stop - x_in.start, cache)
            values[:, y, x] = read.values
            absent[y, x] = False if read.absent is None else read.absent
        return ReadWindow(values, absent if absent.any() else None)

    def check(self) -> None:
        for part in self._parts.values():
            part.check()
