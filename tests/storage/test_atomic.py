from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import FileError
from blemish.storage.atomic import (
    atomic_folder,
    atomic_path,
    write_bytes,
    write_json,
    write_text,
)
from blemish.storage.leftovers import machine


def failing(code: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_appears_with_its_whole_content_in_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    write_bytes(path, b"\x00\r\n\xff")
    assert path.read_bytes() == b"\x00\r\n\xff"
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_at_the_path_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        assert temporary.name.startswith(".")
        assert not path.exists()
    assert path.read_text() == "half"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_breaks_off_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def break_off() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
@pytest.mark.parametrize("step", ["replace", "open"])
def test_a_refused_write_is_reported_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str, step: str
) -> None:
    path = tmp_path / "a.json"
    with monkeypatch.context() as patch:
        patch.setattr(os if step == "replace" else io, step, failing(code))
        with pytest.raises(FileError, match=words) as caught:
            write_json(path, [1, 2])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="is a file, not a folder"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(FileError, match="is a file, not a folder"):
        write_text(tmp_path / "file" / "deeper" / "a.txt", "x")
    with pytest.raises(FileError, match="a folder of this name"):
        write_text(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\r\n×\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\r\n×\n".encode()


def test_json_comes_back_and_knows_no_nan(tmp_path: Path) -> None:
    value = {"name": "Maß", "scores": [0.1, 1e-300, 3]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_a_file_name_that_is_no_text_can_be_recorded(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write_json(tmp_path / "a.json", name)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == name


def test_a_folder_appears_with_all_its_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "set"
    with atomic_folder(path) as temporary:
        assert (temporary.name, list(temporary.iterdir())) == ("set", [])
        (temporary / "a.txt").write_text("a")
        assert not path.exists()
    assert (path / "a.txt").read_text() == "a"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_finished_leaves_nothing_and_what_a_kill_left_is_cleared(
    tmp_path: Path, ended: int
) -> None:
    path = tmp_path / "set"
    left = tmp_path / f".part-{machine()}-{ended}-0123456789ab" / "set"
    left.mkdir(parents=True)
    (left / "old.txt").touch()

    def break_off() -> None:
        with atomic_folder(path) as temporary:
            assert list(temporary.iterdir()) == []
            (temporary / "a.txt").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = r"set: cannot be made \(Not a directory\); choose another --out"
    with pytest.raises(FileError, match=words), atomic_folder(tmp_path / "file" / "set"):
        pass
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").touch()
    with pytest.raises(FileError, match="set: cannot be made"), atomic_folder(tmp_path / "set"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "set"]


def test_content_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(file: int) -> None:
        done.append("fsync")
        assert os.fstat(file).st_size == 2
        fsync(file)

    def renamed(source: Path, target: Path) -> None:
        done.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_text(tmp_path / "a.json", "{}")
    assert done == ["fsync", "replace"]
