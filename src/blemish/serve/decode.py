"""Decoding of frames within the limits of the server, whatever their senders call them."""

from __future__ import annotations

from pathlib import Path

from blemish.data.frames import from_memory
from blemish.data.image import LoadedImage, image_info, read_image
from blemish.data.opening import FORMATS, image_format
from blemish.errors import ImageError
from blemish.serve.contracts import Frame
from blemish.storage.leftovers import temporary_name


class NoImageError(ImageError):
    """Content that is of no format of images."""


class TooManyPixelsError(ImageError):
    """An image with more pixels than the server takes."""


def decode(frame: Frame, *, channels: int, max_pixels: int, spool: Path) -> LoadedImage:
    """The image of ``frame``, by the same reader as files of a folder.

    Parameters
    ----------
    channels: of the images that the model was fitted on.
    max_pixels: more are refused by the header, before anything is decoded.
    spool: folder for the content while it is decoded, under a name of our own.

    Raises
    ------
    NoImageError
        The content is of no known format, or empty.
    TooManyPixelsError
        It has more than ``max_pixels``.
    ImageError
        It is damaged, or of a kind that cannot be read without guessing.
    OSError
        The spool cannot be written.
    """
    name = Path(frame.name)
    if not isinstance(frame.image, bytes):
        _check_pixels(name, frame.image.shape[1], frame.image.shape[0], max_pixels)
        return from_memory(frame.image, name, channels=channels)
    if not frame.image:
        raise NoImageError(name, "is empty (0 bytes)", "send the content of an image file")
    if image_format(frame.image[:64]) is None:
        raise NoImageError(name, f"is not a {FORMATS} image", "convert it")
    path = spool / temporary_name()
    try:
        path.write_bytes(frame.image)
        try:
            image = read_image(path, max_pixels=max_pixels)
        except ImageError as error:
            raise _renamed(error, path, name, max_pixels) from None
        return LoadedImage(name, image.pixels)
    finally:
        path.unlink(missing_ok=True)


def _renamed(error: ImageError, path: Path, name: Path, max_pixels: int) -> ImageError:
    """``error`` of the file in the spool as one of the image that people know."""
    try:
        info = image_info(path)
        _check_pixels(name, info.width, info.height, max_pixels)
    except TooManyPixelsError as too_many:
        return too_many
    except ImageError:  # the header itself is damaged, or beyond the limits of any image
        if "allowed" in error.problem:
            return TooManyPixelsError(name, error.problem, error.remedy)
    return ImageError(name, error.problem, error.remedy)


def _check_pixels(name: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixelsError(
            name,
            f"has {width} × {height} pixels, more than the {max_pixels} allowed",
            "cut it into smaller images",
        )
