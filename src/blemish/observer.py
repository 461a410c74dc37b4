"""Progress of long work, and the request to stop it; shown by the command line, optional for library callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish.errors import BlemishError

if TYPE_CHECKING:
    from blemish.training.contracts import Progress


class Observer:
    """Receives the progress of long work; override the methods that matter, all do nothing by default."""

    def stage(self, text: str) -> None:
        """Report that a new stage of the work begins."""

    def count(self, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` images of the current stage are finished."""

    def training(self, progress: Progress) -> None:
        """Report the progress of training after some steps."""

    def problem(self, error: BlemishError) -> None:
        """Report a file that could not be used; the work continues with the others."""

    def should_stop(self) -> bool:
        """Request a stop by returning True; asked after every training step and every image."""
        return False
