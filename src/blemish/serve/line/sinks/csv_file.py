"""CSV file as a sink: a row for each decision, as spreadsheets open it."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from blemish.errors import DeliveryError
from blemish.inspection.exports import plain_cell
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.messages import outcome
from blemish.serve.line.sink_settings import CsvSettings
from blemish.serve.line.sinks.folder import local_day

COLUMNS = (
    "id",
    "time",
    "source",
    "name",
    "model",
    "decision",
    "other_kind",
    "score",
    "threshold",
    "p_value",
    "regions",
    "x",
    "y",
    "width",
    "height",
    "class",
    "seconds",
    "image_sha256",
)
_DATES = {"never": "", "daily": "-%Y-%m-%d", "monthly": "-%Y-%m"}
_END = 4096
"""Bytes at the end of a file among which its last row is looked for."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # by which Excel knows that it is UTF-8


class CsvSink:
    """Appends rows in the order of the decisions' numbers, each once, and brings each to the disk.

    A row that a kill left unfinished is cut off, and comes again from the outbox. A name that a spreadsheet would take
    for a formula begins with an apostrophe.
    """

    needs_images = False

    def __init__(self, settings: CsvSettings, path: Path) -> None:
        self.name = settings.name
        self._path, self._date = path, _DATES[settings.rotate]
        self._last: dict[Path, int] = {}

    def open(self) -> None:
        """Nothing to connect to."""

    def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
        """Append the row of one decision, unless it is there.

        Raises
        ------
        DeliveryError
            When the file cannot be written, as while a spreadsheet holds it open on Windows.
        """
        date = local_day(decision.time).strftime(self._date)
        path = self._path.with_name(f"{self._path.stem}{date}{self._path.suffix or '.csv'}")
        try:
            if path not in self._last or not path.is_file():
                self._last[path] = _prepare(path)
            if decision.id <= self._last[path]:
                return
            _append(path, _row(decision))
        except OSError as error:
            self._last.pop(path, None)
            raise DeliveryError(
                f"{path}: cannot be written ({error.strerror}); close it in other programs, and check the disk"
            ) from None
        self._last = {path: decision.id}

    def close(self) -> None:
        """Nothing is held."""


def _prepare(path: Path) -> int:
    """Make the file with its header, or cut off an unfinished row; the number of the last decision in it, or 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END))
            end = file.read()
            whole, newline, last = end.rpartition(b"\r\n")
            if last:
                file.truncate(size - len(last))
            if newline:
                # No cell holds a line break, as names are printable.
                return _number(whole.rpartition(b"\r\n")[2])
            file.truncate(0)
    except FileNotFoundError:
        pass
    _append(path, BYTE_ORDER_MARK + _line(COLUMNS))
    return 0


def _number(row: bytes) -> int:
    first = row.partition(b",")[0]
    return int(first) if first.isdigit() else 0


def _append(path: Path, line: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _row(decision: StoredDecision) -> bytes:
    box = decision.regions[0] if decision.regions else None
    first = decision.classes[0].name if decision.classes else ""
    return _line(
        (
            decision.id,
            decision.time.isoformat(),
            _cell(decision.source),
            _cell(decision.name),
            _cell(decision.model),
            outcome(decision),
            _cell(decision.other_kind or ""),
            decision.score,
            decision.threshold,
            decision.p_value,
            len(decision.regions),
            *((box.x, box.y, box.width, box.height) if box else ("",) * 4),
            _cell(first),
            decision.seconds,
            decision.image_sha256,
        )
    )


def _line(cells: tuple[object, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(text: str) -> str:
    return plain_cell(" ".join(text.splitlines()))
