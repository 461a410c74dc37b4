from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from blemish.serve.history.score_bins import LOWEST, PER_DOUBLING, lower_edge, score_bin


def test_bins_rise_with_scores_and_hold_exactly_what_is_between_their_edges() -> None:
    rng = np.random.default_rng(0)
    scores = np.sort(
        np.concatenate([10 ** rng.uniform(-12, 12, 3000), rng.uniform(0, 2, 3000), [0.0, 1.0, 2.0]])
    )
    bins = [score_bin(float(score)) for score in scores]
    assert bins == sorted(bins)
    for score, number in zip(scores.tolist(), bins, strict=True):
        assert lower_edge(number) <= score < lower_edge(number + 1) or score == 0


def test_an_edge_is_the_least_score_of_its_bin() -> None:
    for number in range(-200, 200):
        edge = lower_edge(number)
        assert score_bin(edge) == number
        assert score_bin(math.nextafter(edge, -math.inf)) == number - 1
        assert lower_edge(number + PER_DOUBLING) == 2 * edge


@pytest.mark.parametrize("score", [0.0, -0.0, -1e300])
def test_scores_at_or_below_zero_have_the_lowest_bin(score: float) -> None:
    assert score_bin(score) == LOWEST
    assert lower_edge(LOWEST) == -math.inf
    smallest = math.ulp(0.0)
    assert score_bin(smallest) > LOWEST
    assert lower_edge(score_bin(smallest)) <= smallest
    assert lower_edge(LOWEST + 1) > 0.0
    assert math.isfinite(lower_edge(score_bin(1.7976931348623157e308)))


def test_the_largest_score_has_a_bin_with_an_end() -> None:
    number = score_bin(sys.float_info.max)
    assert lower_edge(number) <= sys.float_info.max < lower_edge(number + 1) == math.inf
