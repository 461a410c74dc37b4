"""Choice of an ensemble's members by a few confirmed defects.

Without them all members count. A member is left out only where that separates defects from good images
clearly better, also for kinds of defect that had no say in the choice; so what a few defects of one kind teach cannot
cost much on the others. The defects take no part in the calibration, whose promise on good images stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.decision import roc_auc
from blemish.decision.metrics import auroc_standard_error

Floats64 = NDArray[np.float64]
FEWEST = 3
"""Defects, at least, that members are chosen by."""


class MemberChoice(NamedTuple):
    """Members that count, by their numbers, and the figures that they were chosen by."""

    members: tuple[int, ...]
    auroc: float
    """Of all defects against held-out good images, by these members."""
    all_auroc: float
    """By all members."""


def choose_members(
    score: Callable[[Sequence[int]], tuple[Floats64, Floats64]],
    members: Sequence[int],
    groups: Sequence[Hashable],
) -> MemberChoice:
    """Members that separate confirmed defects from held-out good images clearly better than all do, else all.

    Clearly is by more than one standard error of the area under the ROC curve, and by no less than all on each group
    of defects when the choice is made on the other groups.

    Parameters
    ----------
    score: scores of the good images and of the defects by some of the members.
    members: numbers of the members.
    groups: of each defect, such as its kind; where all are of one group, each defect is one.
    """
    if len(set(groups)) == 1:
        groups = range(len(groups))
    subsets = [some for size in range(len(members), 0, -1) for some in combinations(members, size)]
    scored = {some: score(some) for some in subsets}
    everything = tuple(members)

    def auroc(some: tuple[int, ...], chosen: Sequence[bool]) -> float:
        good, defects = scored[some]
        own = defects[np.asarray(chosen)]
        return roc_auc(np.repeat([False, True], [len(good), len(own)]), np.concatenate([good, own]))

    def best(chosen: Sequence[bool]) -> tuple[int, ...]:
        # Of equals the first, which has most members.
        return max(subsets, key=lambda some: auroc(some, chosen))

    every = [True] * len(groups)
    found, before = best(every), auroc(everything, every)
    if len(groups) < FEWEST or found == everything:
        return MemberChoice(everything, before, before)
    names = list(dict.fromkeys(groups))
    left_out = [[group == name for group in groups] for name in names]
    crossed = np.mean([auroc(best([not one for one in own]), own) for own in left_out])
    unchanged = np.mean([auroc(everything, own) for own in left_out])
    error = auroc_standard_error(before, len(scored[everything][0]), len(groups))
    after = auroc(found, every)
    if after - before <= error or crossed < unchanged:
        return MemberChoice(everything, before, before)
    return MemberChoice(found, after, before)
