"""A history of 400 decisions that every database must answer like a list of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from blemish.serve.contracts import NewVerdict, StoredDecision
from blemish.serve.history import History, HistoryFilter
from tests.serve.history.made import BEGIN, decision

FILTERS = [
    dict(zip(("model", "source", "is_anomalous", "verdict", "text", "score", "since", "until"), chosen, strict=True))
    for chosen in itertools.product(
        (None, "b"), (None, "cam 2"), (None, True, False), (None, "none", "wrong"), (None, "IMG_1", "zz"), (None, 0.6),
        (None, 130), (None, 333),
    )
]  # fmt: skip


def expected(stored: list[StoredDecision], given: dict[str, Any]) -> list[StoredDecision]:
    def holds(one: StoredDecision) -> bool:
        verdict = "none" if one.verdict is None else "right" if one.verdict.is_right else "wrong"
        minute = (one.time - BEGIN) / timedelta(minutes=1)
        return (
            given["model"] in (None, one.model)
            and given["source"] in (None, one.source)
            and given["is_anomalous"] in (None, one.is_anomalous)
            and given["verdict"] in (None, verdict)
            and (given["text"] is None or str(given["text"]).lower() in one.name.lower())
            and (given["score"] is None or one.score >= given["score"])
            and (given["since"] is None or minute >= given["since"])
            and (given["until"] is None or minute < given["until"])
        )

    return [one for one in reversed(stored) if holds(one)]


def as_filter(given: dict[str, Any]) -> HistoryFilter:
    times = {
        name: None if given[name] is None else BEGIN + timedelta(minutes=given[name])
        for name in ("since", "until")
    }
    same = {name: given[name] for name in ("model", "source", "is_anomalous", "verdict", "text")}
    return HistoryFilter.model_validate({**same, **times, "least_score": given["score"]})


def fill(history: History) -> list[StoredDecision]:
    """Store the decisions, with verdicts on some; the clock is put back once."""
    rng = np.random.default_rng(0)
    new = [
        decision(
            place,
            model="ab"[int(rng.integers(2))],
            source=f"cam {rng.integers(3)}",
            time=BEGIN + timedelta(minutes=place - 100 * (place > 250)),
            name=f"{'IMG' if place % 3 else 'img'}_{place:03}%.png",
            score=float(rng.random()),
            other_kind="empty" if place % 11 == 0 else None,
        )
        for place in range(400)
    ]
    new = [one.model_copy(update={"is_anomalous": one.score > 0.75 or bool(one.other_kind)}) for one in new]
    for begin in range(0, 400, 37):
        history.add(new[begin : begin + 37])
    for number in range(3, 400, 7):
        history.add_verdict(number, NewVerdict(is_right=number % 2 == 0))
    history.add_verdict(3, NewVerdict(is_right=True))
    return [history.decision(number) for number in range(1, 401)]


def check_filters(history: History, stored: list[StoredDecision], filters: Sequence[dict[str, Any]]) -> int:
    """Compare counts and pages with those of the list; how many filters found something."""
    found_some = 0
    for given in filters:
        wanted, right = as_filter(given), expected(stored, given)
        found_some += bool(right)
        assert history.count(wanted) == len(right), given
        assert history.count(wanted, at_most=5) == min(5, len(right)), given
        first = history.page(wanted, limit=4)
        assert first == right[:4], given
        if len(right) > 4:
            assert history.page(wanted, before=first[-1].id, limit=1000) == right[4:], given
            assert list(history.all(wanted, at_once=50)) == right[::-1], given
    return found_some


def check_what_if(history: History, stored: list[StoredDecision], filters: Sequence[dict[str, Any]]) -> None:
    """Compare what other thresholds would have decided with the list."""
    for given, threshold in itertools.product(filters, (0.1, 0.75, 0.9)):
        right = expected(stored, given)
        rejected = [one for one in right if not one.is_anomalous and one.score > threshold]
        accepted = [
            one for one in right if one.is_anomalous and one.score <= threshold and one.other_kind is None
        ]
        found = history.what_if(as_filter(given), threshold, limit=7)
        assert (found.decisions, found.rejected) == (len(right), sum(one.is_anomalous for one in right)), (
            given
        )
        assert (found.newly_rejected, found.newly_accepted) == (len(rejected), len(accepted)), given
        newest = sorted(rejected + accepted, key=lambda one: -one.id)[:7]
        assert list(found.changed) == newest, given
