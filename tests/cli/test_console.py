from __future__ import annotations

import re
from pathlib import Path

import pytest

from blemish.cli.console import ConsoleObserver
from blemish.errors import ImageError
from blemish.training.contracts import Progress

PROBLEM = ImageError(Path("parts") / "[left] a.png", "is empty (0 bytes)", "remove it")


def work(observer: ConsoleObserver) -> None:
    with observer:
        observer.stage("Inspecting 3 images in [parts]")
        observer.count(1, 3)
        observer.problem(PROBLEM)
        observer.count(3, 3)
        observer.stage("Training")
        observer.training(Progress(6, 6, {"ssim": 0.25}, 120.0, 0.0, 0.3, 0.2))


def test_without_a_terminal_lines_stand_alone(capsys: pytest.CaptureFixture[str]) -> None:
    observer = ConsoleObserver(lambda: False)
    work(observer)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "Inspecting 3 images in [parts]",
        "skipped parts/[left] a.png: is empty (0 bytes); remove it",
        "  3 of 3, 0:00 left",
        "Training",
        "  step 6 of 6, 0:00 left at most, ssim 0.2500, held out 0.3000 (best 0.2000), 120 images/s",
    ]
    assert observer.problems == 1


def test_with_quiet_only_problems_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    work(ConsoleObserver(lambda: False, quiet=True))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "skipped parts/[left] a.png: is empty (0 bytes); remove it\n"


def test_on_a_terminal_the_bar_does_not_overwrite_the_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "72")
    work(ConsoleObserver(lambda: False))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "parts/[left] a.png: is empty (0 bytes); remove it\n" in captured.err
    assert re.search(r"100 % .*step 6 of 6, 0:00 left at most, ssim[^\n]*…\n", captured.err)
    assert "\x1b[?25h" in captured.err  # the cursor is shown again


def test_the_observer_asks_whether_to_stop() -> None:
    assert ConsoleObserver(lambda: True).should_stop()
    assert not ConsoleObserver(lambda: False).should_stop()


def test_time_left_is_of_the_pace_of_this_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After --resume, 90 images of an earlier run are done; this one takes 20 s for one."""
    now = 0.0
    monkeypatch.setattr("blemish.cli.console.time.monotonic", lambda: now)
    observer = ConsoleObserver(lambda: False)
    observer.stage("Inspecting")
    for done in (91, 92):
        now += 20
        observer.count(done, 100)
    assert capsys.readouterr().err.splitlines()[1:] == ["  91 of 100, 3:00 left", "  92 of 100, 2:40 left"]
