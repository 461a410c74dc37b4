"""A lock on an output folder, so that two runs never write into one."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node

from filelock import FileLock, Timeout

from blemish.errors import UsageError
from blemish.storage.atomic import write_error
from blemish.storage.leftovers import LOCK_FILE, remove_leftovers
from blemish.storage.run_folder import refuse_unwritable


@contextmanager
def owned(folder: str | Path | None) -> Iterator[None]:
    """Hold ``folder`` for one run as long as the block lasts, and clear it of what killed runs left.

    The lock is the operating system's on the file ``.blemish.lock``: it ends with its process, however that ends, so a
    file that is left behind holds up nobody. The file names its holder and is removed after the block, and so are
    folders that were made for it, where nothing was written.

    Parameters
    ----------
    folder: made where it is missing; None holds nothing.

    Raises
    ------
    UsageError
        When another run holds the folder, naming that run.
    FileError
        When the folder cannot be made or written.
    """
    if folder is None:
        yield
        return
    folder = Path(folder)
    refuse_unwritable(folder)
    made = [above for above in (folder, *folder.parents) if not os.path.isdir(above)]
    path = folder / LOCK_FILE
    lock = FileLock(path, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{folder}: is in use by {holder(path)}; wait for its end, or choose another --out"
        ) from None
    except OSError as error:
        raise write_error(folder, error) from None
    try:
        sign(path)
        remove_leftovers(folder, below=True)
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open; the next run removes it
            path.unlink()
        lock.release()
        with suppress(OSError):
            for above in made:
                above.rmdir()


def sign(path: Path) -> None:
    """Write into the lock file who holds it."""
    words = {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]),
        "process": os.getpid(),
        "machine": node(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with suppress(OSError):  # a full disk is met by the run itself
        path.write_text(json.dumps(words), encoding="utf-8")


def holder(path: Path) -> str:
    """Who holds the lock file, by what :func:`sign` wrote into it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return (
            f"{found['command']} (process {found['process']} on {found['machine']}, since {found['since']})"
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another run"
