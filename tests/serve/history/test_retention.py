"""Retention: the oldest first, never what a sink is owed, and the sums stay those of the rows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from blemish.errors import DecisionNotFoundError
from blemish.serve.contracts import Frame, NewVerdict, StoredDecision
from blemish.serve.history import History, HistoryFilter, KeptImages, RetentionRule, prune
from blemish.storage.leftovers import temporary_name
from tests.serve.history.made import BEGIN, many

DAYS = 10
NOW = BEGIN + timedelta(days=DAYS)
MAP = np.ones((2, 2), np.float32)


class Line:
    """A history of ten decisions, one a day, with their images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = KeptImages(folder / "images")
        self.history = History.open(folder)

    def fill(self, **sinks: str) -> None:
        new = [
            self.images.keep(
                Frame(b"BM" + bytes(1000), "x"),
                MAP,
                one.model_copy(update={"time": BEGIN + timedelta(days=place)}),
            )
            for place, one in enumerate(many(DAYS))
        ]
        self.history.add(new, sinks)  # type: ignore[arg-type]

    def kept(self) -> list[int]:
        """Numbers of the decisions whose files are there; the history says the same."""
        found = self.history.page()
        by_files = [one.id for one in found if self.images.image(one) and self.images.map(one)]
        assert by_files == [one.id for one in found if one.kept]
        assert sum(len(paths) for _, paths in self.images.by_key()) == 2 * len(by_files)
        return by_files[::-1]

    def prune(self, **rule: float | None) -> tuple[int, int]:
        removed = prune(self.history, self.images, RetentionRule.model_validate(rule), NOW)
        return removed.images, removed.decisions


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(
        import_module("blemish.serve.history.retention"), "_NEWEST", 1
    )  # ten decisions are no line that runs
    made = Line(tmp_path)
    yield made
    made.history.close()


def test_old_images_go_and_their_decisions_stay(line: Line) -> None:
    line.fill()
    assert line.prune() == (0, 0)
    assert line.prune(image_days=6.5) == (4, 0)
    assert line.kept() == [5, 6, 7, 8, 9, 10]
    assert line.history.count() == DAYS


def test_the_oldest_go_until_the_size_is_kept(line: Line) -> None:
    line.fill()
    size = line.history.decision(1).kept_bytes
    assert line.prune(image_bytes=10 * size) == (0, 0)
    assert line.prune(image_bytes=4 * size + 1) == (6, 0)
    assert line.kept() == [7, 8, 9, 10]
    assert line.prune(image_bytes=0) == (4, 0)
    assert line.kept() == []


def test_images_with_a_verdict_stay_longer(line: Line) -> None:
    line.fill()
    for number in (2, 3):
        line.history.add_verdict(number, NewVerdict(is_right=True))
    assert line.prune(image_days=5) == (3, 0)
    assert line.kept() == [2, 3, 6, 7, 8, 9, 10]
    assert line.prune(judged_image_days=8.5) == (1, 0)
    assert line.kept() == [3, 6, 7, 8, 9, 10]
    size = line.history.decision(3).kept_bytes
    assert line.prune(image_bytes=2 * size) == (4, 0)
    assert line.kept() == [3, 10]
    assert line.prune(image_bytes=size) == (1, 0)
    assert line.kept() == [3]
    assert line.prune(image_bytes=size - 1) == (1, 0)  # the limit holds in the end


def test_nothing_goes_that_a_sink_is_owed(line: Line) -> None:
    line.fill(hook="rejected")
    assert line.prune(image_bytes=0, decision_days=0.5) == (8, 8)
    assert line.kept() == [5, 10]
    owed = line.history.due("hook")
    assert [one.decision.id for one in owed] == [5, 10]
    line.history.delivered(owed[0].id)
    assert line.prune(image_bytes=0, decision_days=0.5) == (1, 1)
    assert line.kept() == [10]


def test_images_for_sinks_alone_go_when_they_are_delivered(line: Line) -> None:
    new = [
        line.images.keep(Frame(b"BM", "x"), MAP, one, ["rejected"]).model_copy(
            update={"until_delivered": True}
        )
        for one in many(5)
    ]
    line.history.add(new, {"folder": "rejected"})
    assert line.prune() == (4, 0)  # those that no sink wants
    assert line.kept() == [5]
    line.history.delivered(line.history.due("folder")[0].id)
    assert line.prune() == (1, 0)
    assert line.kept() == []


def sums(history: History) -> tuple[int, int, int]:
    week = HistoryFilter(since=BEGIN + timedelta(days=2), until=BEGIN + timedelta(days=20))
    return history.count(), history.count(HistoryFilter(is_anomalous=True)), history.count(week)


def test_old_decisions_go_with_all_that_belongs_to_them(line: Line) -> None:
    line.fill(hook="all")
    line.history.delivered(*(one.id for one in line.history.due("hook")))
    line.history.add_verdict(1, NewVerdict(is_right=True))
    line.history.add_verdict(9, NewVerdict(is_right=True))
    assert sums(line.history) == (10, 2, 8)
    assert line.prune(decision_days=4.5) == (5, 5)  # but for number 1, which is judged
    assert [one.id for one in line.history.page()] == [10, 9, 8, 7, 1]
    assert sums(line.history) == (5, 1, 4)
    assert line.kept() == [1, 7, 8, 9, 10]
    with pytest.raises(DecisionNotFoundError):
        line.history.decision(5)
    removed = prune(line.history, line.images, RetentionRule(decision_days=4.5, keep_judged=False), NOW)
    assert removed.in_words().endswith("and 1 decision.")
    assert line.history.page(HistoryFilter(text="frame_000000")) == []
    assert [one.id for one in line.history.page(HistoryFilter(text="frame_00000"))] == [10, 9, 8, 7]
    assert line.history.add(many(1, begin=50))[0].id == 11  # a number is never given again


def test_a_number_is_not_given_again_after_all_are_gone(line: Line) -> None:
    line.fill()
    assert line.prune(decision_days=0.01) == (10, 10)
    assert line.history.count() == 0
    [again] = line.history.add(many(1, begin=50))
    assert again.id == DAYS + 1


@pytest.mark.parametrize("jump", [timedelta(days=4000), timedelta(days=-4000)])
def test_a_clock_that_jumps_removes_no_image_too_early(
    line: Line, jump: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("blemish.serve.history.retention"), "_NEWEST", 9)
    line.fill()
    with_jump = [one.model_copy(update={"time": NOW + jump}) for one in many(3, begin=50)]
    line.history.add(with_jump)
    prune(line.history, line.images, RetentionRule(image_days=20), NOW + jump)
    assert line.kept() == list(range(1, DAYS + 1))


def test_files_without_a_decision_go_after_a_day(line: Line) -> None:
    line.fill()
    stray = [line.images.keep(Frame(b"BM", "x"), MAP, one) for one in many(2, begin=100)]
    old, young = (line.images.image(one) for one in stray)
    assert old is not None
    assert young is not None
    for path in line.images.folder.rglob("*"):
        if path.is_file() and path.name.partition(".")[0] != young.name.partition(".")[0]:
            os.utime(path, (time.time() - 90_000,) * 2)
    line.prune()
    assert not old.exists()
    assert young.exists()
    assert len(kept_files(line, line.history.page())) == DAYS


def test_temporary_files_of_a_killed_server_go_at_once(line: Line) -> None:
    line.fill()
    (killed := subprocess.Popen([sys.executable, "-c", ""])).wait()
    (path, *_) = line.images.folder.glob("*/*.map.png")
    machine = temporary_name().split("-")[1]
    left = path.with_name(f".part-{machine}-{killed.pid}-0123456789ab.png")
    own = path.with_name(temporary_name(".png"))
    for made in (left, own):
        made.touch()
    line.prune()
    assert not left.exists()
    assert own.exists(), "a server of this process is writing it"
    assert len(kept_files(line, line.history.page())) == DAYS


def kept_files(line: Line, found: list[StoredDecision]) -> list[Path]:
    return [path for one in found if (path := line.images.image(one))]


def test_a_server_beside_goes_on_meanwhile(line: Line) -> None:
    line.fill()
    with History.open(line.folder, exclusive=False) as beside:
        removed = prune(beside, KeptImages(line.folder / "images"), RetentionRule(image_days=6.5), NOW)
    assert removed.images == 4
    assert line.kept() == [5, 6, 7, 8, 9, 10]
    assert line.history.add(many(1, begin=99))[0].id == 11
