"""Temporary files and folders: names that tell whose they are, and removal of those that a killed run left.

A name holds the machine and the process that made it: ``.part-MACHINE-PROCESS-RANDOM``. It is left over when that
process is gone. Files of another machine, on a disk that several use, are left over a day after they were last
written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node

from filelock import FileLock, Timeout

from blemish.errors import DiskFullError, FileError

LOCK_FILE = ".blemish.lock"
"""In an output folder, as long as a run owns it (:mod:`blemish.storage.run_lock`)."""
PREFIX, FOLDER_PREFIX = ".part-", "blemish-"
_NAME = re.compile(
    r"(?:\.part-|blemish-)(?P<machine>[0-9a-f]{6})-(?P<process>[0-9]+)-[0-9a-z_]+(?:\..*)?", re.S
)
_FORMER = re.compile(r"\.part-[0-9a-f]{16}(?:\..*)?|blemish-[0-9a-z_]{8}", re.S)
"""Names of version 0.1, which do not tell whose they are."""
_DAY = 24 * 3600
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a disk that is full, or of a quota that is used up."""
_LEAST_ROOM = 2**16
"""Bytes below which a disk counts as full: an image that is encoded needs more for its temporary files."""
MOST_SEARCHED = 200_000


def temporary_name(suffix: str = "") -> str:
    """A hidden name for a temporary file or folder of this process."""
    return f"{PREFIX}{_owner()}{secrets.token_hex(6)}{suffix}"


def temporary_prefix() -> str:
    """Beginning of the names of this process's files and folders in the system's folder for temporary files."""
    return f"{FOLDER_PREFIX}{_owner()}"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give an empty folder of this process in the system's folder for temporary files, removed after the block.

    Raises
    ------
    FileError
        When it cannot be made, or an ``OSError`` in the block; DiskFullError where there is no room.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in NO_ROOM or is_full(tempfile.gettempdir()):
            raise full_temporary_disk() from error
        raise FileError(
            tempfile.gettempdir(),
            f"temporary files cannot be written here ({error.strerror or error})",
            "free some space, or name another folder by TMPDIR",
        ) from error


def full_temporary_disk() -> DiskFullError:
    """The error of a disk of temporary files that is full."""
    return DiskFullError(
        tempfile.gettempdir(),
        "the disk of temporary files is full",
        "free some space, or name another folder by TMPDIR",
    )


def is_full(folder: str) -> bool:
    """Whether there is no room left; libraries in C do not always say why they cannot write."""
    try:
        return shutil.disk_usage(folder).free < _LEAST_ROOM
    except OSError:
        return False


def remove_leftovers(folder: str | Path, *, below: bool = False) -> None:
    """Remove temporary files and folders, and locks, in ``folder`` whose process is gone.

    What cannot be removed stays: it is in nobody's way.

    Parameters
    ----------
    below: whether to search the folders below ``folder`` too, but for arrays (``*.zarr``), which hold many files and
        no temporary ones. The search ends after :data:`MOST_SEARCHED` files: a folder may hold a whole disk.
    """
    folders, searched = deque([Path(folder)]), 0
    while folders and searched < MOST_SEARCHED:
        try:
            entries = list(os.scandir(folders.popleft()))
        except OSError:
            continue
        searched += len(entries)
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if _is_left_over(entry):
                _remove(entry, is_folder)
            elif entry.name == LOCK_FILE:
                _remove_lock(entry.path)
            elif below and is_folder and not entry.name.endswith(".zarr"):
                folders.append(Path(entry.path))


def remove_temporary_folders() -> None:
    """Remove files and folders of killed runs in the system's folder for temporary files."""
    with suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            if entry.name.startswith(FOLDER_PREFIX) and _is_left_over(entry):
                _remove(entry, entry.is_dir(follow_symlinks=False))


def is_running(process: int) -> bool:
    """True if a process of this number runs on this machine."""
    if os.name == "nt":  # where os.kill would end it
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x00100000, False, process)  # type: ignore[attr-defined]
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)  # type: ignore[attr-defined]
        return bool(handle)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def machine() -> str:
    """A short name of this machine that tells it from others on the same disk."""
    return hashlib.sha256(node().encode()).hexdigest()[:6]


def _owner() -> str:
    return f"{machine()}-{os.getpid()}-"


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    if found := _NAME.fullmatch(entry.name):
        if found["machine"] == machine():
            return not is_running(int(found["process"]))
    elif not _FORMER.fullmatch(entry.name):
        return False
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _DAY
    except OSError:
        return False


def _remove_lock(path: str) -> None:
    """Remove a lock file that no process holds."""
    lock = FileLock(path, timeout=0)
    with suppress(OSError, Timeout), lock:
        os.unlink(path)


def _remove(entry: os.DirEntry[str], is_folder: bool) -> None:
    if is_folder:
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(entry.path)
