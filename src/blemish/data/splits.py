"""Split of good images: for training, for early stopping, and for calibration."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from blemish.errors import UsageError

CALIBRATION_SHARE = 0.2
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Split:
    """The names of the images in each part, sorted; no name is in two parts."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    calibration: tuple[str, ...]


class SplitCounts(NamedTuple):
    """Number of images in each part."""

    train: int
    validation: int
    calibration: int


def plan_split(n: int, *, needed: int) -> SplitCounts:
    """Plan how many of ``n`` good images train, validate and calibrate.

    A fifth calibrates, or the ``needed`` images that a promise takes (``blemish.decision.needed``) where
    those are more, and at most half of ``n``. A tenth, at least one, validates; the rest trains.

    Raises
    ------
    UsageError
        Fewer than 3 images.

    Examples
    --------
    >>> plan_split(100, needed=19)
    SplitCounts(train=70, validation=10, calibration=20)
    >>> plan_split(60, needed=19)
    SplitCounts(train=35, validation=6, calibration=19)
    """
    if n < 3:
        raise UsageError(
            f"at least 3 good images are needed to train, validate and calibrate, not {n}; add more"
        )
    calibration = max(1, round(CALIBRATION_SHARE * n))
    if calibration < needed <= n / 2:
        calibration = needed
    validation = max(1, round(VALIDATION_SHARE * n))
    return SplitCounts(n - validation - calibration, validation, calibration)


def split_good(
    names: Sequence[str],
    *,
    seed: int,
    calibration: int,
    validation: int,
    groups: Mapping[str, Hashable] | None = None,
) -> Split:
    """Split names at random; the same names, seed and counts give the same parts, whatever the names' order.

    Images of equal content under different names may fall into different parts.

    Parameters
    ----------
    calibration, validation: least number of names in these parts; the last group may bring more.
    groups: that of each name; a group goes into one part as a whole. Without it each name is by itself.

    Raises
    ------
    UsageError
        A name appears twice, a count is below 0, or nothing is left to train on.
    """
    ordered = sorted(names)
    if len(set(ordered)) < len(ordered):
        raise UsageError("an image is listed twice; every name must be unique")
    if calibration < 0 or validation < 0 or calibration + validation >= len(ordered):
        raise UsageError(
            f"{len(ordered)} good images cannot give {calibration} to calibrate, {validation} to validate"
            " and some to train; add images"
        )
    together: dict[Hashable, list[str]] = {}
    for name in ordered:
        together.setdefault(groups[name] if groups else name, []).append(name)
    wholes = list(together.values())
    calibrating: list[str] = []
    validating: list[str] = []
    training: list[str] = []
    for index in np.random.default_rng(seed).permutation(len(wholes)):
        if len(calibrating) < calibration:
            calibrating += wholes[index]
        elif len(validating) < validation:
            validating += wholes[index]
        else:
            training += wholes[index]
    if not training:
        raise UsageError(
            f"{len(wholes)} groups of {len(ordered)} good images cannot give {calibration} images to calibrate, "
            f"{validation} to validate and some to train, with each group in one part; add groups"
        )
    return Split(tuple(sorted(training)), tuple(sorted(validating)), tuple(sorted(calibrating)))
