"""Numba's compiler with the settings of this room."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def _writable(folder: Path) -> bool:
    existing = folder if folder.exists() else folder.parent
    return os.access(existing, os.W_OK | os.X_OK)


# Numba refuses to compile what it cannot cache: a package folder that is read-only does without.
CACHED = bool(os.environ.get("NUMBA_CACHE_DIR")) or _writable(Path(__file__).parent / "__pycache__")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` as machine code that threads run side by side, kept beside the package where that is writable."""
    return cast(Callable[P, R], numba.njit(cache=CACHED, nogil=True)(function))
