"""Log: JSON lines, rotated, and no traceback where they do not fit on the disk."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blemish.errors import ServeError
from blemish.serve.logs import LOG_FILE, LOGGER, close_log, open_log
from blemish.serve.settings import LogSettings


def test_lines_are_json_and_files_are_rotated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = open_log(tmp_path, LogSettings(max_bytes=10_000, files=2))
    try:
        for number in range(400):
            LOGGER.info("line %d", number, extra={"fields": {"name": "a\nb\udcff", "n": number}})
        LOGGER.warning("for people\x1b[31m", extra={"fields": {"model": "waves"}})
        try:
            raise ValueError("inside")
        except ValueError:
            LOGGER.error("unexpected", exc_info=True)
    finally:
        close_log(handlers)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [LOG_FILE, f"{LOG_FILE}.1", f"{LOG_FILE}.2"]
    assert all(path.stat().st_size <= 10_000 for path in files)
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    assert any(line.get("n") == 399 and line["name"] == "a\nb\udcff" for line in lines)
    assert any("ValueError: inside" in line.get("traceback", "") for line in lines)
    err = capsys.readouterr().err
    assert "warning: for people\\x1b[31m (model=waves)" in err
    assert "line 399" not in err
    LOGGER.info("after the end")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServeError, match="cannot be written"):
        open_log(tmp_path / "file", LogSettings())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_the_log_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    handlers = open_log(tmp_path, LogSettings(console=False, max_bytes=10**9))
    try:
        LOGGER.error("does not fit")
    finally:
        close_log(handlers)
    assert capsys.readouterr().err == ""


def test_a_console_that_takes_nothing_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking, written = os.pipe()
    console = open(written, "w")  # noqa: SIM115 - closed before its reader ends
    monkeypatch.setattr(sys, "stderr", console)
    handlers = open_log(tmp_path, LogSettings())
    begun = time.monotonic()
    for number in range(5000):  # many times what a pipe holds
        LOGGER.warning("line %d", number)
    assert time.monotonic() - begun < 10
    with open(taking, "rb") as pipe, ThreadPoolExecutor(1) as pool:
        shown = pool.submit(pipe.read)
        close_log(handlers)
        console.close()
        assert shown.result().count(b"line ") == 5000
    lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert [line["message"] for line in lines] == [f"line {number}" for number in range(5000)]
