"""Arrays in a temporary file: what does not fit in memory and is costly to make again."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class CacheSlot(NamedTuple):
    """Where an array lies on a :class:`DiskCache`."""

    offset: int
    shape: tuple[int, ...]


class DiskCache:
    """Arrays of float32, one after the other in a temporary file that vanishes with it.

    It lies in the system's folder for such files; the environment variable ``TMPDIR`` names another one.

    Raises
    ------
    OSError
        When the folder cannot be written to; :meth:`put` too, when there is no more room.

    >>> shelf = DiskCache()
    >>> place = shelf.put(np.ones((1, 2, 3), np.float32))
    >>> shelf.get(place).sum()
    np.float32(6.0)
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="blemish-")  # noqa: SIM115 -- open as long as this is there
        weakref.finalize(self, self._file.close)
        self._end = 0

    def put(self, values: NDArray[np.float32]) -> CacheSlot:
        """Keep a copy of ``values``."""
        data = np.ascontiguousarray(values, np.float32).data.cast("B")
        self._file.seek(self._end)
        self._file.write(data)
        self._file.flush()  # or a full disk would be noticed by somebody else
        place = CacheSlot(self._end, values.shape)
        self._end += len(data)
        return place

    def get(self, place: CacheSlot) -> NDArray[np.float32]:
        """What was put at ``place``; an array of its own."""
        values = np.empty(place.shape, np.float32)
        self._file.seek(place.offset)
        self._file.readinto(values.data.cast("B"))
        return values


def room() -> int:
    """Bytes that are free where a :class:`DiskCache` lies; 0 where none can be."""
    try:
        return shutil.disk_usage(tempfile.gettempdir()).free
    except OSError:
        return 0
