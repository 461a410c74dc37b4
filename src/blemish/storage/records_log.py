"""A file of records, one JSON line each, that survives being stopped at any moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from blemish.errors import DiskFullError, FileError, NameInTheWayError
from blemish.storage.atomic import write_error, write_text

R = TypeVar("R", bound=BaseModel)


class RecordsLog(Generic[R]):
    """The records of ``path`` as they were written, and more to be appended; there is one writer at a time.

    Parameters
    ----------
    path: the file; it and its folder are made where they are missing. A last line that a kill left unfinished
        is cut off; one that lacks only its newline is given it.
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
            self.path.touch()
        except OSError as error:
            raise unwritable(self.path, error) from error
        content = end_last_line(self.path, model)
        lines = content.split(b"\n")[:-1]
        self.records = [
            read_record(self.path, number, line, model, "delete the line, or the file to start anew")
            for number, line in enumerate(lines, start=1)
        ]

    def keep(self, records: Iterable[R]) -> None:
        """Replace the records of the file by ``records``, all at once.

        Raises
        ------
        FileError
            When the file cannot be written; it stays as it was.
        """
        records = list(records)
        write_text(self.path, "".join(f"{record.model_dump_json()}\n" for record in records))
        self.records[:] = records

    def append(self, record: R) -> None:
        """Write one record at the end; on a disk that fills up the file is cut back to its former end."""
        append_line(self.path, record.model_dump_json().encode())
        self.records.append(record)


def read_log(path: str | Path, model: type[R], *, missing: str, remedy: str) -> list[R]:
    """All records of a log, in the order in which they were written; the file stays as it is.

    A last line that was cut off, as a kill leaves it, is passed over.

    Parameters
    ----------
    missing: what the user can do where the file cannot be read.
    remedy: what the user can do about a line that is no record.

    Raises
    ------
    FileError
        When the file cannot be read, or holds a line before the last that is no such record.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})", missing) from error
    *lines, last = content.split(b"\n")
    if _is_record(last, model):
        lines.append(last)
    return [read_record(path, number, line, model, remedy) for number, line in enumerate(lines, start=1)]


def read_record(path: str | Path, number: int, line: bytes, model: type[R], remedy: str) -> R:
    """One line of a log as a record; raises FileError with the number of a line that is none."""
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        detail = f"{place}: {problem['msg']}" if place else problem["msg"]
        raise FileError(path, f"line {number} is not a record ({detail})", remedy) from None


def end_last_line(path: Path, model: type[BaseModel]) -> bytes:
    """Cut an unfinished last line off a log, or end one that lacks only its newline; give what the file holds.

    Raises
    ------
    FileError
        When the file cannot be read or written.
    """
    try:
        with open(path, "r+b") as file:
            content = file.read()
            whole, newline, last = content.rpartition(b"\n")
            if not last:
                return content
            if _is_record(last, model):
                file.write(b"\n")
                return content + b"\n"
            file.truncate(len(whole) + len(newline))
            return whole + newline
    except OSError as error:
        raise unwritable(path, error) from error


def _is_record(line: bytes, model: type[BaseModel]) -> bool:
    try:
        model.model_validate_json(line)
    except ValidationError:
        return False
    return True


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
                # A device has no end to cut back to; the failure to write is the one to report.
                with suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | Path, error: OSError) -> FileError:
    """The error to raise for a file of records, or for arrays, that cannot be written."""
    found = write_error(Path(path), error)
    problem, remedy = (
        f"cannot be written ({error.strerror})",
        "check the disk's space and the folder's permissions",
    )
    is_known = isinstance(found, NameInTheWayError | DiskFullError)
    return found if is_known else FileError(path, problem, remedy)
