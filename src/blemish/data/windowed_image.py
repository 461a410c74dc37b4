"""Contract of images that are read by windows, and the cache of what they have decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class DecodedCache:
    """Decoded parts of images up to ``limit`` bytes; beyond it those used longest ago are dropped.

    The part asked for last stays whatever its size. A copy in another process begins empty.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._parts: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, decode: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The part stored under ``key``, decoded by ``decode`` where there is none."""
        part = self._parts.pop(key, None)
        if part is None:
            part = decode()
            self._bytes += part.nbytes
        self._parts[key] = part
        while self._bytes > self.limit and len(self._parts) > 1:
            _, dropped = self._parts.popitem(last=False)
            self._bytes -= dropped.nbytes
        return part

    def clear(self) -> None:
        """Drop all parts."""
        self._parts.clear()
        self._bytes = 0

    def __reduce__(self) -> tuple[type[DecodedCache], tuple[int]]:
        return type(self), (self.limit,)


class ReadWindow(NamedTuple):
    """Pixels as the file holds them."""

    values: NDArray[Any]
    """(C, h, w), in the file's own type."""
    absent: NDArray[np.bool_] | None
    """(h, w), where the file says by transparency, or by leaving out a tile, that there is nothing."""


class WindowedImage(ABC):
    """An image that is read window by window; only its header is read at first."""

    path: Path
    channels: int
    """Without alpha."""
    height: int
    width: int
    dtype: np.dtype[Any]
    full_scale: float | None
    """The value that means 1; None where the type does not say."""
    cached_bytes: int
    """Bytes that stay in the cache once a window was read."""

    @abstractmethod
    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> ReadWindow:
        """Read the window whose first pixel is (top, left), which lies within the image.

        Raises
        ------
        ImageError
            A part of the file that the window needs cannot be read or decoded.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise ImageError where the file ends before its pixels, as far as that shows without decoding."""


def full_scale(dtype: np.dtype[Any]) -> float | None:
    """The value of a type that means 1; None where the type does not say."""
    scales = {"uint8": 255.0, "uint16": 65535.0}
    return 1.0 if dtype.kind == "f" else scales.get(dtype.name)


def overlap(start: int, length: int, first: int, count: int) -> tuple[slice, slice]:
    """Overlap of [start, start + length) and [first, first + count): counted from ``first``, and from ``start``."""
    low, high = max(start, first), min(start + length, first + count)
    return slice(low - first, high - first), slice(low - start, high - start)
