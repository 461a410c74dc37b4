"""The record of an inspection: one JSON line an image, in ``inspections.jsonl``.

Records are appended as images are finished, so that an inspection that is stopped keeps what it has done.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from blemish.decision.regions import Region
from blemish.errors import FileError
from blemish.storage.records_log import append_line, unwritable


class Inspection(BaseModel):
    """What was found in one image.

    ``path`` is the image's name relative to the inspected folder, ``size`` its (width, height) in pixels,
    ``time`` the moment in UTC as ISO 8601, ``seconds`` the latency; ``label`` is None without labels. Numbers
    must be finite; they survive writing and reading unchanged to the last bit.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    size: tuple[int, int]
    score: FiniteFloat
    threshold: FiniteFloat
    p_value: FiniteFloat
    is_anomalous: bool
    regions: tuple[Region, ...]
    time: str
    seconds: FiniteFloat
    label: str | None = None


def append_record(path: str | Path, record: Inspection) -> None:
    """Add one record to the file, creating it if need be, with a single write.

    A last line that an earlier run left unfinished is removed first. On a disk that fills up within the
    line, the file is cut back to its former end. Raises FileError, naming the file, when it cannot be
    written.
    """
    path = Path(path)
    if path.is_file():
        _mend_end(path)
    append_line(path, record.model_dump_json().encode())


def read_records(path: str | Path) -> list[Inspection]:
    """All records of the file, in the order they were written.

    A last line that was cut off, as a kill leaves it, is passed over. Raises FileError for a file that cannot
    be read or that holds any other line that is no record.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(
            path, f"cannot be read ({error.strerror})", "name the inspections.jsonl that inspect wrote"
        ) from error
    *lines, last = content.split(b"\n")
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1)]
    if _is_record(last):
        records.append(Inspection.model_validate_json(last))
    return records


def _record(path: str | Path, number: int, line: bytes) -> Inspection:
    try:
        return Inspection.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        detail = f"{place}: {problem['msg']}" if place else problem["msg"]
        raise FileError(
            path, f"line {number} is not a record ({detail})", "delete the line, or inspect again"
        ) from error


def _mend_end(path: Path) -> None:
    """Cut an unfinished last line off the file; end one that lacks only its newline."""
    try:
        with open(path, "r+b") as file:
            if not file.seek(0, os.SEEK_END):
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) == b"\n":
                return
            file.seek(0)
            whole_lines, newline, last = file.read().rpartition(b"\n")
            if _is_record(last):
                file.write(b"\n")
            else:
                file.truncate(len(whole_lines) + len(newline))
    except OSError as error:
        raise unwritable(path, error) from error


def _is_record(line: bytes) -> bool:
    try:
        Inspection.model_validate_json(line)
    except ValidationError:
        return False
    return True
