"""Drawings of the judged area."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blemish.errors import ServeError, UsageError
from blemish.serve.area_drawing import AreaDrawing, area_of_image, drawing_of
from tests.serve.areas import left
from tests.serve.serving import png


def test_what_is_judged_and_not_ignored_is_the_area() -> None:
    box: list[Any] = [(2, 1), (8, 1), (8, 6), (2, 6)]
    hole: list[Any] = [(4, 3), (5, 3), (5, 4), (4, 4)]
    expected = np.zeros((10, 12), bool)
    expected[1:7, 2:9] = True
    expected[3:5, 4:6] = False
    drawn = AreaDrawing(width=12, height=10, judge=[box], ignore=[hole]).area()
    assert np.array_equal(drawn.mask(10, 12), expected)
    only_ignored = AreaDrawing(width=12, height=10, ignore=[box]).area().mask(10, 12)
    assert not only_ignored[1:7, 2:9].any()
    assert only_ignored.sum() == 120 - 42


@pytest.mark.parametrize(
    ("drawing", "words"),
    [
        (AreaDrawing(width=12, height=10, judge=[[(1, 1), (2, 2)]]), "has 2 corners"),
        (AreaDrawing(width=4, height=4, ignore=[[(-1, -1), (9, -1), (9, 9), (-1, 9)]]), "leaves nothing to judge"),
        (AreaDrawing(width=32_000, height=32_000), "more than 400000000 pixels"),
    ],
)  # fmt: skip
def test_drawings_that_are_no_area_are_refused(drawing: AreaDrawing, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        drawing.area()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"width": 0, "height": 3}', b'{"width": 4, "height": 3, "x": 1}']
)
def test_json_that_is_no_drawing_is_one_line(content: bytes) -> None:
    with pytest.raises(ServeError, match="the mask is") as error:
        drawing_of(content)
    assert "\n" not in str(error.value)


def test_an_image_marks_what_is_not_black() -> None:
    marked = np.zeros((40, 48), np.uint8)
    marked[:, :17] = 255
    assert area_of_image(png(marked)).runs == left().area().runs
