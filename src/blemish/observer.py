"""Progress of long work, and the request to stop it; shown by the command line, optional for library callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish.errors import BlemishError

if TYPE_CHECKING:
    from blemish.training.contracts import Progress


class Observer:
    """Receives the progress of long work; override the methods that matter, all do nothing by default."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""

    def count(self, done: int, total: int) -> None:
        """``done`` of ``total`` images of the present stage are finished."""

    def training(self, progress: Progress) -> None:
        """Training has made some steps."""

    def problem(self, error: BlemishError) -> None:
        """One file could not be used; the work goes on with the others."""

    def should_stop(self) -> bool:
        """Asked after every training step and every image; True ends the work in good order."""
        return False
