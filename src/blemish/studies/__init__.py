"""One file a paper: runs its protocol, and writes its figures and pictures."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from blemish.errors import UsageError, nearest
from blemish.observer import Observer
from blemish.studies.result import StudyResult

STUDIES = ("bergmann2018",)

__all__ = ["STUDIES", "StudyResult", "run_study"]


def run_study(
    name: str, out: str | Path, *, quick: bool = False, observer: Observer | None = None
) -> StudyResult:
    """Run the study ``name``; results go to ``out``, finished parts of an earlier run are used again.

    Raises
    ------
    UsageError
        For an unknown study.
    FileError
        When ``out`` cannot be written.
    """
    if name not in STUDIES:
        raise UsageError(f"unknown study '{name}'; {nearest(name, STUDIES)}")
    from blemish.fitting import refuse_unwritable

    refuse_unwritable(Path(out))
    module = import_module(f"blemish.studies.{name}")
    result: StudyResult = module.run(Path(out), quick=quick, observer=observer or Observer())
    return result
