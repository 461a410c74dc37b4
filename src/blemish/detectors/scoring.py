"""The one scoring path: anomaly maps of an image or a scene, block by block.

    reader ─► window of a block ─► anomaly model ─► maps of the window ─► crop to the block

Calibration, inspection and evaluation all take it. An image in memory is one block, a scene is many. A window has
all neighbours that the model needs, so the maps of a block do not depend on the other blocks, and equal blocks of
an equal reader give equal maps to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blemish.detectors.contracts import AnomalyMaps, AnomalyModel, Floats, ImageReader
from blemish.storage.blocks import Block


@dataclass(frozen=True)
class ArrayReader:
    """An image in memory, (C, H, W) in [0, 1], as an :class:`~blemish.detectors.contracts.ImageReader`.

    >>> import numpy as np
    >>> ArrayReader(np.zeros((3, 8, 9), np.float32)).read(2, 3, 4, 5).shape
    (3, 4, 5)
    """

    pixels: Floats

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[2])

    def read(self, top: int, left: int, height: int, width: int) -> Floats:
        return self.pixels[:, top : top + height, left : left + width]


class BlockMaps(NamedTuple):
    """Pixels and anomaly maps of one block (h, w); NaN where absent."""

    block: Block
    image: Floats
    """(C, h, w), as read."""
    maps: AnomalyMaps
    reading: float
    computing: float
    """Seconds."""


def whole(reader: ImageReader) -> Block:
    """The block that is all of an image."""
    return Block(0, 0, slice(0, reader.height), slice(0, reader.width))


def score_blocks(
    model: AnomalyModel, reader: ImageReader, blocks: Iterable[Block], *, hidden: Sequence[slice] = ()
) -> Iterator[BlockMaps]:
    """Anomaly maps of ``blocks`` of an image, one after the other, each when it is asked for.

    Parameters
    ----------
    hidden: channels that the model is not shown.

    Raises
    ------
    UsageError
        When the image is too small for the model, or has absent values that the model cannot take.
    ImageError
        When the image cannot be read there.
    """
    size = (reader.height, reader.width)
    for block in blocks:
        begun = time.perf_counter()
        rows, columns = model.window(size, block.rows, block.columns)
        window = reader.read(
            rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start
        )  # (C, h, w)
        read = time.perf_counter()
        maps = model.maps(window, hidden=hidden)
        inside = (..., *block.within(rows, columns))
        cropped = AnomalyMaps(
            maps.anomaly[inside], *(plane if plane is None else plane[inside] for plane in maps[1:])
        )
        yield BlockMaps(block, window[inside], cropped, read - begun, time.perf_counter() - read)
