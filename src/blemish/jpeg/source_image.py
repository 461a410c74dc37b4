"""Reading images to encode: 8-bit grey or RGB pixels and the metadata that goes with them."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from blemish.data.opening import (
    exif_orientation,
    file_bytes,
    image_format,
    open_tiff,
    open_with_pillow,
    reading,
    refuse_large,
    refuse_short_jpeg,
    upright,
)
from blemish.errors import ImageError
from blemish.jpeg.coefficients import MAX_SIDE
from blemish.jpeg.conversions import cmyk_as_rgb, in_8_bits
from blemish.jpeg.segments import other_metadata
from blemish.limits import MAX_IMAGE_BYTES, MAX_PIXELS

_GREY = {"1", "L", "LA", "La"}
_COLOUR = {"P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr"}
_DEEP_GREY = {"I;16", "I;16B", "I;16L", "I;16N"}
_DEEP = {"I", "F"} | _DEEP_GREY

_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x0112, 0x8769, 0x8825
# TIFF tags that describe the image and not the layout of its file (TIFF 6.0, section 8).
_TIFF_TAGS = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)

_PAYLOAD = 65533  # bytes that a segment holds: its length has 16 bits and counts itself
_ICC_CHUNK = 65519  # and those of a profile in one: 14 go to its name, number and count
_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class SourceImage:
    """An image that can become a JPEG.

    pixels: uint8 (H, W) or (H, W, 3).
    segments: the metadata, ready for :func:`blemish.jpeg.to_bytes`; empty when it was dropped.
    notices: what was changed or left out on the way, a line each, naming the file.
    orientation: how the pixels lie (Exif 2.32, tag 274), 1 to 8; as in ``segments``, 1 is upright.
    frames: images that the file holds, of which this is the first.
    data: the file's bytes.
    """

    path: Path
    pixels: NDArray[np.uint8]
    segments: bytes
    notices: tuple[str, ...]
    orientation: int
    frames: int
    data: bytes = field(repr=False)


def read_source(path: str | Path, *, keep_metadata: bool = True, data: bytes | None = None) -> SourceImage:
    """Read any file that Pillow decodes by itself as the 8-bit grey or RGB image that a JPEG can hold.

    Palettes become RGB. With a notice, transparency is composed over white, of an animation the first frame is
    taken, 16 bits a channel (PNG, TIFF) are rounded to 8, and CMYK becomes sRGB: by its colour profile where it has one.
    With metadata kept, the pixels stay as they lie in the file and EXIF gives the orientation; with metadata dropped, or
    EXIF too long for a JPEG, they are turned upright.

    Parameters
    ----------
    path: the file.
    keep_metadata: EXIF, XMP, ICC profile, comment and pixel density go to ``segments``; of a JPEG all other metadata
        too (IPTC, C2PA).
    data: its bytes, where they have been read (``file_bytes``).

    Raises
    ------
    ImageError
        The file is missing, unreadable, no image, truncated, without pixels, too large for a JPEG or for
        Pillow's limit on pixels, or of other values than 8 and 16 bits.
    """
    path = Path(path)
    data = file_bytes(path) if data is None else data
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those that matter are refused or noticed here
        if image_format(data) == "TIFF":
            _refuse_short_tiff(data)
        try:
            opened = open_with_pillow(data)
        except UnidentifiedImageError:
            problem = "is not an image in a format known here"
            raise ImageError(path, problem, "convert it or remove it") from None
        with opened as image:
            _check(path, image)
            if image.format in ("JPEG", "MPO"):
                refuse_short_jpeg(path, data, *image.size)
            deep = image.mode in _DEEP_GREY or _is_deep(image)
            image.load()
            return _source(path, data, image, keep_metadata, deep=deep)


@contextmanager
def _opened_jpeg(data: bytes) -> Iterator[JpegImageFile]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata: the image is fine
        with JpegImageFile(BytesIO(data)) as image:
            yield image


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG file with Pillow to uint8 (H, W), (H, W, 3) or, of CMYK, (H, W, 4); of several images the first.

    Of any size: the limit that Pillow sets itself is for files that others made.
    """
    with _opened_jpeg(data) as image:
        return np.array(image)


def orientation_segment(data: bytes) -> bytes:
    """EXIF with a JPEG file's orientation alone; empty for an image that lies upright in its file."""
    with _opened_jpeg(data) as image:
        orientation = exif_orientation(image)
    if orientation == 1:
        return b""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return _segment(0xE1, b"Exif\0\0", exif.tobytes().removeprefix(b"Exif\0\0")) or b""


def metadata_segments(image: Image.Image) -> bytes:
    """The metadata of an image that Pillow has loaded, as JPEG segments with markers and lengths.

    In the order in which readers expect them: JFIF with the pixel density, EXIF (APP1), XMP (APP1), the ICC
    profile (APP2, in chunks of 65519 bytes), the comment (COM). A part that does not fit is left out.

    Examples
    --------
    >>> image = Image.new("L", (1, 1))
    >>> image.info["comment"] = b"made by hand"
    >>> metadata_segments(image)
    b'\\xff\\xfe\\x00\\x0emade by hand'
    """
    return b"".join(_metadata(image, grey=image.mode in _GREY).values())


def _refuse_short_tiff(data: bytes) -> None:
    """Refuse a TIFF whose pixels are not all there, for which Pillow fills in zeros."""
    with open_tiff(BytesIO(data)):
        pass


def _check(path: Path, image: Image.Image) -> None:
    """Refuse by its header an image that our JPEG files cannot hold."""
    width, height = image.size
    size = width * height * len(image.getbands())
    refuse_large(path, width, height, size, max_pixels=MAX_PIXELS, max_bytes=MAX_IMAGE_BYTES)
    if max(width, height) > MAX_SIDE:
        problem = f"has {width} × {height} pixels, a JPEG at most {MAX_SIDE} a side"
        raise ImageError(path, problem, "cut it into smaller images")
    if image.mode in _DEEP - _DEEP_GREY or (_is_deep(image) and image.format not in ("PNG", "TIFF")):
        raise _too_deep(path)
    if image.mode not in _GREY | _COLOUR | _DEEP_GREY | {"CMYK"}:
        raise ImageError(path, f"has the unsupported pixel type {image.mode}", "convert it to RGB first")


def _too_deep(path: Path) -> ImageError:
    return ImageError(
        path, "holds more than 8 bits a channel, a JPEG 8", "convert it to 8 bits a channel first"
    )


def _is_deep(image: Image.Image) -> bool:
    """True if Pillow, which has no RGB of 16 bits, would silently cut the values to 8; before it has loaded them."""
    for _, _, _, arguments in getattr(image, "tile", ()):
        words = arguments if isinstance(arguments, tuple) else (arguments,)
        if any(isinstance(word, str) and ";16" in word for word in words):
            return True
        if image.format == "PPM" and isinstance(words[-1], int) and words[-1] > 255:
            return True
    return False


def _source(path: Path, data: bytes, image: Image.Image, keep_metadata: bool, *, deep: bool) -> SourceImage:
    notices = []
    flat = image
    if deep:
        shallow = in_8_bits(data)
        if shallow is None:
            raise _too_deep(path)
        flat = shallow
        notices.append(f"{path}: holds 16 bits a channel; rounded to 8, the most that a JPEG holds")
    elif image.mode == "CMYK":
        flat, by_profile = cmyk_as_rgb(image)
        how = (
            "by its colour profile"
            if by_profile
            else "without a colour profile, so colours may look different"
        )
        notices.append(f"{path}: is CMYK; converted to sRGB {how}")
    grey = flat.mode in _GREY
    found = _metadata(image, grey=grey) if keep_metadata else {}
    if image.mode == "CMYK":
        found.pop("colour profile", None)  # it is that of CMYK
    if keep_metadata and image.format in ("JPEG", "MPO"):
        found["other metadata"] = other_metadata(data)
    if keep_metadata:
        notices += [
            f"{path}: its {part} does not fit into a JPEG and is left out"
            for part in found
            if not found[part] and part != "other metadata"
        ]
    elif "icc_profile" in image.info and image.mode != "CMYK":
        notices.append(f"{path}: its colour profile is dropped, so its colours may look different")
    flat, seen_through = _without_alpha(flat)
    if seen_through:
        notices.append(f"{path}: a JPEG holds no transparency; it is composed over white")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notices.append(f"{path}: holds {frames} images; a JPEG holds one, the first")
    pixels = np.array(flat.convert("L" if grey else "RGB"))  # (H, W) or (H, W, 3)
    orientation = exif_orientation(image)
    if not found.get("EXIF"):
        planes = pixels if grey else np.moveaxis(pixels, -1, 0)
        turned = upright(planes, orientation)
        pixels = np.ascontiguousarray(turned if grey else np.moveaxis(turned, 0, -1))
        orientation = 1
    return SourceImage(path, pixels, b"".join(found.values()), tuple(notices), orientation, frames, data)


def _without_alpha(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image composed over white, and whether that changed anything."""
    if not image.has_transparency_data:
        return image, False
    with_alpha = image.convert("RGBA")
    if with_alpha.getchannel("A").getextrema() == (255, 255):
        return with_alpha.convert("RGB"), False
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, with_alpha).convert("RGB"), True


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # of the metadata alone, whatever a decoder makes of it: the image is fine
        return Image.Exif()


def _metadata(image: Image.Image, *, grey: bool) -> dict[str, bytes]:
    """Segments by the name of the part, of a JPEG that is ``grey`` or RGB; empty for a part that does not fit."""
    parts = {
        "pixel density": _jfif(image),
        "EXIF": _exif_segment(image),
        "XMP": _segment(0xE1, _XMP_NAME, image.info.get("xmp")),
        "colour profile": _icc_segments(image, grey=grey),
        "comment": _segment(0xFE, b"", image.info.get("comment")),
    }
    return {name: segments for name, segments in parts.items() if segments is not None}


def _segment(marker: int, name: bytes, content: object) -> bytes | None:
    """One segment; None without content, empty when it is too long for one."""
    if isinstance(content, str):
        content = content.encode()
    if not isinstance(content, bytes) or not content:
        return None
    payload = name + content
    if len(payload) > _PAYLOAD:
        return b""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _jfif(image: Image.Image) -> bytes | None:
    """The JFIF header of the density in dots per inch, where the image has one (JFIF 1.02, page 5)."""
    dpi = image.info.get("dpi")
    if not (isinstance(dpi, tuple) and len(dpi) == 2):
        return None
    across, down = (round(float(value)) if np.isfinite(float(value)) else 0 for value in dpi)
    if not (0 < across < 65536 and 0 < down < 65536):
        return None
    return _segment(0xE0, b"JFIF\0", struct.pack(">BBBHHBB", 1, 1, 1, across, down, 0, 0))


def _exif_segment(image: Image.Image) -> bytes | None:
    content = image.info.get("exif")
    if image.format == "TIFF":
        content = _exif_of_tiff(_exif(image))
    if not isinstance(content, bytes):
        return None
    return _segment(0xE1, b"Exif\0\0", content.removeprefix(b"Exif\0\0"))


def _exif_of_tiff(tags: Image.Exif) -> bytes | None:
    """EXIF as a JPEG holds it, of a TIFF, where it lies among the tags of the file's layout."""
    exif = Image.Exif()
    try:
        for tag in _TIFF_TAGS:
            if tag in tags:
                exif[tag] = tags[tag]
        for directory in (_EXIF_IFD, _GPS_IFD):
            if found := tags.get_ifd(directory):
                exif[directory] = found
        return exif.tobytes() if len(exif) else None
    except Exception:  # damaged tags make Pillow raise any class; the image is encoded without them
        return None


def _icc_segments(image: Image.Image, *, grey: bool) -> bytes | None:
    """The ICC profile in APP2 segments (ICC.1:2010, B.4); empty when it is for other channels than the JPEG's."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return None
    chunks = [profile[start : start + _ICC_CHUNK] for start in range(0, len(profile), _ICC_CHUNK)]
    if len(chunks) > 255 or profile[16:20] != (b"GRAY" if grey else b"RGB "):
        return b""
    return b"".join(
        _segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(chunks))), chunk) or b""
        for number, chunk in enumerate(chunks, 1)
    )
