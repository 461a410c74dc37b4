"""JPEG 2000 files by the blocks that a window touches, which GDAL decodes; needs ``pip install blemish[large]``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.deep_formats import is_ycc
from blemish.data.opening import reading
from blemish.data.windowed_image import DecodedCache, ReadWindow, WindowedImage, full_scale, overlap
from blemish.errors import ImageError
from blemish.limits import MAX_SEGMENT_BYTES

if TYPE_CHECKING:
    from rasterio import DatasetReader

_DRIVER = "JP2OpenJPEG"
_SETTINGS = {
    "GDAL_PAM_ENABLED": "NO",  # no files beside the image are read
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": 16,  # megabytes; blocks are kept by the cache of the reader
    "GDAL_NUM_THREADS": 1,
}
_COLOURS = {("gray",), ("undefined",), ("red", "green", "blue")}
_MANY = 4
"""More bands than this are channels of any kind, whatever their colours are called."""


class Jpeg2000Image(WindowedImage):
    """A JPEG 2000 file without alpha, palette or a colour space of luma and chroma.

    Raises
    ------
    ValueError
        For another one, or one with large blocks; it is to be read whole.
    """

    cached_bytes = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        with _opened(path) as file:
            colours = tuple(colour.name for colour in file.colorinterp)
            dtypes = {np.dtype(name) for name in file.dtypes}
            blocks = set(file.block_shapes)
            self.channels, self.height, self.width = file.count, file.height, file.width
            bits = file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        plain = self.channels > _MANY or colours in _COLOURS
        if not plain or is_ycc(path) or len(dtypes) > 1 or len(blocks) > 1:
            raise ValueError(f"bands {colours} of {dtypes}")
        self.dtype, self._block = dtypes.pop(), blocks.pop()
        self.full_scale = full_scale(self.dtype) if bits is None else 2.0 ** int(bits) - 1
        block_h, block_w = self._block
        if self.channels * block_h * block_w * self.dtype.itemsize > MAX_SEGMENT_BYTES:
            raise ValueError("large blocks")

    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> ReadWindow:
        values = np.zeros((self.channels, height, width), self.dtype)
        block_h, block_w = self._block
        rows = range(top // block_h, (top + height - 1) // block_h + 1)
        columns = range(left // block_w, (left + width - 1) // block_w + 1)
        with _opened(self.path) as file:
            for row in rows:
                for column in columns:
                    block = cache.get(
                        (self.path, row, column),
                        lambda row=row, column=column: self._decode(file, row, column),  # type: ignore[misc]
                    )
                    y, y_in = overlap(row * block_h, block.shape[1], top, height)
                    x, x_in = overlap(column * block_w, block.shape[2], left, width)
                    values[:, y, x] = block[:, y_in, x_in]
        return ReadWindow(values, None)

    def _decode(self, file: DatasetReader, row: int, column: int) -> NDArray[Any]:
        """(C, bh, bw), less at the lower and right edges."""
        block_h, block_w = self._block
        top, left = row * block_h, column * block_w
        stop, right = min(top + block_h, self.height), min(left + block_w, self.width)
        try:
            values: NDArray[Any] = file.read(window=((top, stop), (left, right)))
        except OSError as error:  # which only says that its cause says more
            raise ValueError(str(error.__cause__ or error)) from None
        return values

    def check(self) -> None:
        """Do nothing: whether a compressed file is complete shows only when it is decoded."""


def by_blocks(path: Path) -> Jpeg2000Image | None:
    """The file at ``path`` by blocks; None where it must be read whole, GDAL cannot open it, or rasterio is not installed."""
    try:
        return Jpeg2000Image(path)
    except (ImportError, ValueError, ImageError):
        return None


@contextmanager
def _opened(path: Path) -> Iterator[DatasetReader]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with reading(path), rasterio.Env(**_SETTINGS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # no image here has a place on a map
            file = rasterio.open(path, driver=_DRIVER)
        with file:
            yield file
