"""Who is told what long work is doing; the command line shows it, a library caller may ignore it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish.errors import BlemishError

if TYPE_CHECKING:
    from blemish.training.contracts import Progress


class Observer:
    """Override what you want to hear of; by default nothing is said and nothing stops the work."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""

    def count(self, done: int, total: int) -> None:
        """So many images of the present stage are done."""

    def training(self, progress: Progress) -> None:
        """Training has made some steps."""

    def problem(self, error: BlemishError) -> None:
        """One file could not be used; the work goes on with the others."""

    def should_stop(self) -> bool:
        """Asked after every training step and every image; True ends the work in good order."""
        return False
