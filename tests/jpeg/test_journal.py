from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from blemish.errors import FileError
from blemish.jpeg.journal import Journal


class Note(BaseModel):
    name: str
    size: int


NOTES = [Note(name="ä\n{}.png", size=1), Note(name="b", size=2)]


def written(path: Path) -> None:
    journal = Journal(path, Note)
    for note in NOTES:
        journal.append(note)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "notes.jsonl"
    written(path)
    assert Journal(path, Note).records == NOTES
    assert len(path.read_bytes().splitlines()) == 2


def test_every_cut_off_line_is_passed_over_and_gone(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    written(path)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for end in range(first, len(content)):
        path.write_bytes(content[:end])
        journal = Journal(path, Note)
        assert journal.records == NOTES[:1]
        journal.append(NOTES[1])
        assert path.read_bytes() == content


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"name": "a", "size": 1}\n{"name": "b"}\n')
    with pytest.raises(
        FileError, match=r"notes\.jsonl: line 2 is not a record \(size: .*\); delete the line"
    ):
        Journal(path, Note)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be written"):
        Journal(tmp_path / "file" / "notes.jsonl", Note)
