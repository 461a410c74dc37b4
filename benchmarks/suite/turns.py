"""Times of contenders that take turns, so that a ratio within a round holds when the machine's speed drifts."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Call = Callable[[], object]


class Plan(NamedTuple):
    """Length of a measurement."""

    rounds: int
    turn: float
    """Seconds that a contender works in a round, at least."""
    quick: bool


FULL = Plan(rounds=9, turn=0.5, quick=False)
QUICK = Plan(rounds=5, turn=0.1, quick=True)


def take_turns(contenders: Mapping[str, Call], plan: Plan) -> dict[str, list[float]]:
    """Seconds of one call of each contender, for every round; each is called before, once where a turn is one call."""
    repeats = {}
    for name, call in contenders.items():
        call()
        repeats[name] = 1
        if not plan.turn:
            continue
        begun = time.perf_counter()
        call()
        repeats[name] = max(1, math.ceil(plan.turn / max(time.perf_counter() - begun, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(plan.rounds):
        for name, call in contenders.items():
            begun = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            seconds[name].append((time.perf_counter() - begun) / repeats[name])
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range of ``values``, to four digits."""
    return {
        name: float(f"{value:.4g}")
        for name, value in (
            ("median", statistics.median(values)),
            ("low", min(values)),
            ("high", max(values)),
        )
    }


def beside(seconds: Mapping[str, Sequence[float]], first: str) -> list[dict[str, Any]]:
    """A row for each contender: milliseconds, and its time over that of ``first``, round by round."""
    return [
        {
            "name": name,
            "milliseconds": spread([1000 * one for one in own]),
            f"time beside {first}": spread([x / y for x, y in zip(own, seconds[first], strict=True)]),
        }
        for name, own in seconds.items()
    ]


def slope(sizes: Sequence[float], seconds: Sequence[Sequence[float]]) -> dict[str, float]:
    """Slope of the logarithm of the time by that of the size, by least squares in each round.

    Parameters
    ----------
    sizes: at least two, above 0.
    seconds: of each size, those of the rounds.

    >>> slope([1, 2, 4], [[1.0, 2.0], [4.0, 4.0], [16.0, 8.0]])
    {'median': 1.5, 'low': 1.0, 'high': 2.0}
    """
    rounds = np.log(np.asarray(seconds)).T
    return spread([float(np.polyfit(np.log(sizes), one, 1)[0]) for one in rounds])
