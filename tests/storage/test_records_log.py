from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from blemish.errors import FileError
from blemish.storage.records_log import RecordsLog, append_line, read_log


class Note(BaseModel):
    name: str
    size: int


NOTES = [Note(name="ä\n{}.png", size=1), Note(name="b", size=2)]


def written(path: Path) -> None:
    journal = RecordsLog(path, Note)
    for note in NOTES:
        journal.append(note)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "notes.jsonl"
    written(path)
    assert RecordsLog(path, Note).records == NOTES
    assert len(path.read_bytes().splitlines()) == 2


def test_every_cut_off_line_is_passed_over_and_gone(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    written(path)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for end in range(first, len(content)):
        path.write_bytes(content[:end])
        # The second record is whole once all of it but the end of the line is there.
        kept = 2 if end == len(content) - 1 else 1
        assert read_log(path, Note, missing="", remedy="") == NOTES[:kept]
        assert path.read_bytes() == content[:end]
        log = RecordsLog(path, Note)
        assert log.records == NOTES[:kept]
        for note in NOTES[kept:]:
            log.append(note)
        assert path.read_bytes() == content


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"name": "a", "size": 1}\n{"name": "b"}\n')
    with pytest.raises(
        FileError, match=r"notes\.jsonl: line 2 is not a record \(size: .*\); delete the line"
    ):
        RecordsLog(path, Note)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="a part of this path is a file"):
        RecordsLog(tmp_path / "file" / "notes.jsonl", Note)


def _whole_but_error(file: io.FileIO, data: bytes) -> int:
    io.FileIO.write(file, data[:7])
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (
            lambda file, data: io.FileIO.write(file, data[:7]),
            "the disk is full; free some space and run again",
        ),
        (_whole_but_error, "Input/output error"),
    ],
    ids=["short write", "error after a part"],
)
def test_a_disk_that_fills_up_within_a_line_keeps_the_lines_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[io.FileIO, bytes], int], words: str
) -> None:
    path = tmp_path / "notes.jsonl"
    append_line(path, b"a first line")

    class Filling(io.FileIO):
        def write(self, data: Any) -> int:
            return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda name, mode, buffering: Filling(name, mode))
        with pytest.raises(FileError, match=words):
            append_line(path, b"a second line")
    assert path.read_bytes() == b"a first line\n"
