"""Trainings whose loss is no longer a number: the error, and its remedy."""

from __future__ import annotations

import math
from pathlib import Path

from blemish.errors import BlemishError


class DivergedError(BlemishError):
    """A loss term is no longer a number."""


def refuse_nan(terms: dict[str, float], step: int, checkpoint: Path | None) -> None:
    """Raise DivergedError where a term is not finite."""
    for name, value in terms.items():
        if not math.isfinite(value):
            raise diverged(f"loss term '{name}' became {value} by", step, checkpoint)


def diverged(what: str, step: int, checkpoint: Path | None) -> DivergedError:
    """The error of a training that lost its numbers: ``what`` happened, and how to go on."""
    again = (
        f" with --overwrite; or keep what was good until then, the checkpoint in {checkpoint}, with --resume "
        "and a smaller training.steps"
        if checkpoint and checkpoint.exists()
        else ""
    )
    return DivergedError(
        f"{what} step {step}; lower training.learning_rate "
        f"or set training.precision=float32, and fit again{again}"
    )
