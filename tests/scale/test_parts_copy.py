"""Copies of an archive's parts at another place: whole, of one archive alone, and caught up with after any interruption."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blemish.errors import FileError, UsageError
from blemish.scale import parts_copy
from blemish.scale.archive_folder import LOG_FILE, PARTS, SETTINGS_FILE, archive_tables
from blemish.scale.parts_copy import IDENTITY_FILE, PartsCopy
from tests.scale.test_archive_folder import names, opened, rows


def content(place: Path) -> dict[str, bytes]:
    """Log and parts by their names."""
    files = [place / LOG_FILE, *sorted((place / PARTS).glob("*"))]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_a_copy_follows_its_archive(tmp_path: Path, kind: str) -> None:
    out, place = tmp_path / "out", tmp_path / "copy"
    address = str(place) if kind == "folder" else f"file://{place}"
    folder = opened(out)
    copy = PartsCopy(out, address)
    for some in (["0", "1"], ["2"]):
        folder.add(rows(some))
        copy.bring(folder.parts)
        assert content(place) == content(out)
    # A later run rewrites one part, and has no more use for another.
    folder.add(rows(["1", "2"], sha256="b", version="2"))
    folder.drop_superseded()
    folder.close()
    again = PartsCopy(out, address)
    again.bring(folder.parts)
    assert content(place) == content(out)
    assert names(place) == ["0", "1", "2"]
    folder.vouch({"images": 3})
    again.finish()
    assert (place / SETTINGS_FILE).read_bytes() == (out / SETTINGS_FILE).read_bytes()


def test_what_was_interrupted_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, place = tmp_path / "out", tmp_path / "copy"
    folder = opened(out)
    for number in range(3):
        folder.add(rows([str(number)]))
    folder.close()
    write_file = parts_copy.write_file
    left = 3

    def failing(location: str, data: bytes) -> None:
        nonlocal left
        if not left:
            raise FileError(location, "the store does not answer", "check the address")
        left -= 1
        write_file(location, data)

    monkeypatch.setattr(parts_copy, "write_file", failing)
    with pytest.raises(FileError, match="part-00000003\\.parquet: the store does not answer"):
        PartsCopy(out, str(place)).bring(folder.parts)
    monkeypatch.undo()
    assert len(list(archive_tables(place))) == 2
    assert not (place / LOG_FILE).exists(), "the log names what is there alone"
    PartsCopy(out, str(place)).bring(folder.parts)
    assert content(place) == content(out)


def test_a_part_that_is_there_is_not_stored_again(tmp_path: Path) -> None:
    out, place = tmp_path / "out", tmp_path / "copy"
    folder = opened(out)
    folder.add(rows(["0"]))
    folder.close()
    PartsCopy(out, str(place)).bring(folder.parts)
    stored = place / PARTS / "part-00000001.parquet"
    os.utime(stored, (0, 0))
    PartsCopy(out, str(place)).bring(folder.parts)
    assert stored.stat().st_mtime == 0


def test_two_archives_never_share_a_copy(tmp_path: Path) -> None:
    place = tmp_path / "copy"
    folders = {name: opened(tmp_path / name) for name in ("a", "b")}
    for name, folder in folders.items():
        folder.add(rows([name]))
        folder.close()
    PartsCopy(tmp_path / "a", str(place)).bring(folders["a"].parts)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"--parts .*copy: holds the results of another archive"):
        PartsCopy(tmp_path / "b", str(place))
    assert content(place) == content(tmp_path / "a")
    PartsCopy(tmp_path / "b", str(place), overwrite=True).bring(folders["b"].parts)
    assert content(place) == content(tmp_path / "b")
    assert (place / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="another archive"):
        PartsCopy(tmp_path / "a", str(place))
    with pytest.raises(UsageError, match="is the output folder itself"):
        PartsCopy(tmp_path / "a", str(tmp_path / "a"))


@pytest.mark.parametrize(("name", "problem"), [(LOG_FILE, "is no log"), (IDENTITY_FILE, "names no copy")])
def test_a_place_with_other_files_is_refused_in_one_line(tmp_path: Path, name: str, problem: str) -> None:
    folder = opened(tmp_path / "out")
    folder.close()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name).write_text("[1]\n")
    with pytest.raises(FileError, match=problem):
        PartsCopy(tmp_path / "out", str(tmp_path / "copy"))
