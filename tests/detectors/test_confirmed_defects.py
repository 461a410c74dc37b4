from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from blemish.detectors.confirmed_defects import choose_members

GOOD = np.random.default_rng(0).standard_normal(40)


def scorer(shifts: dict[int, Sequence[float]]) -> Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]:
    """Scores of members whose good images are alike and whose defects lie ``shifts`` above them; noise is averaged."""

    def score(some: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        return GOOD, np.mean([shifts[number] for number in some], axis=0)

    return score


def test_a_member_that_sees_no_defect_is_left_out() -> None:
    choice = choose_members(scorer({0: [0.0] * 12, 1: [2.0] * 12, 2: [2.0] * 12}), [0, 1, 2], ["a", "b"] * 6)
    assert choice.members == (1, 2)
    assert choice.auroc > choice.all_auroc


def test_all_stay_where_the_difference_is_within_the_error() -> None:
    choice = choose_members(scorer({0: [1.5] * 4, 1: [1.7] * 4}), [0, 1], ["a", "b"] * 2)
    assert choice.members == (0, 1)
    assert choice.auroc == choice.all_auroc


def test_all_stay_where_the_choice_would_harm_a_kind_that_had_no_say() -> None:
    """Member 0 alone finds kind a, of which there are many, and is blind to kind b."""
    shifts = {0: [3.0] * 20 + [-1.0] * 4, 1: [-1.0] * 20 + [3.0] * 4}
    groups = ["a"] * 20 + ["b"] * 4
    assert choose_members(scorer(shifts), [0, 1], groups).members == (0, 1)
    # Without b nothing speaks against it.
    alone = {number: values[:20] for number, values in shifts.items()}
    assert choose_members(scorer(alone), [0, 1], ["a"] * 20).members == (0,)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_defects_change_nothing(count: int) -> None:
    choice = choose_members(scorer({0: [-3.0] * count, 1: [3.0] * count}), [0, 1], ["a"] * count)
    assert choice.members == (0, 1)
