"""Tiles of an image for viewers of deep zoom: the IIIF Image API 3.0 at level 0, as plain files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from blemish.report.layers import ViewLayer
from blemish.storage.atomic import write_json
from blemish.storage.pyramid import TILE, Raster, build_pyramid, level_sizes
from blemish.storage.records_log import unwritable

INFO = "info.json"
_LARGEST_WHOLE = 1024
"""Longer side up to which levels are also there in one piece."""
_QUALITY = 90


class ImageTile(NamedTuple):
    """One file of an image: its region in pixels of the image, and its size in pixels of the file."""

    level: int
    x: int
    y: int
    width: int
    height: int
    size: tuple[int, int]
    """(width, height)."""

    @property
    def path(self) -> str:
        """Path below the folder of the image, as the IIIF Image API 3.0 names it."""
        return f"{self.x},{self.y},{self.width},{self.height}/{self.size[0]},{self.size[1]}/0/default.jpg"


def tiles_of(size: tuple[int, int]) -> Iterator[ImageTile]:
    """The tiles of an image (height, width), level by level, the largest first.

    >>> [tile.path for tile in tiles_of((300, 700))][:2]
    ['0,0,512,300/512,300/0/default.jpg', '512,0,188,300/188,300/0/default.jpg']
    """
    height, width = size
    for level in range(len(level_sizes(size))):
        factor = 2**level
        for y in range(0, height, TILE * factor):
            for x in range(0, width, TILE * factor):
                w, h = min(TILE * factor, width - x), min(TILE * factor, height - y)
                yield ImageTile(level, x, y, w, h, (-(-w // factor), -(-h // factor)))


def image_information(size: tuple[int, int], identifier: str) -> dict[str, Any]:
    """Content of ``info.json`` for an image (height, width) that is served at the address ``identifier``.

    Source: https://iiif.io/api/image/3.0/
    """
    sizes = level_sizes(size)
    whole = [(width, height) for height, width in sizes if max(width, height) <= _LARGEST_WHOLE]
    return {
        "@context": "http://iiif.io/api/image/3/context.json",
        "id": identifier,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level0",
        "width": size[1],
        "height": size[0],
        # "max" is the largest level in one piece, and a tile is never larger.
        "maxWidth": max(TILE, whole[0][0]),
        "maxHeight": max(TILE, whole[0][1]),
        "sizes": [{"width": width, "height": height} for width, height in reversed(whole)],
        "tiles": [{"width": TILE, "height": TILE, "scaleFactors": [2**level for level in range(len(sizes))]}],
    }


def image_address(base: str, *names: str) -> str:
    """Address of an image below ``base``, by the names of its folders."""
    return "/".join([base.rstrip("/"), *(quote(name, safe="") for name in names)])


def write_tiles(
    folder: Path,
    scratch: Path,
    layer: ViewLayer,
    identifier: str,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Write ``info.json`` and all tiles of a layer into an empty ``folder``; reduced levels lie in ``scratch`` meanwhile.

    Absent pixels are black. Memory does not depend on the size of the layer.

    Raises
    ------
    FileError
        When a file cannot be written.
    """
    levels = build_pyramid(layer.raster, scratch, reduction=layer.reduction, whole=False, watch=watch)
    size = layer.raster.size
    for tile in tiles_of(size):
        watch()
        level, factor = levels[tile.level], 2**tile.level
        top, left = tile.y // factor, tile.x // factor
        _save(folder / tile.path, layer, level, (top, left, tile.size[1], tile.size[0]))
    information = image_information(size, identifier)
    for level in levels:
        if max(level.size) <= _LARGEST_WHOLE:
            window = (0, 0, *level.size)
            _save(folder / f"full/{level.width},{level.height}/0/default.jpg", layer, level, window)
    largest = next(level for level in levels if max(level.size) <= _LARGEST_WHOLE)
    _save(folder / "full/max/0/default.jpg", layer, largest, (0, 0, *largest.size))
    write_json(folder / INFO, information)


def _save(path: Path, layer: ViewLayer, level: Raster, window: tuple[int, int, int, int]) -> None:
    drawn = layer.draw(np.asarray(level.read(*window), np.float32))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Colours of a heat map are values: they are not to be thinned.
        Image.fromarray(drawn).save(path, quality=_QUALITY, subsampling=0 if layer.is_map else -1)
    except OSError as error:
        raise unwritable(path, error) from error
