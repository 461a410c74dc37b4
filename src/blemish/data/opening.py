"""Opening image files: formats, checks, orientation and damage, the same for every reader.

Images in memory (:mod:`blemish.data.image`), images by windows (:mod:`blemish.data.windowed`) and the images that
become JPEG files (:mod:`blemish.jpeg.source_image`) all open their files here. The content of a file decides its
format, never its name, and only formats listed here are decoded: some that Pillow knows besides start a program
(PostScript) or hand what they hold to any other reader (IPTC), so that the content of a file could choose what
runs.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from blemish.errors import BlemishError, ImageError, within_memory
from blemish.limits import MAX_JPEG_SCANS

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

ImageFormat: TypeAlias = Literal["PNG", "JPEG", "BMP", "WebP", "TIFF", "GIF", "PNM", "JPEG 2000"]
FORMATS = "PNG, JPEG, BMP, TIFF, WebP, GIF, PNM (PBM, PGM, PPM) or JPEG 2000"
T = TypeVar("T", bound=np.generic)

# The format's own class instead of Image.open, whose limit on pixels is a setting of the whole process.
PLUGINS: dict[ImageFormat, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "BMP": BmpImageFile,
    "WebP": WebPImageFile,
    "TIFF": TiffImageFile,
    "GIF": GifImageFile,
    "PNM": PpmImageFile,
    "JPEG 2000": Jpeg2KImageFile,
}

PILLOW_FORMATS = frozenset(
    [
        "AVIF",
        "BLP",
        "BMP",
        "CUR",
        "DCX",
        "DDS",
        "DIB",
        "FITS",
        "FLI",
        "FTEX",
        "GBR",
        "GIF",
        "ICNS",
        "ICO",
        "IM",
        "IMT",
        "JPEG",
        "JPEG2000",
        "MCIDAS",
        "MSP",
        "PCD",
        "PCX",
        "PIXAR",
        "PNG",
        "PPM",
        "PSD",
        "QOI",
        "SGI",
        "SPIDER",
        "SUN",
        "TGA",
        "TIFF",
        "WEBP",
        "XBM",
        "XPM",
        "XVTHUMB",
    ]
)
"""The formats, by Pillow's names, that :func:`open_with_pillow` decodes. Left out: EPS and WMF, which are programs for
Ghostscript and for WindowedImage; BUFR, GRIB and HDF5, which call what another library registered; IPTC, which opens what
it holds in any format; MPEG, of which nothing is decoded."""

TIFF_AXES = {"YX", "YXS", "SYX", "CYX"}
TIFF_PLAIN = {0, 1, 2}  # photometric interpretations taken as they are: white is zero, black is zero, RGB
_FAX = {2, 3, 4, 32771}  # compressions of CCITT
JPEG_IN_TIFF = {6, 7, 34892, 33007}  # compressions
TIFF_BY_PILLOW = {3, 5, 6, 8}  # and those to convert: palette, CMYK, YCbCr, Lab

RESAVE = "save it again from its source, or remove it"
RENAME = "rename it, or set PYTHONUTF8=1 where the system's language knows ASCII alone"
ENDS_EARLY = "the file ends before its pixels"

_ORIENTATION = 0x0112  # EXIF and TIFF tag
_SILENCE = logging.NullHandler()


# -- checks --------------------------------------------------------------------------------------------


def first_bytes(path: Path) -> bytes:
    """Read the first 64 bytes of an image file.

    Raises
    ------
    ImageError
        The file is missing, unreadable, empty, or no regular file.
    """
    try:
        if path.is_dir():
            raise ImageError(path, "is a folder, not an image", "name an image file")
        _refuse_irregular(path)
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise ImageError(path, "does not exist", "check the path") from error
    except PermissionError as error:
        raise ImageError(path, "no permission to read it", "change its permissions") from error
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})", "check the disk and the path") from error
    return _not_empty(path, start)


def file_bytes(path: Path) -> bytes:
    """Read all bytes of an image file.

    Raises
    ------
    ImageError
        The file is missing, unreadable, empty, or no regular file.
    """
    try:
        _refuse_irregular(path)
        data = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise ImageError(path, problem, "check the path and its permissions") from error
    return _not_empty(path, data)


def _refuse_irregular(path: Path) -> None:
    if path.exists() and not path.is_file():  # opening a pipe or a device could wait for ever
        raise ImageError(path, "is not a regular file", "name an image file")


def _not_empty(path: Path, data: bytes) -> bytes:
    if not data:
        raise ImageError(path, "is empty (0 bytes)", RESAVE)
    return data


def damaged(path: Path, error: Exception) -> ImageError:
    """The error to raise for a file that a decoder could not decode."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ImageError(path, f"is truncated or damaged ({reason})", RESAVE)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises in the block into an ImageError of the file at ``path``.

    Whatever: damaged files make decoders raise assertions, attribute errors and more, and none of them may stop
    the other files.
    """
    try:
        with within_memory(path):
            yield
    except BlemishError:
        raise
    except (
        Image.DecompressionBombError
    ):  # Pillow's own limit on pixels, which not all of its readers let be set
        raise ImageError(path, "has too many pixels", "cut it into smaller images") from None
    except Exception as error:  # decoders raise any class on damaged files
        raise damaged(path, error) from None


def refuse_large(path: Path, width: int, height: int, size: int, *, max_pixels: int, max_bytes: int) -> None:
    """Refuse an image by its header.

    Parameters
    ----------
    size: its bytes once it is decoded.

    Raises
    ------
    ImageError
        It has no pixels, or more pixels or bytes than allowed.
    """
    if width * height == 0:
        raise ImageError(path, "has no pixels", RESAVE)
    remedy = "cut it into smaller images"
    if width * height > max_pixels:
        raise ImageError(path, f"has {width} × {height} pixels, more than the {max_pixels} allowed", remedy)
    if size > max_bytes:
        problem = (
            f"takes {size / 1e9:.1f} GB once it is decoded, more than the {max_bytes / 1e9:.1f} GB allowed"
        )
        raise ImageError(path, problem, remedy)


def refuse_short_jpeg(path: Path, data: bytes, width: int, height: int) -> None:
    """Refuse a JPEG file that promises more than its bytes can hold, or asks for very much work.

    Raises
    ------
    ImageError
        It has more than :data:`~blemish.limits.MAX_JPEG_SCANS` scans, or so few bytes that it ends before its pixels.
    """
    scans = data.count(b"\xff\xda")  # which is nothing but a marker, in coded data too
    if scans > MAX_JPEG_SCANS:
        raise ImageError(path, f"has {scans} scans, more than the {MAX_JPEG_SCANS} allowed", RESAVE)
    # Huffman codes have a bit at least, for each block of 8 × 8; arithmetic coding (SOF9 and SOF10) needs less.
    if width * height > 512 * len(data) and b"\xff\xc9" not in data and b"\xff\xca" not in data:
        raise damaged(path, EOFError(ENDS_EARLY))


# -- formats -------------------------------------------------------------------------------------------


def image_format(start: bytes) -> ImageFormat | None:
    """The format of a file by its first bytes; None for any other than those of :data:`PLUGINS`.

    >>> image_format(b"BM..."), image_format(b"%!PS-Adobe-3.0 EPSF-3.0")
    ('BMP', None)
    """
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"BM"):
        return "BMP"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP"
    if start[:4] in {b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"}:
        return "TIFF"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start[:2] in {b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"} and start[2:3].isspace():
        return "PNM"
    if start.startswith((b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    return None


def open_with_pillow(data: bytes) -> Image.Image:
    """An image of any of :data:`PILLOW_FORMATS`, of which only the header is decoded.

    Raises
    ------
    PIL.UnidentifiedImageError
        The bytes are in none of these formats.
    """
    Image.preinit()
    Image.init()  # or formats of rarely used plugins would not be known
    return Image.open(BytesIO(data), formats=[name for name in Image.ID if name in PILLOW_FORMATS])


# -- TIFF ----------------------------------------------------------------------------------------------


@contextmanager
def open_tiff(file: Path | BinaryIO) -> Iterator[TiffFile]:
    """Open a TIFF with tifffile, whose remarks on damaged files are not printed, and refuse senseless tags.

    Raises
    ------
    ValueError, EOFError
        For sides that are no whole numbers above 0, with which tifffile may never end, or pages whose tiles or strips
        are fewer than their size needs, lie in the header, or are shorter, for which it fills in zeros.
    """
    import tifffile

    # tifffile logs what it makes of damaged files; without a handler Python would print that.
    logging.getLogger("tifffile").addHandler(_SILENCE)
    with tifffile.TiffFile(file) as tiff:
        seen: set[int] = set()
        for page in tiff.pages:
            if page.offset in seen:
                raise EOFError("the chain of pages leads back to itself")
            seen.add(page.offset)
            if isinstance(page, tifffile.TiffPage):
                _check_page(page)
                for level in page.pages or ():
                    if isinstance(level, tifffile.TiffPage):
                        _check_page(level)
        yield tiff


def _check_page(page: TiffPage) -> None:
    tiles = (page.tilewidth, page.tilelength, page.tiledepth) if page.is_tiled else (page.rowsperstrip,)
    sides = (page.imagewidth, page.imagelength, page.imagedepth, page.samplesperpixel, *tiles)
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError("sides that are no whole numbers above 0")
    if page.compression in _FAX and page.bitspersample != 1:
        raise ValueError("values of more than a bit in a coding of bits")
    offsets, counts = page.dataoffsets, page.databytecounts
    if not len(offsets) == len(counts) == math.prod(page.chunked):
        raise EOFError(ENDS_EARLY)
    header = 16 if page.parent.is_bigtiff else 8
    if any(offset < header for offset, count in zip(offsets, counts, strict=True) if count):
        raise ValueError("pixels in the header")
    if page.compression == 1 and all(counts):
        bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        planes = page.samplesperpixel // samples
        rows = page.imagelength * page.imagedepth * planes
        if rows * (page.imagewidth * samples * bits // 8) > sum(counts):
            raise EOFError(ENDS_EARLY)
    if page.compression in JPEG_IN_TIFF and all(counts):
        _check_jpeg_parts(page)


def _check_jpeg_parts(page: TiffPage) -> None:
    """Refuse strips or tiles of JPEG that are smaller than the page says, whose rest tifffile fills with zeros."""
    file = page.parent.filehandle
    file.seek(page.dataoffsets[0])
    head = file.read(min(page.databytecounts[0], 2**16))
    found = re.search(rb"\xff[\xc0-\xc3\xc9\xca]..(?:.)(..)(..)", head, re.S)
    if found is None:
        return
    height, width = (int.from_bytes(side, "big") for side in found.groups())
    if page.is_tiled:
        least = min(page.tilelength, page.imagelength), min(page.tilewidth, page.imagewidth)
    else:
        least = min(page.rowsperstrip, page.imagelength), page.imagewidth
    if height < least[0] or width < least[1]:
        raise EOFError(ENDS_EARLY)


def full_size_series(tiff: TiffFile) -> list[TiffPageSeries]:
    """The series of pages of a TIFF without those that its own tags call reduced."""
    return [series for series in tiff.series if not series.keyframe.is_reduced]


def several_images(path: Path, tiff: TiffFile, axes: str) -> ImageError:
    """The error to raise for a TIFF whose pages are images of their own, or of which that is not known."""
    problem = f"holds {len(tiff.pages)} pages that are not marked as channels ({axes})"
    return ImageError(path, problem, "save one image a file, or planar channels (axes CYX)")


# -- orientation ---------------------------------------------------------------------------------------


def exif_orientation(image: Image.Image) -> int:
    """The orientation in the EXIF of an opened image, 1 to 8 (Exif 2.32, tag 274); 1 where there is none."""
    try:
        # The base class's method, because that of PNG decodes the image when the header holds no EXIF.
        orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # of the metadata alone, whatever a decoder makes of it: the image is fine
        return 1
    return orientation if orientation in range(1, 9) else 1


def tiff_orientation(page: TiffPage) -> int:
    """The orientation in the tags of a TIFF page, 1 to 8; 1 where there is none."""
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def upright(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """Pixels (..., H, W) as they lie in a file, turned as its orientation of 1 to 8 says; a view.

    >>> upright(np.array([[1, 2, 3]]), 6).tolist()  # its first row is the right-hand side
    [[1], [2], [3]]
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(-2, -1)
    return _flipped(pixels, orientation)


def as_stored(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """The inverse of :func:`upright`."""
    pixels = _flipped(pixels, orientation)
    return pixels.swapaxes(-2, -1) if orientation >= 5 else pixels


def _flipped(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    rows: Any = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns: Any = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return pixels[..., rows, columns]
