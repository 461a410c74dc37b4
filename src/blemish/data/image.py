"""Reading one image file: any common format, exact values, every fault told in one line."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from blemish.errors import ImageError, UsageError

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

PixelKind = Literal["uint8", "uint16", "float32"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 400_000_000

DEPTH_WORDS: dict[PixelKind, str] = {"uint8": "8-bit", "uint16": "16-bit", "float32": "floating-point"}

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

_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # PNG colour type -> channels (RGB, grey with alpha, RGBA)

_CHANNEL_CHANGES = {(1, 3), (2, 1), (2, 3), (3, 1), (4, 1), (4, 3)}

TIFF_AXES = {"YX", "YXS", "SYX", "CYX"}
TIFF_PLAIN = {0, 1, 2}  # photometric interpretations taken as they are: white is zero, black is zero, RGB
TIFF_BY_PILLOW = {3, 5, 6, 8}  # and those to convert: palette, CMYK, YCbCr, Lab
_TIFF_KINDS: dict[str, PixelKind] = {
    "uint8": "uint8",
    "uint16": "uint16",
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",
}
_SILENCE = logging.NullHandler()

_RESAVE = "save it again from its source, or remove it"
_CONVERT = "convert it to PNG or TIFF with 8 or 16 bits a channel"


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image file says about the image as ``read_image`` gives it."""

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
        """The type of the pixels."""
        kinds: dict[str, PixelKind] = {"uint8": "uint8", "uint16": "uint16", "float32": "float32"}
        return kinds[self.pixels.dtype.name]

    @property
    def channels(self) -> int:
        """How many channels each pixel has."""
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
        >>> Image(Path("a.png"), np.array([[[0, 51, 255]]], np.uint8)).floats().tolist()
        [[[0.0, 0.20000000298023224, 1.0]]]
        """
        if self.kind == "float32":
            return self.pixels
        full_scale = np.float32(_FULL_SCALE[self.kind])
        floats: NDArray[np.float32] = np.divide(self.pixels, full_scale, dtype=np.float32)
        return floats


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """Read a PNG, JPEG, BMP, TIFF or WebP file without loss; its content decides the format, not its name.

    Black and white becomes 0 and 255; palettes become RGB, or RGBA when they hold transparency; CMYK, YCbCr
    and Lab become RGB. The orientation in EXIF is applied. Of an animation the first frame is read. A TIFF of
    several pages is read only when its own metadata calls the pages channels. Floats must lie in 0..1: no
    range is guessed.

    Parameters
    ----------
    path: the file.
    max_pixels: an image with more is refused by its header, before anything is decoded.

    Raises
    ------
    ImageError
        The file is missing, unreadable, empty, no image, truncated, too large, or of a kind
        that cannot be read without guessing.
    """
    path = Path(path)
    header = _read_header(path, max_pixels)
    try:
        pixels = header.decode()
    except DAMAGE as error:
        raise damaged(path, error) from error
    except MemoryError as error:
        raise ImageError(path, "does not fit into memory", "cut it into smaller images") from error
    pixels = np.ascontiguousarray(_upright(pixels, header.orientation))
    if header.info.kind == "float32":
        with np.errstate(over="ignore"):  # what overflows is refused as infinite
            pixels = pixels.astype(np.float32, copy=False)
        _check_floats(path, pixels)
    return LoadedImage(path, pixels)


def image_info(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Channels, kind, width and height of what ``read_image`` would give, from the header alone.

    Raises
    ------
    ImageError
        As ``read_image``, for all that the header shows.
    """
    return _read_header(Path(path), max_pixels).info


def png_text(path: str | Path) -> dict[str, str]:
    """The text of a PNG file, by keyword; empty for any other file."""
    try:
        with PngImageFile(path) as image:
            return {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    except SyntaxError:
        return {}


def check_channels(have: int, want: int) -> None:
    """Raise UsageError unless ``select_channels`` can turn ``have`` channels into ``want``."""
    if have != want and (have, want) not in _CHANNEL_CHANGES:
        raise UsageError(f"an image of {have} channels cannot be turned into one of {want}")


def select_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """Bring pixels (C, H, W) to a number of channels; the type of the pixels stays.

    Grey is repeated to RGB; RGB becomes grey by the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B;
    alpha (the last of 2 or 4 channels) is dropped.

    Raises
    ------
    UsageError
        Any other change.

    Examples
    --------
    >>> select_channels(np.array([[[255]], [[0]], [[0]]], np.uint8), 1).tolist()
    [[[76]]]
    """
    have = pixels.shape[0]
    check_channels(have, channels)
    if have == channels:
        return pixels
    if have in (2, 4):
        return select_channels(pixels[:-1], channels)
    if channels == 3:
        return np.repeat(pixels, 3, axis=0)
    red, green, blue = pixels.astype(np.float32)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    if np.issubdtype(pixels.dtype, np.integer):
        luma = np.rint(luma)
    grey: NDArray[Any] = luma.astype(pixels.dtype)
    return grey[np.newaxis]


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
        channel[:] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return resized


@dataclass(frozen=True)
class _Header:
    """How to decode a file: ``decode`` gives (C, H, W), to be turned upright by ``orientation`` (1 to 8)."""

    info: ImageInfo
    orientation: int
    decode: Callable[[], NDArray[Any]]


# What Pillow, tifffile and imagecodecs raise on a damaged file.
DAMAGE = (
    SyntaxError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
)


def damaged(path: Path, error: Exception) -> ImageError:
    """The error to raise for a file that a decoder stumbled over."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ImageError(path, f"is truncated or damaged ({reason})", _RESAVE)


def _read_header(path: Path, max_pixels: int) -> _Header:
    start = first_bytes(path)
    read = _header_reader(start)
    if read is None:
        raise ImageError(path, "is not a PNG, JPEG, BMP, TIFF or WebP image", "convert it or remove it")
    try:
        header = read(path, start)
    except Image.DecompressionBombError as error:  # Pillow's WebP reader has a limit of its own
        raise ImageError(path, "has too many pixels", "cut it into smaller images") from error
    except DAMAGE as error:
        raise damaged(path, error) from error
    width, height = header.info.width, header.info.height
    if width * height > max_pixels:
        problem = f"has {width} × {height} pixels, more than the {max_pixels} allowed"
        raise ImageError(path, problem, "cut it into smaller images")
    if width * height == 0:
        raise ImageError(path, "has no pixels", _RESAVE)
    return header


def first_bytes(path: Path) -> bytes:
    """The beginning of a regular file that can be read, or the error that says why not."""
    try:
        if path.is_dir():
            raise ImageError(path, "is a folder, not an image", "name an image file")
        if path.exists() and not path.is_file():  # opening a pipe or a device could wait for ever
            raise ImageError(path, "is not a regular file", "name an image file")
        with path.open("rb") as file:
            start = file.read(32)
    except FileNotFoundError as error:
        raise ImageError(path, "does not exist", "check the path") from error
    except PermissionError as error:
        raise ImageError(path, "no permission to read it", "change its permissions") from error
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})", "check the disk and the path") from error
    if not start:
        raise ImageError(path, "is empty (0 bytes)", _RESAVE)
    return start


def _header_reader(start: bytes) -> Callable[[Path, bytes], _Header] | None:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_header
    if start.startswith(b"\xff\xd8\xff"):
        return lambda path, _: _pillow_header(path, JpegImageFile)
    if start.startswith(b"BM"):
        return lambda path, _: _pillow_header(path, BmpImageFile)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return lambda path, _: _pillow_header(path, WebPImageFile)
    if start[:4] in {b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"}:
        return _tiff_header
    return None


def _pillow_header(path: Path, plugin: type[ImageFile]) -> _Header:
    # The format's own class instead of Image.open, whose limit on pixels is a setting of the whole process.
    with plugin(path) as image:
        mode, channels, kind = _target_mode(path, image)
        orientation = _exif_orientation(image)
        width, height = image.size
    info = _upright_info(channels, kind, width, height, orientation)
    return _Header(info, orientation, lambda: _decode_pillow(path, plugin, mode))


def _target_mode(path: Path, image: Image.Image) -> tuple[str, int, PixelKind]:
    if image.mode not in _MODES:
        raise ImageError(path, f"has the unsupported pixel type {image.mode}", _CONVERT)
    if image.mode == "P" and "transparency" in image.info:
        return _MODES["RGBA"]
    return _MODES[image.mode]


def _exif_orientation(image: Image.Image) -> int:
    try:
        # The base class's method, because that of PNG decodes the image when the header holds no EXIF.
        orientation = Image.Image.getexif(image).get(274, 1)
    except DAMAGE:
        return 1
    return orientation if orientation in range(1, 9) else 1


def _decode_pillow(path: Path, plugin: type[ImageFile], mode: str) -> NDArray[Any]:
    with plugin(path) as image:
        image.load()
        array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)  # (C, H, W)


def _png_header(path: Path, start: bytes) -> _Header:
    header = _pillow_header(path, PngImageFile)
    bit_depth, colour_type = start[24], start[25]  # of the IHDR chunk, which always comes first
    if bit_depth < 16 or colour_type not in _PNG_CHANNELS:
        return header
    # Pillow would silently reduce these to 8 bits.
    channels = _PNG_CHANNELS[colour_type]
    info = ImageInfo(channels, "uint16", header.info.width, header.info.height)
    return _Header(info, header.orientation, lambda: _decode_png16(path, channels))


def _decode_png16(path: Path, channels: int) -> NDArray[Any]:
    import imagecodecs

    array: NDArray[Any] = imagecodecs.png_decode(path.read_bytes())  # (H, W, C)
    return array.transpose(2, 0, 1)[:channels]


@contextmanager
def _open_tiff(path: Path) -> Iterator[TiffPageSeries]:
    """Open a TIFF at its one series of full-size pages; refuse a cut-off file, which tifffile fills up."""
    import tifffile

    # tifffile logs what it makes of damaged files; without a handler Python would print that.
    logging.getLogger("tifffile").addHandler(_SILENCE)
    with tifffile.TiffFile(path) as tiff:
        found = [series for series in tiff.series if not series.keyframe.is_reduced]
        pages = len(tiff.pages)
        tiff.filehandle.seek(tiff.pages.next_page_offset)
        if any(tiff.filehandle.read(tiff.tiff.offsetsize)):
            raise EOFError("the chain of pages breaks off")
        if len(found) != 1 or found[0].axes not in TIFF_AXES:
            axes = f"axes {found[0].axes}" if len(found) == 1 else "of different kinds"
            problem = f"holds {pages} pages that are not said to be channels ({axes})"
            raise ImageError(path, problem, "save one image a file, or planar channels (axes CYX)")
        series = found[0]
        size = tiff.filehandle.size
        if series.dataoffset is not None and series.dataoffset + series.nbytes > size:
            raise EOFError("the file ends before its pixels")
        for page in (page for page in series.pages if page is not None):
            spans = zip(page.dataoffsets, page.databytecounts, strict=True)
            if any(offset + length > size for offset, length in spans):
                raise EOFError("the file ends before its pixels")
        yield series


def _tiff_header(path: Path, _: bytes) -> _Header:
    with _open_tiff(path) as series:
        page, axes, shape = series.keyframe, series.axes, series.shape
        photometric, bits, type_name = page.photometric, page.bitspersample, str(page.dtype)
        tag = page.tags.get(274)
    orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
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
    return _Header(info, orientation, lambda: _decode_tiff(path))


def _decode_tiff(path: Path) -> NDArray[Any]:
    with _open_tiff(path) as series:
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


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation (Exif 2.32, tag 274) of pixels (C, H, W)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(1, 2)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[:, ::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, :, ::-1]
    return pixels


def _check_floats(path: Path, pixels: NDArray[np.float32]) -> None:
    low, high = float(pixels.min()), float(pixels.max())  # either is NaN when any value is
    if not np.isfinite([low, high]).all():
        raise ImageError(path, "holds NaN or infinite values", "replace them by values in 0..1")
    if low < 0 or high > 1:
        raise ImageError(
            path, f"holds values from {low:g} to {high:g}, outside 0..1", "rescale its values to 0..1"
        )
