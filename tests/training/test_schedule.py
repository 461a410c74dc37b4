from __future__ import annotations

import pytest

from blemish.recipes.schema import TrainingSettings
from blemish.training import schedule
from blemish.training.checkpoint import TrainingState
from blemish.training.schedule import TrainingClock, learning_rate


def test_learning_rate_is_constant_or_falls_along_a_cosine() -> None:
    constant = TrainingSettings(steps=100, learning_rate=0.5)
    assert {learning_rate(constant, step) for step in range(100)} == {0.5}
    cosine = TrainingSettings(steps=100, learning_rate=0.5, schedule="cosine")
    rates = [learning_rate(cosine, step) for step in range(101)]
    assert rates[0] == 0.5
    assert rates[50] == pytest.approx(0.25)
    assert rates[100] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)


def test_learning_rate_falls_by_the_inverse_of_the_steps() -> None:
    inverse = TrainingSettings(steps=100, learning_rate=0.5, schedule="inverse", decay=0.25)
    assert [learning_rate(inverse, step) for step in (0, 4, 12)] == [0.5, 0.25, 0.125]


def test_the_clock_counts_pretraining_apart() -> None:
    state = TrainingState()
    clock = TrainingClock(TrainingSettings(steps=4, validate_every=3), state, 2)
    seen = []
    while not clock.is_over:
        state.step += 1
        ended = clock.ends_pretraining()
        seen.append((ended, clock.past, clock.share, clock.is_half_time, clock.is_look_due))
    assert seen == [
        (False, 0, 0.0, False, False),
        (True, 0, 0.0, False, False),
        (False, 1, 0.25, False, False),
        (False, 2, 0.5, True, False),
        (False, 3, 0.75, True, True),
        (False, 4, 1.0, True, True),
    ]
    assert (clock.steps, clock.of_all, clock.remaining()[0]) == (6, " of 6", 6)


def test_with_a_budget_the_clock_counts_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(schedule.time, "perf_counter", lambda: now)
    settings = TrainingSettings(steps=1, budget=10, schedule="cosine", learning_rate=1.0)
    state = TrainingState(step=3, pretraining=0, seconds=2.0)
    clock = TrainingClock(settings, state, 0)
    assert (clock.spent, clock.share, clock.of_all) == (2.0, 0.2, "")
    now, state.step = 103.0, 6
    assert clock.is_half_time
    assert clock.learning_rate() == pytest.approx(0.5)
    assert clock.remaining() == (11, 5.0)
    now = 108.0
    assert clock.is_over


def test_the_clock_follows_that_of_another_process() -> None:
    now = 100.0
    state = TrainingState(seconds=3.0)
    clock = TrainingClock(TrainingSettings(budget=10), state, 0)
    clock.follow(lambda: now)
    state.step = 1
    now = 104.0
    assert (clock.spent, clock.share, clock.is_over) == (7.0, 0.7, False)
    now = 107.0
    assert clock.is_over
