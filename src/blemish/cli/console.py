"""Progress of long work on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from blemish.errors import BlemishError, printable
from blemish.observer import Observer

if TYPE_CHECKING:
    from types import TracebackType

    from blemish.training.contracts import Progress as TrainingProgress

PLAIN_SECONDS = 15.0
"""Between two lines of progress that no terminal shows; ``BLEMISH_PROGRESS_SECONDS`` sets another time."""
BAR_WIDTH = 20


class ConsoleObserver(Observer):
    """Shows stages, counts and training, and counts the problems reported."""

    def __init__(self, should_stop: Callable[[], bool], *, quiet: bool = False) -> None:
        self.problems = 0
        self._should_stop = should_stop
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        # The console that draws the bar must also print above it, or they overwrite each other.
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True) if quiet else self._console
        self._bar = Progress(
            TextColumn("  {task.percentage:>3.0f} %"),
            BarColumn(BAR_WIDTH),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._before: int | None = None
        self._said = self._begun = time.monotonic()
        self._pause = _plain_seconds()

    def __enter__(self) -> ConsoleObserver:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self._console.print(escape(printable(text)))
        self._before = None
        self._said = self._begun = time.monotonic()

    def count(self, done: int, total: int) -> None:
        if self._before is None:
            self._before = done - 1  # after --resume, what an earlier run has done took no time of this one
        pace = (time.monotonic() - self._begun) / (done - self._before)
        self._show(done, total, f"{done} of {total}, {_clock(pace * (total - done))} left")

    def training(self, progress: TrainingProgress) -> None:
        terms = ", ".join(f"{name} {value:.4f}" for name, value in progress.terms.items())
        best = (
            ""
            if progress.best is None
            else f", held out {progress.validation:.4f} (best {progress.best:.4f})"
        )
        self._show(
            progress.step,
            progress.steps,
            f"step {progress.step} of {progress.steps}, {_clock(progress.seconds_left)} left at most, "
            f"{terms}{best}, {progress.images_per_second:.0f} images/s",
        )

    def problem(self, error: BlemishError) -> None:
        self.problems += 1
        self._errors.print(f"[yellow]skipped[/] {escape(str(error))}")

    def should_stop(self) -> bool:
        return self._should_stop()

    def _show(self, done: int, total: int, text: str) -> None:
        if not self._bar.disable:
            if self._task is None:
                self._task = self._bar.add_task("", total=total)
            # Left to itself, a line too long for the terminal would squeeze the bar and the percentage.
            room = max(0, self._console.width - BAR_WIDTH - len("  100 %  "))
            text = text if len(text) <= room else f"{text[: room - 1]}…"
            self._bar.update(self._task, completed=done, total=total, description=escape(printable(text)))
        elif time.monotonic() - self._said >= self._pause or (done == total and total > 1):
            self._said = time.monotonic()
            self._console.print(f"  {escape(printable(text))}")


def _plain_seconds() -> float:
    try:
        return float(os.environ["BLEMISH_PROGRESS_SECONDS"])
    except (KeyError, ValueError):
        return PLAIN_SECONDS


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
