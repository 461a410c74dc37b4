"""Writing files and folders so that they appear whole or not at all, also when the power fails.

Temporary files have a name of :mod:`blemish.storage.leftovers`, by which those of a killed run are recognised.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blemish.errors import DiskFullError, FileError, NameInTheWayError
from blemish.storage.leftovers import NO_ROOM, remove_leftovers, temporary_name

_WORDS = {
    errno.ENOSPC: ("the disk is full", "free some space and run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run again"),
    errno.EFBIG: ("the file is too large for this disk", "choose another output folder"),
    errno.EROFS: ("the disk is read-only", "choose another output folder"),
    errno.EACCES: ("no permission to write here", "choose another output folder or change its permissions"),
    errno.EPERM: ("no permission to write here", "choose another output folder or change its permissions"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "choose another output folder"),
    errno.EEXIST: ("a part of this path is a file, not a folder", "choose another output folder"),
    errno.EISDIR: ("a folder of this name is in the way", "remove it or choose another output name"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "choose a shorter output name"),
}


_OF_THE_NAME = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
"""Errors that come of this one name; files of other names can be written."""


def write_error(path: Path, error: OSError) -> FileError:
    """The error to raise for a file that cannot be written."""
    fallback = (f"cannot be written ({error.strerror or error})", "choose another output folder")
    problem, remedy = _WORDS.get(error.errno or 0, fallback)
    kind = NameInTheWayError if error.errno in _OF_THE_NAME else FileError
    if error.errno in NO_ROOM:
        kind = DiskFullError
    return kind(path, problem, remedy)


def _encode(text: str) -> bytes:
    # A file name that is no valid text reaches us as lone surrogates; escaped like this they are valid JSON.
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path`` that takes its name when the block ends well.

    The temporary file keeps the suffix of ``path`` and a hidden name; missing folders are made. Its content is on
    the disk before it takes the name. When the block raises (Ctrl-C included) the temporary file is removed and
    whatever stood at ``path`` before stays.

    Raises
    ------
    FileError
        An ``OSError`` in the block or in the final renaming, put in words.
    """
    path = Path(path)
    temporary = path.with_name(temporary_name(path.suffix))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder of the same name that becomes ``path`` when the block ends well.

    It is empty and lies in a hidden folder beside ``path``. Missing folders above ``path`` are made.

    Raises
    ------
    FileError
        When the folder cannot be made, or cannot take its name.
    """
    path = Path(path)
    hidden = path.parent / temporary_name()
    temporary = hidden / path.name
    remove_leftovers(path.parent)
    try:
        _make(path, lambda: temporary.mkdir(parents=True))
        yield temporary
        _make(path, lambda: temporary.rename(path))
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _sync(path: Path) -> None:
    """Bring the content of a file to the disk; without it, a power failure can leave the new name with no content."""
    file = os.open(path, os.O_RDWR)  # Windows flushes only files that are open for writing
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _make(path: Path, step: Callable[[], object]) -> None:
    try:
        step()
    except OSError as error:
        raise FileError(path, f"cannot be made ({error.strerror})", "choose another --out") from None


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all; raises FileError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with its line ends as they are, whole or not at all; raises FileError."""
    write_bytes(path, _encode(text))


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all.

    Raises
    ------
    FileError
        The file cannot be written.
    ValueError
        ``value`` holds NaN or infinity, which JSON has no word for.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
