"""A file of records, one JSON line each, that survives being stopped at any moment."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from blemish.errors import FileError

R = TypeVar("R", bound=BaseModel)


class RecordsLog(Generic[R]):
    """The records of ``path`` as they were written, and more to be appended; there is one writer at a time.

    Parameters
    ----------
    path: the file; it and its folder are made where they are missing. A last line that a kill left unfinished
        is cut off.
    model: the type of the records.

    Raises
    ------
    FileError
        When the file cannot be read or written, or holds a line that is no such record.
    """

    def __init__(self, path: str | Path, model: type[R]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                file.seek(0)
                content = file.read()
                whole, newline, rest = content.rpartition(b"\n")
                if rest:
                    file.truncate(len(whole) + len(newline))
        except OSError as error:
            raise unwritable(self.path, error) from error
        lines = whole.split(b"\n") if whole else []
        self.records = [self._record(model, number, line) for number, line in enumerate(lines, start=1)]

    def append(self, record: R) -> None:
        """Write one record at the end; on a disk that fills up the file is cut back to its former end."""
        append_line(self.path, record.model_dump_json().encode())
        self.records.append(record)

    def _record(self, model: type[R], number: int, line: bytes) -> R:
        try:
            return model.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise FileError(
                self.path,
                f"line {number} is not a record ({place + ': ' if place else ''}{problem['msg']})",
                "delete the line, or the file to start anew",
            ) from None


def append_line(path: str | Path, line: bytes) -> None:
    """Write ``line`` and a newline at the end of the file with a single write, creating it if need be.

    On a disk that fills up within the line, the file is cut back to its former end. Raises FileError, naming
    the file, when it cannot be written.
    """
    line += b"\n"
    try:
        with open(path, "ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                # A device has no end to cut back to; the failure to write is the one to tell.
                with suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | Path, error: OSError) -> FileError:
    """The error to raise for a file of records that cannot be written."""
    return FileError(
        path, f"cannot be written ({error.strerror})", "check the disk's space and the folder's permissions"
    )
