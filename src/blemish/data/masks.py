"""Ground-truth masks: which pixels of an image are defective, read from one file or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.image import orientation_of, read_image
from blemish.data.opening import first_bytes, image_format
from blemish.errors import ImageError

LARGEST_SHARE = 0.5
"""Share of the pixels beyond which a mask is likely to be inverted."""


def read_mask(
    path: str | Path, *, size: tuple[int, int], image: str | Path | None = None
) -> NDArray[np.bool_]:
    """Read a mask as bool (H, W): True, a defect, wherever any channel is not zero.

    Alpha marks only where it alone does: with colours that are one and the same. Of a JPEG file, whose values next
    to an edge are noise, what is at least half of its largest value counts.

    Parameters
    ----------
    path: an image file.
    size: (width, height) of the image that the mask belongs to, as ``LoadedImage.size``.
    image: file of that image, whose orientation in EXIF a message names.

    Raises
    ------
    ImageError
        As ``read_image``, or the mask has another size than its image.
    """
    return marked_by(*mask_planes(Path(path), size=size, image=image))


def mask_planes(
    path: Path, *, size: tuple[int, int], image: str | Path | None = None
) -> tuple[NDArray[Any], int]:
    """The channels (C, H, W) of a mask that mark, and the least value in one of them by which they do.

    Errors as of :func:`read_mask`.
    """
    mask = read_image(path)
    if mask.size != size:
        turned = mask.size == size[::-1]
        problem = f"is a mask of {mask.width} × {mask.height} pixels for an image of {size[0]} × {size[1]}"
        remedy = "save it at the size of its image"
        if turned:
            words, remedy = _turned(path, image)
            problem += words
        raise ImageError(path, problem, remedy)
    pixels = mask.pixels
    if mask.channels in (2, 4):
        colours, alpha = pixels[:-1], pixels[-1:]
        is_flat = all(plane.min() == plane.max() for plane in colours)
        pixels = alpha if is_flat and alpha.min() != alpha.max() else colours
    least = 1
    if image_format(first_bytes(path)) == "JPEG":
        least = max(1, int(pixels.max()) // 2)
    return pixels, least


def _turned(path: Path, image: str | Path | None) -> tuple[str, str]:
    """What is said of a mask whose sides are those of its image exchanged, and the remedy."""
    own = orientation_of(path)
    other = 1 if image is None else orientation_of(image)
    if own == other and image is not None:
        return "", "turn it by 90 degrees, or save it at the size of its image"
    if own == 1 and image is None:
        return "", "turn it as EXIF turns its image, or save both without EXIF"
    if own == 1:
        words = f", whose EXIF orientation is {other}, and the mask has none"
        return words, "turn it as EXIF turns its image, or save the image turned and without EXIF"
    words = f", and EXIF turns the mask (orientation {own})"
    if other != 1:
        words += f" otherwise than the image (orientation {other})"
    return words, "save the mask without EXIF, upright as its image is"


def marked_by(planes: NDArray[Any], least: int) -> NDArray[np.bool_]:
    """Places (H, W) where a channel of a mask (C, H, W) is at least ``least``; above 0 where that is 1."""
    marked: NDArray[np.bool_] = np.any(planes > least - 1, axis=0)
    return marked


def read_masks(
    paths: Sequence[Path], *, size: tuple[int, int], image: str | Path | None = None
) -> NDArray[np.bool_] | None:
    """The union (H, W) of several masks of one image; None without any.

    Raises
    ------
    ImageError
        As :func:`read_mask`, naming the mask.
    """
    if not paths:
        return None
    marked = read_mask(paths[0], size=size, image=image)
    for path in paths[1:]:
        marked |= read_mask(path, size=size, image=image)
    return marked


def checked_masks(
    paths: Sequence[Path], *, size: tuple[int, int], image: Path, is_good: bool
) -> tuple[NDArray[np.bool_] | None, ImageError | None]:
    """The masks of an image together (H, W), and what cannot be right about them; None of either where there is none.

    A good image has no mask, and one that marks something contradicts its label.
    """
    try:
        marked = read_masks(paths, size=size, image=image)
    except ImageError as problem:
        return None, problem.without_frames()
    if not is_good:
        return marked, doubt(paths, marked)
    if marked is None or not marked.any():
        return None, None
    contradiction = ImageError(
        paths[0],
        f"marks a defect on {image.name}, which is labelled good",
        "correct the label, or leave the mask out",
    )
    return None, contradiction


def doubt(paths: Sequence[Path], marked: NDArray[np.bool_] | None) -> ImageError | None:
    """What is odd about the masks of a defective image: that they mark nothing, or most of it; None otherwise."""
    if marked is None:
        return None
    share = float(marked.mean())
    if not share:
        return ImageError(
            paths[0], "marks nothing on an image with a defect", "draw the defect, or label the image good"
        )
    if share > LARGEST_SHARE:
        problem = f"marks {100 * share:.0f} % of its image as defective"
        return ImageError(paths[0], problem, "invert it, if it marks what is good")
    return None
