"""Reading of one image file into memory: any common format, exact values, one line for every fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from blemish.data import deep_formats
from blemish.data.opening import (
    ENDS_EARLY,
    FORMATS,
    PLUGINS,
    TIFF_AXES,
    TIFF_BY_PILLOW,
    TIFF_PLAIN,
    ImageFormat,
    exif_orientation,
    first_bytes,
    full_size_series,
    image_format,
    open_tiff,
    reading,
    refuse_large,
    refuse_short_jpeg,
    several_images,
    tiff_orientation,
    upright,
)
from blemish.errors import ImageError
from blemish.limits import MAX_DEFLATE_RATIO, MAX_IMAGE_BYTES, MAX_PIXELS

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

PixelKind = Literal["uint8", "uint16", "float32"]

SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
        ".pbm",
        ".pgm",
        ".ppm",
        ".pnm",
        ".jp2",
        ".j2k",
    ]
)

DEPTH_WORDS: dict[PixelKind, str] = {"uint8": "8-bit", "uint16": "16-bit", "float32": "floating-point"}

_ROWS = 512
_FULL_SCALE = {"uint8": 255, "uint16": 65535}

# Pillow mode -> (mode to convert to, channels, kind)
_MODES: dict[str, tuple[str, int, PixelKind]] = {
    "1": ("L", 1, "uint8"),
    "L": ("L", 1, "uint8"),
    "LA": ("LA", 2, "uint8"),
    "P": ("RGB", 3, "uint8"),
    "PA": ("RGBA", 4, "uint8"),
    "RGB": ("RGB", 3, "uint8"),
    "RGBX": ("RGB", 3, "uint8"),
    "RGBA": ("RGBA", 4, "uint8"),
    "RGBa": ("RGBA", 4, "uint8"),
    "CMYK": ("RGB", 3, "uint8"),
    "YCbCr": ("RGB", 3, "uint8"),
    "LAB": ("RGB", 3, "uint8"),
    "I;16": ("I;16", 1, "uint16"),
}

_TIFF_KINDS: dict[str, PixelKind] = {
    "uint8": "uint8",
    "uint16": "uint16",
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",
}

_CONVERT = "convert it to PNG or TIFF with 8 or 16 bits a channel"


@dataclass(frozen=True)
class ImageInfo:
    """Channels, type and size of an image as ``read_image`` gives it, from the header of its file."""

    channels: int
    kind: PixelKind
    width: int
    height: int


@dataclass(frozen=True)
class LoadedImage:
    """An image as its file holds it, upright: ``pixels`` is (C, H, W) in uint8, uint16 or float32."""

    path: Path
    pixels: NDArray[Any]

    @property
    def kind(self) -> PixelKind:
        """Type of the pixels."""
        kinds: dict[str, PixelKind] = {"uint8": "uint8", "uint16": "uint16", "float32": "float32"}
        return kinds[self.pixels.dtype.name]

    @property
    def channels(self) -> int:
        """Channels of each pixel."""
        return int(self.pixels.shape[0])

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[2])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def floats(self) -> NDArray[np.float32]:
        """The pixels as float32 (C, H, W) in [0, 1]: the full range of the file's type becomes 0..1.

        Examples
        --------
        >>> LoadedImage(Path("a.png"), np.array([[[0, 51, 255]]], np.uint8)).floats().tolist()
        [[[0.0, 0.20000000298023224, 1.0]]]
        """
        return as_floats(self.pixels)

    def resized(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """:meth:`floats` at ``size`` (height, width); channel by channel, so that memory holds one of full size."""
        if size == self.pixels.shape[1:]:
            return self.floats()
        return np.concatenate([resize(as_floats(plane[np.newaxis]), size) for plane in self.pixels])


def read_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_IMAGE_BYTES
) -> LoadedImage:
    """Read a PNG, JPEG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 file without loss, whatever its name.

    Black and white becomes 0 and 255; palettes become RGB, or RGBA when they hold transparency; CMYK, YCbCr
    and Lab become RGB. The orientation in EXIF is applied. Of an animation the first frame is read. A TIFF of
    several pages is read only when its own metadata calls the pages channels. Floats must lie in 0..1: no
    range is guessed.

    Parameters
    ----------
    path: the file.
    max_pixels, max_bytes: an image with more, decoded, is refused by its header, before anything is decoded.

    Raises
    ------
    ImageError
        The file is missing, unreadable, empty, no image, truncated, too large, or of a kind
        that cannot be read without guessing.
    """
    path = Path(path)
    with reading(path):
        header = _read_header(path, max_pixels, max_bytes)
        pixels = np.ascontiguousarray(upright(header.decode(), header.orientation))
        info = header.info
        if pixels.shape != (info.channels, info.height, info.width):
            raise ValueError("its pixels are not what its header says")
        if header.info.kind == "float32":
            with np.errstate(over="ignore"):  # what overflows is refused as infinite
                pixels = pixels.astype(np.float32, copy=False)
            _check_floats(path, pixels)
        return LoadedImage(path, pixels)


def image_info(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_IMAGE_BYTES
) -> ImageInfo:
    """Read channels, kind, width and height of an image from its header alone.

    Raises
    ------
    ImageError
        As ``read_image``, for all that the header shows.
    """
    path = Path(path)
    with reading(path):
        return _read_header(path, max_pixels, max_bytes).info


def orientation_of(path: str | Path) -> int:
    """Orientation that the file of an image gives in EXIF or TIFF, 1 to 8; errors as of :func:`image_info`."""
    path = Path(path)
    with reading(path):
        return _read_header(path, MAX_PIXELS, MAX_IMAGE_BYTES).orientation


def png_text(path: str | Path) -> dict[str, str]:
    """The text of a PNG file, by keyword; empty for any other file."""
    try:
        with PngImageFile(path) as image:
            return {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    except SyntaxError:
        return {}


def as_floats(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels of any shape as floats in [0, 1]: the full range of a file's type becomes 0..1; floats as they are."""
    if pixels.dtype.name not in _FULL_SCALE:
        return pixels
    full_scale = np.float32(_FULL_SCALE[pixels.dtype.name])
    floats: NDArray[np.float32] = np.divide(pixels, full_scale, dtype=np.float32)
    return floats


def levels(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """8-bit levels of pixels of any shape: of a file's type at its full range, or floats in [0, 1], others clipped.

    >>> levels(np.array([0, 257, 65535], np.uint16)).tolist(), levels(np.array([-1.0, 0.5, 2.0])).tolist()
    ([0, 1, 255], [0, 128, 255])
    """
    if pixels.dtype == np.uint8:
        return pixels
    counts = np.empty(pixels.shape, np.uint8)
    flat, drawn = np.atleast_2d(pixels), np.atleast_2d(counts)
    for top in range(0, flat.shape[-2], _ROWS):
        rows = slice(top, top + _ROWS)
        values = np.clip(as_floats(flat[..., rows, :]), 0, 1) * 255
        drawn[..., rows, :] = np.rint(values)
    return counts


def resize(pixels: NDArray[np.floating[Any]], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize float pixels (C, H, W) to ``size`` (height, width), as float32.

    Bilinear; when a side shrinks, the triangle widens with it so that nothing aliases (Pillow's
    ``BILINEAR``). Each new value is a weighted mean of old ones, so the range is kept and a constant stays
    itself.
    """
    height, width = size
    if pixels.shape[1:] == (height, width):
        return pixels.astype(np.float32, copy=False)
    resized = np.empty((pixels.shape[0], height, width), np.float32)
    for channel, plane in zip(resized, pixels, strict=True):
        image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        for top in range(0, height, _ROWS):  # Pillow gives its pixels by two copies
            bottom = min(top + _ROWS, height)
            channel[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return resized


@dataclass(frozen=True)
class _Header:
    """Decoding of a file: ``decode`` gives (C, H, W), to be turned upright by ``orientation`` (1 to 8)."""

    info: ImageInfo
    orientation: int
    decode: Callable[[], NDArray[Any]]
    wide: int = 0
    """Bytes a value, where the file holds wider ones than ``info`` says."""

    @property
    def size(self) -> int:
        """Bytes of the decoded pixels."""
        value = max(np.dtype(self.info.kind).itemsize, self.wide)
        return self.info.width * self.info.height * self.info.channels * value


def _read_header(path: Path, max_pixels: int, max_bytes: int) -> _Header:
    start = first_bytes(path)
    found = image_format(start)
    if found is None:
        raise ImageError(path, f"is not a {FORMATS} image", "convert it or remove it")
    header = _header(path, found, start)
    info = header.info
    refuse_large(path, info.width, info.height, header.size, max_pixels=max_pixels, max_bytes=max_bytes)
    if found == "JPEG":
        refuse_short_jpeg(path, path.read_bytes(), info.width, info.height)
    if found == "BMP" and deep_formats.bmp_bytes(start) > path.stat().st_size:
        raise EOFError(ENDS_EARLY)
    if found == "PNG":
        bits = deep_formats.png_bits_a_pixel(start) * info.width * info.height
        if bits > 8 * MAX_DEFLATE_RATIO * path.stat().st_size:
            raise EOFError(ENDS_EARLY)
    return header


def _header(path: Path, found: ImageFormat, start: bytes) -> _Header:
    if found == "TIFF":
        return _tiff_header(path)
    if found == "PNM" and (deep := deep_formats.pnm_header(path)):
        channels, width, height = deep
        return _Header(ImageInfo(channels, "uint16", width, height), 1, lambda: deep_formats.decode_pnm(path))
    header = _pillow_header(path, PLUGINS[found])
    width, height = header.info.width, header.info.height
    if found == "PNG" and (of_16_bits := deep_formats.png_channels(start)):
        info = ImageInfo(of_16_bits, "uint16", width, height)
        return _Header(info, header.orientation, lambda: deep_formats.decode_png(path, of_16_bits))
    if found == "JPEG 2000" and (bits := deep_formats.jpeg_2000_bits(path)) > 8:
        if bits != 16:
            raise ImageError(path, f"stores {bits}-bit values as JPEG 2000", _CONVERT)
        info = ImageInfo(header.info.channels, "uint16", width, height)
        return _Header(info, header.orientation, lambda: deep_formats.decode_jpeg_2000(path))
    return header


def _pillow_header(path: Path, plugin: type[ImageFile]) -> _Header:
    with plugin(path) as image:
        mode, channels, kind = _target_mode(path, image)
        orientation = exif_orientation(image)
        width, height = image.size
    info = _upright_info(channels, kind, width, height, orientation)
    return _Header(info, orientation, lambda: _decode_pillow(path, plugin, mode))


def _target_mode(path: Path, image: Image.Image) -> tuple[str, int, PixelKind]:
    if image.mode not in _MODES:
        raise ImageError(path, f"has the unsupported pixel type {image.mode}", _CONVERT)
    if image.mode == "P" and "transparency" in image.info:
        return _MODES["RGBA"]
    return _MODES[image.mode]


def _decode_pillow(path: Path, plugin: type[ImageFile], mode: str) -> NDArray[Any]:
    with plugin(path) as image:
        image.load()
        return _array(image, mode)


def _array(image: Image.Image, mode: str) -> NDArray[Any]:
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)  # (C, H, W)


def pixels_of(name: Path, image: Image.Image) -> tuple[NDArray[Any], PixelKind]:
    """Pixels (C, H, W) of an image of Pillow, as it lies, with the channels that a file of it would have.

    Raises
    ------
    ImageError
        Its pixels are of an unsupported type.
    """
    mode, _, kind = _target_mode(name, image)
    return _array(image, mode), kind


@contextmanager
def _one_series(path: Path) -> Iterator[TiffPageSeries]:
    """Open a TIFF at its one series of full-size pages; refuse a cut-off file, which tifffile fills up."""
    with open_tiff(path) as tiff:
        found = full_size_series(tiff)
        _ = len(tiff.pages)  # finds the end of the chain
        tiff.filehandle.seek(tiff.pages.next_page_offset)
        if any(tiff.filehandle.read(tiff.tiff.offsetsize)):
            raise EOFError("the chain of pages breaks off")
        if len(found) != 1 or found[0].axes not in TIFF_AXES:
            raise several_images(
                path, tiff, f"axes {found[0].axes}" if len(found) == 1 else "of different kinds"
            )
        series = found[0]
        size = tiff.filehandle.size
        if series.dataoffset is not None and series.dataoffset + series.nbytes > size:
            raise EOFError(ENDS_EARLY)
        for page in (page for page in series.pages if page is not None):
            spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            if any(offset + length > size for offset, length in spans):
                raise EOFError(ENDS_EARLY)
            if not all(length for _, length in spans):
                raise EOFError("parts of it were never written")
        yield series


def _tiff_header(path: Path) -> _Header:
    with _one_series(path) as series:
        page, axes, shape = series.keyframe, series.axes, series.shape
        photometric, bits, type_name = page.photometric, page.bitspersample, str(page.dtype)
        orientation = tiff_orientation(page)
    width, height = (shape[1], shape[0]) if axes in {"YX", "YXS"} else (shape[2], shape[1])

    if photometric in TIFF_BY_PILLOW or (bits < 8 and photometric in TIFF_PLAIN):
        if bits > 8:
            raise ImageError(path, f"stores {bits}-bit values as {photometric.name}", _CONVERT)
        with TiffImageFile(path) as image:
            mode, channels, kind = _target_mode(path, image)
        info = _upright_info(channels, kind, width, height, orientation)
        return _Header(info, 1, lambda: _decode_pillow(path, TiffImageFile, mode))  # Pillow itself turns TIFF

    if photometric not in TIFF_PLAIN:
        problem = f"stores values of the unsupported type {getattr(photometric, 'name', photometric)}"
        raise ImageError(path, problem, _CONVERT)
    if type_name not in _TIFF_KINDS or bits not in {8, 16, 32, 64}:
        problem = f"stores {bits}-bit {type_name} values"
        raise ImageError(path, problem, "save it as 8 or 16 bit unsigned, or as floats in 0..1")
    kind = _TIFF_KINDS[type_name]
    channels = 1 if axes == "YX" else shape[2] if axes == "YXS" else shape[0]
    info = _upright_info(channels, kind, width, height, orientation)
    return _Header(info, orientation, lambda: _decode_tiff(path), wide=bits // 8)


def _decode_tiff(path: Path) -> NDArray[Any]:
    with _one_series(path) as series:
        array: NDArray[Any] = series.asarray(maxworkers=1)
        axes, white_is_zero = series.axes, series.keyframe.photometric == 0
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if white_is_zero:
        array = (1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max) - array
    if axes == "YX":
        return array[np.newaxis]
    return array.transpose(2, 0, 1) if axes == "YXS" else array  # (C, H, W)


def _upright_info(channels: int, kind: PixelKind, width: int, height: int, orientation: int) -> ImageInfo:
    if orientation >= 5:
        width, height = height, width
    return ImageInfo(channels, kind, width, height)


def _check_floats(path: Path, pixels: NDArray[np.float32]) -> None:
    low, high = float(pixels.min()), float(pixels.max())  # either is NaN when any value is
    if not np.isfinite([low, high]).all():
        raise ImageError(path, "holds NaN or infinite values", "replace them by values in 0..1")
    if low < 0 or high > 1:
        raise ImageError(
            path, f"holds values from {low:g} to {high:g}, outside 0..1", "rescale its values to 0..1"
        )
