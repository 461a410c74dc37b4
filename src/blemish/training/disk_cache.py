"""Disk cache: arrays that do not fit in memory and are costly to compute again, in a temporary file."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class CacheSlot(NamedTuple):
    """Place of an array in a :class:`DiskCache`."""

    offset: int
    shape: tuple[int, ...]


class DiskCache:
    """Arrays of float32, one after the other in a temporary file that is removed with the cache.

    The file is in the system's folder for temporary files; the environment variable ``TMPDIR`` names another one.

    Raises
    ------
    OSError
        When the folder cannot be written to; :meth:`put` too, when the disk is full.

    >>> cache = DiskCache()
    >>> slot = cache.put(np.ones((1, 2, 3), np.float32))
    >>> cache.get(slot).sum()
    np.float32(6.0)
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="blemish-")  # noqa: SIM115 -- open as long as the cache exists
        weakref.finalize(self, self._file.close)
        self._end = 0

    def put(self, values: NDArray[np.float32]) -> CacheSlot:
        """Store a copy of ``values``."""
        data = np.ascontiguousarray(values, np.float32).data.cast("B")
        self._file.seek(self._end)
        self._file.write(data)
        self._file.flush()  # so that a full disk raises here, and not at some later write
        slot = CacheSlot(self._end, values.shape)
        self._end += len(data)
        return slot

    def get(self, slot: CacheSlot) -> NDArray[np.float32]:
        """A new array of the values that :meth:`put` stored in ``slot``."""
        values = np.empty(slot.shape, np.float32)
        self._file.seek(slot.offset)
        self._file.readinto(values.data.cast("B"))
        return values


def free_disk_bytes() -> int:
    """Free bytes in the folder of a :class:`DiskCache`; 0 where the folder cannot be read."""
    try:
        return shutil.disk_usage(tempfile.gettempdir()).free
    except OSError:
        return 0
