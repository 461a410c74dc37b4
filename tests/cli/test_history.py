"""Commands of the history: beside a server, in one line where something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from blemish.cli.history import app
from blemish.errors import BlemishError
from blemish.serve.contracts import Frame, NewVerdict, utc_now
from blemish.serve.history import History, KeptImages
from tests.serve.history.made import many


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command as ``blemish history`` does, with a BlemishError as its exit code and line."""

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["blemish", "history", *map(str, words)])
        capsys.readouterr()
        try:
            code = app([str(word) for word in words], standalone_mode=True) or 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BlemishError as error:
            print(f"blemish: {error}", file=sys.stderr)
            code = error.exit_code
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Home folder of a running server with 30 decisions, the newest of today, one an hour."""
    home = tmp_path / "home"
    images = KeptImages(home / "images")
    with History.open(home) as history:
        now = utc_now()
        new = [
            one.model_copy(update={"time": now - timedelta(hours=29 - place)})
            for place, one in enumerate(many(30))
        ]
        history.add([images.keep(Frame(b"BM", "x"), np.ones((2, 2), np.float32), one) for one in new])
        yield home


def test_export_backup_and_restore(run: Callable[..., Ran], home: Path, tmp_path: Path) -> None:
    table = tmp_path / "history.csv"
    assert run("export", "--home", home, "--out", table) == (0, f"{table}: 30 decisions\n", "")
    ran = run("export", "--home", home, "--out", tmp_path / "rejected.parquet", "--rejected", "--json")
    assert json.loads(ran.out) == {"file": str(tmp_path / "rejected.parquet"), "decisions": 6}
    ran = run("export", "--home", home, "--out", table, "--until", "2020-01-01")
    assert ran.out.endswith(": 0 decisions\n")

    copy = tmp_path / "backup"
    ran = run("backup", "--home", home, "--out", copy)
    assert ran == (0, f"Backup: {copy} (30 decisions up to number 30, 30 kept images)\n", "")
    ran = run("restore", copy, "--home", tmp_path / "new", "--json")
    assert json.loads(ran.out)["decisions"] == 30
    with History.open(tmp_path / "new") as history:
        assert history.count() == 30


def test_prune(run: Callable[..., Ran], home: Path) -> None:
    ran = run("prune", "--home", home, "--image-days", 0.5)
    assert ran.code == 0
    assert ran.out.startswith("Removed 18 images (")
    ran = run("prune", "--home", home, "--image-gigabytes", 0, "--decision-days", 1, "--json")
    assert {key: json.loads(ran.out)[key] for key in ("images", "decisions")} == {
        "images": 12,
        "decisions": 6,
    }


def test_labels(run: Callable[..., Ran], home: Path, tmp_path: Path) -> None:
    with History.open(home, exclusive=False) as history:
        history.add_verdict(1, NewVerdict(is_right=True))
        history.add_verdict(5, NewVerdict(is_right=True, label="dent"))
    ran = run("labels", "--home", home, "--out", tmp_path / "labelled", "--test-share", 1)
    words = "1 good images, of which 1 are for tests, and 1 defective ones, of which 1 are for tests and 0 have a mask."
    expected = f"{tmp_path / 'labelled'}: {words}"
    assert ran == (0, f"{expected}\n", "")
    assert {path.name for path in (tmp_path / "labelled" / "test").iterdir()} == {"good", "dent"}


def test_report(run: Callable[..., Ran], home: Path, tmp_path: Path) -> None:
    today = utc_now().date().isoformat()
    ran = run("report", "--home", home, "--week", today, "--out", tmp_path / "week.html", "--language", "de")
    assert ran.code == 0
    assert ran.out.endswith(f"Report: {tmp_path / 'week.html'}\n")
    assert "Geprüfte Bilder: " in ran.out
    assert (tmp_path / "week.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    ran = run(
        "report",
        "--home",
        home,
        "--week",
        "2020-01-06",
        "--out",
        tmp_path / "week.eml",
        "--json",
        "--to",
        "a@b.c",
    )
    assert json.loads(ran.out)["decisions"] == 0
    assert b"To: a@b.c" in (tmp_path / "week.eml").read_bytes()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("export", "--out", "history.txt"), "--out history.txt: name a file that ends in .csv or .parquet"),
        (("export", "--out", "a.csv", "--home", "nowhere"), "there is no history; name the folder that"),
        (("backup", "--out", "backup", "--home", "nowhere"), "there is no history; name the folder that"),
        (("restore", "nowhere"), "is no backup of a history; name a folder that blemish history backup made"),
        (("report", "--out", "a.pdf"), "--out a.pdf: name a file that ends in .html or .eml"),
        (("report", "--out", "a.eml"), "there is no history; name the folder that"),
        (("labels", "--out", "labelled"), "there is no history; name the folder that"),
        (("prune",), "prune removes nothing without a rule; give --image-days or --image-gigabytes"),
        (("prune", "--image-days", "-1"), "--image-days: write a number above 0"),
        (("prune", "--image-days", "nan"), "--image-days: write a number above 0"),
        (("prune", "--decision-days", "1e99"), "--decision-days: write a number above 0, up to 36500"),
    ],
)
def test_what_is_wrong_is_one_line(
    run: Callable[..., Ran],
    words: tuple[str, ...],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*words)
    assert ran.code in (1, 2)
    assert problem in ran.err
    assert ran.err.startswith("blemish: ")
    assert ran.err.count("\n") == 1
