"""Maps and images written as PNG; a map keeps its scale, so that it is read back as numbers."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo, putchunk

from blemish.data.image import levels, png_text, read_image
from blemish.errors import FileError
from blemish.storage.atomic import atomic_path

MAP_COUNTS = 65535  # the largest count of a 16-bit map
_ROWS = 256
_SCALE = "blemish:scale"
_HEADER = 33
"""Bytes of a PNG's signature and first chunk."""
_QUICK: dict[str, Any] = {
    "level": 1,
    "strategy": imagecodecs.PNG.STRATEGY.RLE,
    "filter": imagecodecs.PNG.FILTER.SUB,
}


def write_map(
    path: str | Path,
    values: NDArray[np.floating[Any]],
    *,
    full_scale: float,
    measure: str | None = None,
) -> None:
    """Write a map as a 16-bit grey PNG that keeps its scale, so that ``read_map`` restores the values.

    The PNG's text holds ``blemish:scale``, the value of one count, and ``blemish:measure`` when given. The
    largest count stands for ``full_scale``, or for the map's own maximum where that is larger: nothing is
    clipped, and images written with one ``full_scale`` can be compared by eye.

    Parameters
    ----------
    path: where the PNG goes.
    values: (H, W), finite, at least 0.
    full_scale: the value shown as white, above 0.
    measure: the name of what the map measures.

    Raises
    ------
    FileError
        The file cannot be written.
    ValueError
        ``values`` is no such map, or ``full_scale`` is not above 0.
    """
    counts, scale = _counted(values, full_scale)
    text = PngInfo()
    text.add_text(_SCALE, repr(scale))
    if measure is not None:
        text.add_text("blemish:measure", measure)
    with atomic_path(path) as temporary:
        Image.fromarray(counts).save(temporary, format="PNG", pnginfo=text)


def encode_map(values: NDArray[np.floating[Any]], *, full_scale: float) -> bytes:
    """Content of a file that ``read_map`` reads, as of :func:`write_map`, for images that somebody waits for.

    Differences of neighbours and the least effort take a third of the time, for a file of about the same size.

    Raises
    ------
    ValueError
        ``values`` is no map, or ``full_scale`` is not above 0.
    """
    counts, scale = _counted(values, full_scale)
    content = bytes(imagecodecs.png_encode(counts, **_QUICK))
    # The codec writes no text, which may stand anywhere behind the header.
    text = BytesIO()
    putchunk(text, b"tEXt", f"{_SCALE}\0{scale!r}".encode("latin-1"))
    return content[:_HEADER] + text.getvalue() + content[_HEADER:]


def _counted(values: NDArray[np.floating[Any]], full_scale: float) -> tuple[NDArray[np.uint16], float]:
    """Counts of a map and the value of one count."""
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("a map has the shape (H, W) and finite values of at least 0")
    if not 0 < full_scale < np.inf:
        raise ValueError(f"full_scale must be above 0 and finite, not {full_scale}")
    scale = max(full_scale, float(values.max())) / MAP_COUNTS
    counts = np.empty(values.shape, np.uint16)
    for start in range(0, len(values), _ROWS):  # a large map would be twice as large in float64
        rows = slice(start, start + _ROWS)
        counts[rows] = np.rint(values[rows].astype(np.float64) / scale)
    return counts, scale


def stored_values(values: NDArray[np.floating[Any]], *, full_scale: float) -> NDArray[np.float32]:
    """What ``read_map`` gives of the file that ``write_map`` or ``encode_map`` makes of ``values``: float32 (H, W).

    >>> stored_values(np.array([[0.0, 0.1], [0.5, 1.0]]), full_scale=1.0).tolist()
    [[0.0, 0.10000763088464737], [0.5000076293945312, 1.0]]

    Raises
    ------
    ValueError
        ``values`` is no map, or ``full_scale`` is not above 0.
    """
    return _values(*_counted(values, full_scale))


def _values(counts: NDArray[np.uint16], scale: float) -> NDArray[np.float32]:
    values = np.empty(counts.shape, np.float32)
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        values[rows] = counts[rows] * scale
    return values


def read_map(path: str | Path) -> NDArray[np.float32]:
    """Read a map written by ``write_map``: float32 (H, W), each value within half a count of the one written.

    Raises
    ------
    ImageError
        The file cannot be read as an image.
    FileError
        It is an image, but not a map with its scale.
    """
    path = Path(path)
    image = read_image(path)
    scale = png_text(path).get(_SCALE)
    if image.kind != "uint16" or image.channels != 1 or scale is None:
        raise FileError(
            path, "is no map of Blemish (16-bit grey PNG with its scale)", "name a file from a maps folder"
        )
    try:
        value = float(scale)
    except ValueError:
        value = float("nan")
    if not 0 < value < np.inf:
        raise FileError(
            path, f"has the scale {scale!r}, which is no number above 0", "inspect the image again"
        )
    return _values(image.pixels[0], value)


def write_image(path: str | Path, pixels: NDArray[np.floating[Any]] | NDArray[np.uint8]) -> None:
    """Write pixels (C, H, W), of 8 bits or floats in [0, 1], as an 8-bit PNG; values outside are clipped.

    1, 2, 3 and 4 channels become grey, grey with alpha, RGB and RGBA; of any other number the mean is written
    as grey.

    Raises
    ------
    FileError
        The file cannot be written.
    ValueError
        ``pixels`` has not three axes.
    """
    if pixels.ndim != 3:
        raise ValueError(f"pixels must have the shape (C, H, W), not {pixels.shape}")
    if pixels.shape[0] not in (1, 2, 3, 4):
        pixels = pixels.mean(axis=0, keepdims=True)
    counts = levels(pixels)
    rows = (
        counts[0] if counts.shape[0] == 1 else np.ascontiguousarray(counts.transpose(1, 2, 0))
    )  # (H, W[, C])
    with atomic_path(path) as temporary:
        Image.fromarray(rows).save(temporary, format="PNG")
