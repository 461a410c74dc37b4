"""Fits of a study spread over a Ray cluster: each recipe and seed is a task of its own.

Fits are kept in a folder that all workers see, each in one of its own until it is finished, so that no two share a lock. What is
stopped or killed goes on from its checkpoint, here or there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from blemish.errors import BlemishError, Stopped, UsageError
from blemish.evaluation.compare import compare
from blemish.observer import Observer
from blemish.report.numbers import counted
from blemish.scale.cluster import JobSettings, connected
from blemish.scale.stream import cluster_errors_in_words

APART = "apart"
"""Folder of fits that are not finished, in that of the fits."""
_SECONDS = 1.0
"""Between two looks whether to stop."""
_spreads: ContextVar[bool] = ContextVar("spreads", default=False)


@contextmanager
def spread_over(on: str | None, workers: int | None = None) -> Iterator[None]:
    """Spread the fits of every comparison in the block over the cluster ``on``; over nothing without one.

    Raises
    ------
    UsageError
        ``on`` is no address, or one of a client, which does not share the folder of the fits.
    BlemishError
        There is no such cluster.
    """
    if on is None:
        yield
        return
    job = JobSettings(on, workers)
    job.check()
    if job.is_client:
        raise UsageError(
            f"--on {on}: fits lie in a folder that all workers see; use local, auto or HOST:PORT"
        )
    with connected(job):
        token = _spreads.set(True)
        try:
            yield
        finally:
            _spreads.reset(token)


def is_spread() -> bool:
    """Whether fits are spread over a cluster now."""
    return _spreads.get()


def fit_apart(
    fits: Sequence[tuple[str, int]],
    recipes: Mapping[str, Sequence[str]],
    data: Path,
    work: Path,
    settings: Sequence[str],
    observer: Observer,
) -> None:
    """Fit and evaluate each (recipe, seed) of ``fits`` as a task; ``work`` has them afterwards as ``compare`` leaves them.

    Parameters
    ----------
    recipes: settings of each recipe of its own, which come before the common ``settings``.

    Raises
    ------
    Stopped
        When the observer asked to stop; what is finished is kept, and the others go on from their checkpoints.
    BlemishError
        The first error of a fit, when the others are finished; or the cluster failed.
    """
    import ray

    run = ray.remote(max_retries=-1)(fit_one)
    paths = data.resolve(), work.resolve()
    waiting = {
        run.remote(*paths, name, tuple(recipes[name]), seed, tuple(settings)): (name, seed)
        for name, seed in fits
    }
    observer.stage(f"Spreading {counted(len(fits), 'fit')} over the cluster")
    errors: list[BlemishError] = []
    while waiting:
        ready, _ = ray.wait(list(waiting), timeout=_SECONDS)
        for one in ready:
            name, seed = waiting.pop(one)
            error = _error_of(one)
            errors += [error] if error else []
            observer.stage(f"{name}, seed {seed}: {error or 'finished'}")
            observer.count(len(fits) - len(waiting), len(fits))
        if waiting and observer.should_stop():
            for one in waiting:
                ray.cancel(one, force=True)
            raise Stopped(f"stopped after {len(fits) - len(waiting)} of {len(fits)} fits, which are finished")
    if errors:
        raise errors[0]


def _error_of(task: object) -> BlemishError | None:
    """The error by which a task ended; None of one that ended well."""
    import ray

    try:
        with cluster_errors_in_words("run the study again"):
            ray.get(task)
    except BlemishError as error:
        return error
    return None


def fit_one(
    data: Path, work: Path, name: str, own: tuple[str, ...], seed: int, settings: tuple[str, ...]
) -> None:
    """Fit and evaluate one recipe with one seed in a folder of its own, which moves to ``work`` when it is finished."""
    folder = f"{name}-{seed}"
    apart = work / APART / folder
    if (work / folder).is_dir():  # not finished by an earlier run
        apart.mkdir(parents=True, exist_ok=True)
        (work / folder).rename(apart / folder)
    compare(data, {name: own}, apart, seeds=(seed,), settings=settings, pages=False, baselines=False)
    (apart / folder).rename(work / folder)
