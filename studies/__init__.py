"""One file a paper: runs its protocol, and writes its figures and images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from blemish.errors import UsageError, nearest
from blemish.observer import Observer
from studies.result import StudyResult

STUDIES = ("bergmann2018", "kumar2025", "liu2022", "radli2022", "xie2019")
_OF_OTHER_LAYOUT = ("liu2022", "xie2019")
"""Studies without labelled images, which look at their data set's layout themselves."""
_OF_COMPARISONS = ("bergmann2018", "kumar2025")
"""Studies whose fits are comparisons of recipes, which can be spread over a cluster."""

__all__ = ["STUDIES", "StudyResult", "run_study"]


def run_study(
    name: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    quick: bool = False,
    seeds: Sequence[int] | None = None,
    settings: Sequence[str] = (),
    rows: int | None = None,
    on: str | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> StudyResult:
    """Run the study ``name``; results go to ``out``, finished parts of an earlier run are used again.

    Parameters
    ----------
    data: a data set in the MVTec layout; for ``liu2022`` a folder with photographs in ``train`` and ``test``, for
        ``xie2019`` one with scenes in ``train`` and perhaps ``test``. Without it the study draws images of
        its own.
    quick: minutes instead of the full length.
    seeds: one fit of every row for each; without them the study's own.
    settings: ``key=value`` overrides of all its recipes, after the study's own.
    rows: new fits at most; the table has the rows that are there, and the same call goes on with the next ones. Of
        ``bergmann2018``, ``kumar2025`` and ``radli2022``.
    on, workers: of the Ray cluster over which fits are spread, as :class:`~blemish.scale.cluster.JobSettings` takes them.
        Of ``bergmann2018`` and ``kumar2025``.

    Raises
    ------
    UsageError
        For an unknown study, or seeds that are none.
    RecipeError
        For a setting that does not fit.
    FileError
        When ``data`` cannot be read or ``out`` cannot be written.
    """
    if name not in STUDIES:
        raise UsageError(f"unknown study '{name}'; {nearest(name, STUDIES)}")
    if seeds is not None and (not seeds or min(seeds) < 0):
        raise UsageError("--seeds: give whole numbers of at least 0, such as 0,1,2")
    from blemish.data.layouts import read_labelled
    from blemish.storage.run_folder import refuse_unwritable

    refuse_unwritable(Path(out))
    module = import_module(f"studies.{name}")
    if data is not None and name not in _OF_OTHER_LAYOUT:
        getattr(module, "check", read_labelled)(Path(data))
    options = {}
    if rows is not None:
        if name in _OF_OTHER_LAYOUT:
            raise UsageError(f"--rows: the study {name} is run as a whole; leave it out")
        if rows < 0:
            raise UsageError("--rows: give a whole number of at least 0")
        options = {"rows": rows}
    if on is not None and name not in _OF_COMPARISONS:
        raise UsageError(
            f"--on: the fits of {name} are not spread; leave it out, or name {' or '.join(_OF_COMPARISONS)}"
        )
    from studies.spreading import spread_over

    with spread_over(on, workers):
        result: StudyResult = module.run(
            Path(out),
            data=None if data is None else Path(data),
            quick=quick,
            seeds=None if seeds is None else tuple(dict.fromkeys(seeds)),
            settings=tuple(settings),
            observer=observer or Observer(),
            **options,
        )
    return result
