from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from blemish.errors import DiskFullError, FileError
from blemish.storage.atomic import write_text
from blemish.storage.leftovers import (
    is_running,
    machine,
    remove_leftovers,
    remove_temporary_folders,
    temporary_folder,
    temporary_name,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_process_runs_until_it_ends(ended: int) -> None:
    assert is_running(os.getpid())
    assert not is_running(ended)


def test_what_a_killed_process_left_is_removed_and_all_else_stays(tmp_path: Path, ended: int) -> None:
    left = f".part-{machine()}-{ended}-0123456789ab"
    (tmp_path / f"{left}.png").touch()
    (tmp_path / left / "set").mkdir(parents=True)
    (tmp_path / left / "set" / "a.png").touch()
    kept = {".part-mine.png", "a.png", temporary_name(".png"), f".part-0a1b2c-{ended}-0123456789ab.png"}
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == kept


def test_folders_below_are_searched_when_asked_but_not_arrays(tmp_path: Path, ended: int) -> None:
    left = f".part-{machine()}-{ended}-0123456789ab.png"
    folders = [tmp_path / "maps" / "deep", tmp_path / "a.zarr" / "c"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / left).touch()
    remove_leftovers(tmp_path)
    assert [names(folder) for folder in folders] == [{left}, {left}]
    remove_leftovers(tmp_path, below=True)
    assert [names(folder) for folder in folders] == [set(), {left}]


def test_files_of_another_machine_or_version_are_removed_after_a_day(tmp_path: Path, ended: int) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, age in ((old, 2 * 24 * 3600), (new, 60)):
        folder.mkdir()
        for name in (f".part-0a1b2c-{ended}-0123456789ab.json", ".part-0123456789abcdef.png"):
            (folder / name).touch()
            os.utime(folder / name, (time.time() - age,) * 2)
    remove_leftovers(tmp_path, below=True)
    assert (names(old), len(names(new))) == (set(), 2)


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "none")


def test_a_killed_write_leaves_a_file_that_the_next_start_removes(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from blemish.storage.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.touch()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".part-")
    assert left.suffix == ".json"
    remove_leftovers(tmp_path)
    write_text(tmp_path / "a.json", "{}")
    assert names(tmp_path) == {"a.json"}


def test_temporary_folders_are_removed_by_their_own_run_or_by_the_next(
    tmp_path: Path, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as folder:
        (folder / "image.jpg").touch()
        (tmp_path / f"blemish-{machine()}-{ended}-abcdefgh").mkdir()
        (tmp_path / f"blemish-{machine()}-{ended}-abcdefgh" / "image.jpg").touch()
        (tmp_path / "blemish-notes").mkdir()
        remove_temporary_folders()
        assert names(tmp_path) == {folder.name, "blemish-notes"}
    assert names(tmp_path) == {"blemish-notes"}


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2**30),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 2**30),
        (OSError("writing DCT to image.jpg failed"), 0),  # of a library in C, without a number
    ],
)
def test_a_full_disk_of_temporary_files_is_an_error_of_its_own(
    error: OSError, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    words = "the disk of temporary files is full; free some space, or name another folder by TMPDIR"
    with pytest.raises(DiskFullError, match=f"^{re.escape(str(tmp_path))}: {words}$"), temporary_folder():
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_library_is_no_full_disk_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30))
    with pytest.raises(FileError, match="temporary files cannot be written") as raised, temporary_folder():
        raise OSError("writing DCT to image.jpg failed")
    assert not isinstance(raised.value, DiskFullError)


def test_temporary_files_that_cannot_be_written_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    words = r"none: temporary files cannot be written here .*TMPDIR"
    with pytest.raises(FileError, match=words), temporary_folder():
        pass
