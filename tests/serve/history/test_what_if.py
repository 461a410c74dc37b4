"""What another threshold would have decided, at the borders of bins, hours and kinds."""

from __future__ import annotations

import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from blemish.serve.contracts import NewDecision
from blemish.serve.history import History, HistoryFilter, KeptImages, RetentionRule, prune
from blemish.serve.history.score_bins import lower_edge, score_bin
from tests.serve.history.made import BEGIN, decision


def scored() -> list[NewDecision]:
    """600 decisions over ten hours, many of them with scores at the very edges of bins, at or below 0 among them."""
    rng = np.random.default_rng(3)
    edges = [lower_edge(score_bin(1.0) + step) for step in range(-12, 12)]
    scores = [float(rng.choice(edges)) if place % 2 else float(rng.gamma(8, 0.12)) for place in range(590)]
    scores += [0.0] * 5 + [-1.5] * 5
    return [
        decision(
            place,
            score=score,
            threshold=1.0,
            other_kind="dark" if place % 23 == 0 else None,
            is_anomalous=score > 1.0 or place % 23 == 0,
            time=BEGIN + timedelta(minutes=place),
            source=f"camera {place % 2}",
        )
        for place, score in enumerate(scores)
    ]


THRESHOLDS = [-2.0, -1.5, 0.0, 1e-9, lower_edge(13), lower_edge(16), 1.0, np.nextafter(1.0, 2), 1.07, 50.0]


def check(history: History, stored: list[NewDecision], wanted: HistoryFilter) -> None:
    meant = [
        one
        for one in stored
        if wanted.source in (None, one.source)
        and (wanted.since is None or one.time >= wanted.since)
        and (wanted.until is None or one.time < wanted.until)
    ]
    for threshold in THRESHOLDS:
        found = history.what_if(wanted, float(threshold), limit=600)
        rejected = {one.request for one in meant if not one.is_anomalous and one.score > threshold}
        accepted = {
            one.request
            for one in meant
            if one.is_anomalous and one.other_kind is None and one.score <= threshold
        }
        assert found.decisions == len(meant)
        assert (found.newly_rejected, found.newly_accepted) == (len(rejected), len(accepted)), threshold
        assert {one.request for one in found.changed} == rejected | accepted


@pytest.mark.parametrize("few", [4000, 3], ids=["rare", "dense"])
@pytest.mark.parametrize(
    "wanted",
    [
        HistoryFilter(),
        HistoryFilter(source="camera 1"),
        HistoryFilter(since=BEGIN + timedelta(minutes=91), until=BEGIN + timedelta(minutes=307)),
        HistoryFilter(since=BEGIN + timedelta(minutes=91), until=BEGIN + timedelta(minutes=93)),
        HistoryFilter(since=BEGIN + timedelta(minutes=30), until=BEGIN + timedelta(minutes=90)),
    ],
    ids=["all", "one source", "within hours", "within one hour", "whole hours"],
)
def test_counts_are_exact(
    tmp_path: Path, wanted: HistoryFilter, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("blemish.serve.history.what_if"), "FEW", few)
    with History.open(tmp_path) as history:
        for begin in range(0, 600, 50):
            history.add(scored()[begin : begin + 50])
        check(history, scored(), wanted)


def test_counts_follow_what_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("blemish.serve.history.retention"), "_NEWEST", 1)
    with History.open(tmp_path) as history:
        history.add(scored())
        now = BEGIN + timedelta(minutes=600)
        removed = prune(history, KeptImages(tmp_path / "images"), RetentionRule(decision_days=5 / 24), now)
        assert removed.decisions == 300
        check(history, scored()[300:], HistoryFilter())


@pytest.mark.parametrize("threshold", [sys.float_info.max, -sys.float_info.max, 0.0])
def test_thresholds_beyond_all_scores(tmp_path: Path, threshold: float) -> None:
    with History.open(tmp_path) as history:
        history.add(scored()[:50])
        found = history.what_if(HistoryFilter(), threshold)
    known = [one for one in scored()[:50] if one.other_kind is None]
    accepted, rejected = (sum(one.is_anomalous == kind for one in known) for kind in (False, True))
    expected = (0, rejected) if threshold > 0 else (accepted, 0)
    assert (found.newly_rejected, found.newly_accepted) == expected
