"""Memory that one training step frees and the next asks for again, kept in the process meanwhile."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of glibc's malloc.h. A call of mallopt ends the automatic adjustment of both thresholds, so both are set, to the
# largest values that the adjustment could have reached: 32 MiB on 64-bit systems, and twice as much.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_NEVER = -1


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory in the process for the next step, and give it back to the system afterwards.

    By default glibc returns the free end of its heap to the system, and a step of a network, which frees hundreds
    of megabytes, gets them back as thousands of page faults. Where the C library is another one, nothing is done.

    Source: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no such handle
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
