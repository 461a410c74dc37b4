from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from blemish.errors import FileError, UsageError
from blemish.storage.leftovers import machine
from blemish.storage.run_lock import LOCK_FILE, owned

HOLD = (
    "import sys\n"
    "from blemish.storage.run_lock import owned\n"
    "with owned(sys.argv[1]):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that holds ``folder`` until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_that_another_process_holds_is_refused_and_the_holder_named(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as process:
        words = rf"out: is in use by -c .*\(process {process.pid} on .+, since 20.+\); wait for its end, or choose another"
        with pytest.raises(UsageError, match=words), owned(tmp_path / "out"):
            pass
        process.communicate("")
    with owned(tmp_path / "out"):
        pass


def test_the_lock_of_a_killed_process_holds_up_nobody(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        assert (tmp_path / LOCK_FILE).exists()
        with owned(tmp_path):
            assert f'"process": {process.pid}' not in (tmp_path / LOCK_FILE).read_text()
    assert list(tmp_path.iterdir()) == []


def test_two_threads_do_not_hold_one_folder(tmp_path: Path) -> None:
    found: list[UsageError] = []

    def second() -> None:
        try:
            with owned(tmp_path):
                pass
        except UsageError as error:
            found.append(error)

    with owned(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(found) == 1


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), owned(tmp_path / "out"):
        raise KeyboardInterrupt
    assert not (tmp_path / "out").exists()
    with owned(tmp_path / "out"):
        (tmp_path / "out" / "a.json").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.json"]


def test_what_a_killed_run_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        (tmp_path / "maps").mkdir()
        (tmp_path / "maps" / f".part-{machine()}-{process.pid}-0123456789ab.png").touch()
        process.kill()
        process.wait()
    with owned(tmp_path):
        assert list((tmp_path / "maps").iterdir()) == []


def test_no_folder_is_no_lock() -> None:
    with owned(None):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileError, match="file: is a file, so nothing can be written here"),
        owned(tmp_path / "file" / "out"),
    ):
        pass
