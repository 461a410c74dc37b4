"""A file of records, one JSON line each, that survives being stopped at any moment."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from blemish.errors import FileError

R = TypeVar("R", bound=BaseModel)


class Journal(Generic[R]):
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
            raise self._unwritable(error) from error
        lines = whole.split(b"\n") if whole else []
        self.records = [self._record(model, number, line) for number, line in enumerate(lines, start=1)]

    def append(self, record: R) -> None:
        """Write one record at the end; on a disk that fills up the file is cut back to its former end."""
        line = record.model_dump_json().encode() + b"\n"
        try:
            with open(self.path, "ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                try:
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    with suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            raise self._unwritable(error) from error
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

    def _unwritable(self, error: OSError) -> FileError:
        return FileError(
            self.path,
            f"cannot be written ({error.strerror})",
            "check the disk's space and the folder's permissions",
        )


@lru_cache(maxsize=1)
def shipped_data_sha256() -> str:
    """Of the data that the package ships for its encoder: with the version, what a record's settings name."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.json")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
