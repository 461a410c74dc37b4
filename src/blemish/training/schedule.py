"""Schedule of a training: its length in steps or in seconds, its phases, and the learning rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from blemish.recipes.schema import TrainingSettings
from blemish.training.checkpoint import TrainingState

ENDLESS = 2**40
"""Steps; more than any budget holds."""


def learning_rate(settings: TrainingSettings, step: int, share: float | None = None) -> float:
    """The rate of step ``step`` of ``settings.steps``: constant, along a cosine to 0, or by 1 / (1 + decay · step).

    With a budget the cosine follows the ``share`` of it that is spent.

    >>> settings = TrainingSettings(steps=100, learning_rate=0.5, schedule="inverse", decay=0.25)
    >>> [learning_rate(settings, step) for step in (0, 4, 12)]
    [0.5, 0.25, 0.125]
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    if settings.schedule == "inverse":
        return settings.learning_rate / (1 + settings.decay * step)
    angle = math.pi * step / settings.steps if share is None else math.pi * min(share, 1.0)
    return settings.learning_rate * 0.5 * (1 + math.cos(angle))


def _clock() -> float:
    return time.perf_counter()


class TrainingClock:
    """Progress of a training, by its steps or, with a budget, by the seconds spent.

    Time begins with the object; the seconds before an interruption are in ``state``.

    Parameters
    ----------
    state: of the training; the trainer advances its step count, this clock sets the end of its pretraining.
    pretraining: steps that come before those of ``settings``.
    """

    def __init__(self, settings: TrainingSettings, state: TrainingState, pretraining: int) -> None:
        self._settings = settings
        self._state = state
        self._pretraining = pretraining
        self._now: Callable[[], float] = _clock
        self._begun = self._now()
        self._seconds, self._step = state.seconds, state.step
        self.ends_pretraining()

    def follow(self, now: Callable[[], float]) -> None:
        """Take the time from ``now``, in seconds, from here on."""
        self._now, self._begun = now, now()

    @property
    def spent(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self._seconds + self._now() - self._begun

    def ends_pretraining(self) -> bool:
        """End the pretraining where it is due; whether it has just ended.

        It is due when all its steps are made, or half of a budget is spent.
        """
        state, budget = self._state, self._settings.budget
        if state.pretraining is not None or (
            state.step < self._pretraining and (budget is None or self.spent < budget / 2)
        ):
            return False
        state.pretraining = min(state.step, self._pretraining)
        if budget and state.pretraining:
            state.pretraining_seconds = self.spent
        return True

    @property
    def past(self) -> int:
        """Steps made after the pretraining."""
        return 0 if self._state.pretraining is None else self._state.step - self._state.pretraining

    @property
    def share(self) -> float:
        """Share of the training after the pretraining that is done, 0 to 1 and more."""
        if self._state.pretraining is None:
            return 0.0
        if self._settings.budget is None:
            return self.past / self._settings.steps
        before = self._state.pretraining_seconds
        left = self._settings.budget - before
        return (self.spent - before) / left if left > 0 else 1.0

    @property
    def is_half_time(self) -> bool:
        """True if half of the training after the pretraining is done."""
        return self.past > 0 and self.share >= 0.5

    @property
    def is_over(self) -> bool:
        """True if all steps are made, or the budget is spent; never before the first step."""
        return self.past > 0 and self.share >= 1

    @property
    def is_look_due(self) -> bool:
        """True if the held-out loss is to be computed after this step."""
        return self.past > 0 and (self.is_over or self.past % self._settings.validate_every == 0)

    @property
    def steps(self) -> int:
        """Number of the last step; with a budget, beyond reach."""
        made = self._state.pretraining
        return (
            ENDLESS
            if self._settings.budget
            else self._settings.steps + (self._pretraining if made is None else made)
        )

    def learning_rate(self) -> float:
        """Rate of the next step."""
        return learning_rate(self._settings, self.past, self.share if self._settings.budget else None)

    def remaining(self) -> tuple[int, float]:
        """Expected number of steps in all, and seconds from now until the end."""
        state, budget = self._state, self._settings.budget
        # From the whole run, so that looks and checkpoints are in it.
        pace = (self._now() - self._begun) / (state.step - self._step)
        if budget is None:
            return self.steps, pace * (self.steps - state.step)
        seconds = max(0.0, budget - self.spent)
        return state.step + round(seconds / pace), seconds

    @property
    def of_all(self) -> str:
        """``" of 100"`` steps for a message; empty with a budget."""
        return "" if self._settings.budget else f" of {self.steps}"
