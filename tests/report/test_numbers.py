from __future__ import annotations

import math

import pytest

from blemish.report.numbers import aligned, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (1234567, "1234567"),
        (0.083812, "0.0838"),
        (999.6, "1000"),
        (-0.5, "-0.5"),
        (1e-9, "1e-9"),
        (1.5e20, "1.5e20"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_number_keeps_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("value", [0.00012345, 0.012345, 1.2345, 123.45, 12345.6, 3.3e-7])
def test_number_reads_back_within_its_digits(value: float) -> None:
    assert float(number(value, 4)) == pytest.approx(value, rel=5e-4)


def test_aligned_numbers_share_their_decimals() -> None:
    assert aligned([0.5, 0.25, 3.0]) == ["0.50", "0.25", "3.00"]
    assert aligned([1, 20, 300]) == ["1", "20", "300"]
    assert aligned([0.5, math.inf]) == ["0.5", "inf"]
    assert aligned([]) == []
