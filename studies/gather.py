"""Gather tables over time: each step fits the next rows that a kept table of a study or of the detection benchmark lacks.

    python -m studies.gather --data DATA --hours 8
    python -m studies.gather --data DATA --hours 8 --commit

The plan (``studies/plan.yaml``, or one's own with ``--plan``) lists studies and tables in order; those whose data set is not
below ``--data`` are passed over. Stopped by the clock or by Ctrl-C, the same line goes on where it was, even within a fit. Each
step leaves its table whole, with the rows that are there and the number of those that are missing; with ``--commit``
it is committed then, and nothing else is.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from blemish.cli.console import ConsoleObserver
from blemish.errors import BlemishError, FileError, Stopped, UsageError
from blemish.interruption import interruptible
from blemish.observer import Observer
from studies import run_study

if TYPE_CHECKING:
    from blemish.training.contracts import Progress

PLAN = Path(__file__).with_name("plan.yaml")
TABLES = Path("benchmarks/results")
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


class PlannedTable(BaseModel):
    """One table of ``benchmarks.detection``: every recipe by every seed, one row a step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    """Data set, below ``--data``."""
    recipes: str = "papers"
    budget: str | None = None
    seeds: tuple[int, ...] = (0,)

    @property
    def words(self) -> str:
        """The table in a few words."""
        return f"{self.recipes} on {self.table}" + (f", {self.budget} each" if self.budget else "")

    def rows(self, data: Path, out: Path) -> tuple[list[tuple[int, str]], int]:
        """Seeds and recipes without a row, the first seed of all recipes first; and the number of all rows."""
        detection, sources = _benchmark("__main__"), _benchmark("sources")
        options = detection.parsed(self._line(data, self.recipes, self.seeds, out))
        there = {
            (seed, row["name"])
            for row in sources.rows_before(out / f"{detection.stem_of(options)}.json")
            for seed in row["seeds"]
        }
        planned = [(seed, recipe) for seed in self.seeds for recipe in options.recipes]
        return [row for row in planned if row not in there], len(planned)

    def fit(self, data: Path, out: Path, seed: int, recipe: str, observer: Observer) -> None:
        """Fit one row, and write the table with it."""
        _benchmark("__main__").run(self._line(data, recipe, (seed,), out), observer)

    def _line(self, data: Path, recipes: str, seeds: Sequence[int], out: Path) -> list[str]:
        line = ["table", str(data / self.table), "--recipes", recipes, "--keep", "--out", str(out)]
        return [
            *line,
            "--seeds",
            ",".join(map(str, seeds)),
            *(["--budget", self.budget] if self.budget else []),
        ]


def _benchmark(module: str) -> Any:
    """A module of the detection benchmark, which studies load for its tables alone, and which has no checked types."""
    return import_module(f"benchmarks.detection.{module}")


def read_plan(path: Path) -> list[Planned | PlannedTable]:
    """The studies and tables of a plan, in order.

    Raises
    ------
    FileError
        When it cannot be read, or an entry is not one.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [(PlannedTable if "table" in entry else Planned).model_validate(entry) for entry in entries]
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = (
            error.errors()[0]["msg"] if isinstance(error, ValidationError) else " ".join(str(error).split())
        )
        raise FileError(path, f"is no plan of studies ({reason})", "see studies/plan.yaml") from None


def gather(
    plan: Sequence[Planned | PlannedTable],
    data: Path,
    out: Path,
    *,
    observer: Observer,
    tables: Path = TABLES,
    run: Callable[..., Any] = run_study,
    step: int = STEP,
    done: Callable[[str, Path], None] = lambda words, folder: None,
) -> None:
    """Fit the missing rows of ``plan`` in its order until all are there, ``step`` rows of a study at a time, or one of a table.

    Parameters
    ----------
    out, tables: folders of the results of studies, and of tables of the detection benchmark.
    done: is called after each step with what there is now, in words, and the folder of the results.

    Raises
    ------
    Stopped
        When the observer asked to stop; what is finished is kept.
    """
    for planned in plan:
        name = planned.data if isinstance(planned, Planned) else planned.table
        images = None if name is None else data / name
        if images is not None and not images.exists():
            observer.stage(f"Passed over, because there is no {images}: {planned.words}")
            continue
        if isinstance(planned, Planned):
            steps = _steps_of_study(planned, images, out / planned.out, run, step, observer)
        else:
            steps = _steps_of_table(planned, data, tables, observer)
        for missing, all_rows in steps:
            words = f"{planned.words}: {missing} of {all_rows} rows are missing"
            observer.stage(words)
            done(words, out if isinstance(planned, Planned) else tables)
            if missing and observer.should_stop():
                raise Stopped("stopped between two rows")


def _steps_of_study(
    planned: Planned,
    images: Path | None,
    out: Path,
    run: Callable[..., Any],
    step: int,
    observer: Observer,
) -> Iterator[tuple[int, int]]:
    """Fit the rows of a study; after each step the number of those that are missing, and of all."""
    missing: list[str] | None = None
    while missing is None or missing:
        result = run(
            planned.study,
            out,
            data=images,
            seeds=planned.seeds,
            settings=planned.settings,
            rows=step,
            observer=observer,
        )
        before, missing = missing, result.figures["missing"]
        yield len(missing), result.figures["planned"]
        if missing == before:
            return  # a row that cannot be made here would be tried for ever


def _steps_of_table(
    planned: PlannedTable, data: Path, out: Path, observer: Observer
) -> Iterator[tuple[int, int]]:
    """Fit the rows of a table of the detection benchmark, as :func:`_steps_of_study` does."""
    missing, count = planned.rows(data, out)
    yield len(missing), count
    while missing:
        planned.fit(data, out, *missing[0], observer)
        before, (missing, _) = missing, planned.rows(data, out)
        yield len(missing), count
        if missing == before:
            return


class Committing:
    """Commits the results of each step, and nothing else.

    Raises
    ------
    UsageError
        ``folders`` are not in a checkout, or it has changes there that are not committed.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            if _git(folder, "status", "--porcelain", "--", "."):
                raise UsageError(
                    f"--commit: {folder} has changes that are not committed; commit them, or leave --commit out"
                )

    def __call__(self, words: str, folder: Path) -> None:
        """Commit what has changed in ``folder``."""
        if _git(folder, "status", "--porcelain", "--", "."):
            _git(folder, "add", "--", ".")
            _git(folder, "commit", "--quiet", "--message", words[0].upper() + words[1:], "--", ".")


def _git(folder: Path, *words: str) -> str:
    """What git prints in ``folder``.

    Raises
    ------
    UsageError
        When it fails.
    """
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        raise UsageError("--commit: git is not installed; leave --commit out") from None
    except subprocess.CalledProcessError as error:
        reason = " ".join(f"{error.stderr} {error.stdout}".split())[:300]
        raise UsageError(
            f"--commit: git {words[0]} in {folder} failed ({reason}); leave --commit out"
        ) from None


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
    parser.add_argument("--out", type=Path, default=Path("studies/results"), help="of the studies")
    parser.add_argument("--tables", type=Path, default=TABLES, help="results of the tables of detection")
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--hours", type=float, default=8.0, help="after which to stop, even within a fit")
    parser.add_argument(
        "--on", help="Ray cluster over which the fits of a step are spread: local, auto, HOST:PORT"
    )
    parser.add_argument("--rows", type=int, default=STEP, help="rows between two writings of a table")
    parser.add_argument(
        "--commit", action="store_true", help="each step's results, in the checkout they are in"
    )
    options = parser.parse_args()
    from studies.spreading import spread_over  # loads torch, which the help does without

    try:
        with interruptible() as pressed, ConsoleObserver(pressed, quiet=False) as observer:
            clock = Clock(observer, 3600 * options.hours)
            plan = read_plan(options.plan)
            folders = (options.out, options.tables)
            done = {"done": Committing(folders)} if options.commit else {}
            with spread_over(options.on):
                gather(
                    plan,
                    options.data,
                    options.out,
                    observer=clock,
                    tables=options.tables,
                    step=options.rows,
                    **done,
                )
    except Stopped as stopped:
        print(f"{stopped}; the same line goes on")
    except BlemishError as error:
        raise SystemExit(f"studies: {error}") from None


if __name__ == "__main__":
    main()
