"""Gather the tables of several studies over time: each step fits the next rows that a kept table lacks.

    python -m studies.gather --data DATA --hours 8

The plan (``studies/plan.yaml``, or one's own with ``--plan``) lists the studies in order; those whose data set is not below
``--data`` are passed over. Stopped by the clock or by Ctrl-C, the same line goes on where it was, even within a fit. Each
step leaves the tables of its study whole, with the rows that are there and the number of those that are missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from blemish.cli.console import ConsoleObserver
from blemish.errors import BlemishError, FileError, Stopped
from blemish.interruption import interruptible
from blemish.observer import Observer
from studies import run_study

if TYPE_CHECKING:
    from blemish.training.contracts import Progress

PLAN = Path(__file__).with_name("plan.yaml")
STEP = 3
"""Rows of a step: what a study measures is measured once a step."""


class Planned(BaseModel):
    """One study of a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    data: str | None = None
    """Below ``--data``; None for generated images."""
    out: str = "."
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None

    @property
    def words(self) -> str:
        """The study and its data in a few words."""
        place = "" if self.out == "." else f", {self.out}"
        return f"{self.study} on {self.data or 'generated images'}{place}"


def read_plan(path: Path) -> list[Planned]:
    """The studies of a plan, in order.

    Raises
    ------
    FileError
        When it cannot be read, or an entry is not one.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [Planned.model_validate(entry) for entry in entries]
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = (
            error.errors()[0]["msg"] if isinstance(error, ValidationError) else " ".join(str(error).split())
        )
        raise FileError(path, f"is no plan of studies ({reason})", "see studies/plan.yaml") from None


def gather(
    plan: Sequence[Planned],
    data: Path,
    out: Path,
    *,
    observer: Observer,
    run: Callable[..., Any] = run_study,
    step: int = STEP,
) -> None:
    """Fit the missing rows of ``plan`` in its order until all are there, ``step`` rows at a time.

    Raises
    ------
    Stopped
        When the observer asked to stop; what is finished is kept.
    """
    for planned in plan:
        images = None if planned.data is None else data / planned.data
        if images is not None and not images.exists():
            observer.stage(f"Passed over, because there is no {images}: {planned.words}")
            continue
        missing: list[str] | None = None
        while missing is None or missing:
            result = run(
                planned.study,
                out / planned.out,
                data=images,
                seeds=planned.seeds,
                settings=planned.settings,
                rows=step,
                observer=observer,
            )
            before, missing = missing, result.figures["missing"]
            observer.stage(f"{planned.words}: {len(missing)} of {result.figures['planned']} rows are missing")
            if missing == before:
                break  # a row that cannot be made here would be tried for ever
            if missing and observer.should_stop():
                raise Stopped("stopped between two rows")


class Clock(Observer):
    """Passes everything on to ``inner``, and asks to stop after ``seconds``."""

    def __init__(self, inner: Observer, seconds: float) -> None:
        self._inner = inner
        self._end = time.monotonic() + seconds

    def stage(self, text: str) -> None:
        self._inner.stage(text)

    def count(self, done: int, total: int) -> None:
        self._inner.count(done, total)

    def training(self, progress: Progress) -> None:
        self._inner.training(progress)

    def problem(self, error: BlemishError) -> None:
        self._inner.problem(error)

    def should_stop(self) -> bool:
        return time.monotonic() > self._end or self._inner.should_stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds the data sets of the plan"
    )
    parser.add_argument("--out", type=Path, default=Path("studies/results"))
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--hours", type=float, default=8.0, help="after which to stop, even within a fit")
    parser.add_argument(
        "--on", help="Ray cluster over which the fits of a step are spread: local, auto, HOST:PORT"
    )
    parser.add_argument("--rows", type=int, default=STEP, help="rows between two writings of a table")
    options = parser.parse_args()
    from studies.spreading import spread_over  # loads torch, which the help does without

    try:
        with interruptible() as pressed, ConsoleObserver(pressed, quiet=False) as observer:
            clock = Clock(observer, 3600 * options.hours)
            with spread_over(options.on):
                gather(read_plan(options.plan), options.data, options.out, observer=clock, step=options.rows)
    except Stopped as stopped:
        print(f"{stopped}; the same line goes on")
    except BlemishError as error:
        raise SystemExit(f"studies: {error}") from None


if __name__ == "__main__":
    main()
