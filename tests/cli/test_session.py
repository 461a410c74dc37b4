"""What every command does around its work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import blemish
from blemish.cli.session import end, integers, load_studies, print_json, working
from blemish.errors import FileError, Stopped, UsageError


def test_integers_are_separated_by_commas() -> None:
    assert integers("--seeds", "0,1, 2") == [0, 1, 2]
    with pytest.raises(UsageError, match=r"--seeds 0;1: write whole numbers separated by commas"):
        integers("--seeds", "0;1")


def test_json_is_escaped_so_that_any_terminal_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Kratzer ä"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {"name": "Kratzer ä"}


def test_a_stop_prints_the_command_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["blemish", "fit", "my parts", "--resume", "--overwrite"])
    with (
        pytest.raises(Stopped, match=r"stopped; go on with: blemish fit 'my parts' --resume$"),
        working(quiet=True, after_stop=lambda: ("--resume",)),
    ):
        raise Stopped("stopped")


def test_skipped_files_are_reported_last_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with working(quiet=True) as observer:
        end(observer)
        observer.problem(FileError("a.png", "cannot be read", "check it"))
        observer.problem(FileError("b.png", "cannot be read", "check it"))
    with pytest.raises(typer.Exit) as exit_:
        end(observer)
    assert exit_.value.exit_code == 1
    assert "finished, but 2 files were skipped" in capsys.readouterr().err


ROOT = Path(__file__).parents[2]


def test_studies_are_those_of_the_checkout() -> None:
    assert Path(str(load_studies().__file__)) == ROOT / "studies" / "__init__.py"


def test_worker_processes_find_the_studies_of_the_checkout(tmp_path: Path) -> None:
    code = (
        "from blemish.cli.session import load_studies\n"
        "from blemish.workers import each\n"
        "load_studies()\n"
        "print(*each(eval, [\"__import__('studies').STUDIES[0]\"] * 2, workers=2))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.split() == ["bergmann2018"] * 2, ran.stderr


def test_without_a_checkout_the_error_names_the_way_to_run_studies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(blemish, "__file__", str(tmp_path / "site-packages" / "blemish" / "__init__.py"))
    with pytest.raises(
        UsageError,
        match=r"^studies are part of the source tree.* get the source, install it with pip install -e",
    ):
        load_studies()
