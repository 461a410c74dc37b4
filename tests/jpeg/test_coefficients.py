from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.errors import UsageError
from blemish.jpeg import Coefficients, Plane
from blemish.jpeg.coefficients import block_counts

TABLE = np.full((8, 8), 10, np.uint16)


def blocks(rows: int, columns: int) -> NDArray[np.int16]:
    return np.zeros((rows, columns, 8, 8), np.int16)


@pytest.mark.parametrize(
    ("width", "height", "luma", "chroma"),
    [
        (1, 1, (1, 1), (1, 1)),
        (16, 8, (1, 2), (1, 1)),
        (17, 9, (2, 3), (1, 2)),
        (768, 513, (65, 96), (33, 48)),
    ],
)
def test_blocks_are_those_that_hold_pixels(
    width: int, height: int, luma: tuple[int, int], chroma: tuple[int, int]
) -> None:
    assert block_counts(width, height, 3, "4:2:0") == [luma, chroma, chroma]
    assert block_counts(width, height, 3, "4:4:4") == [luma] * 3
    assert block_counts(width, height, 1, "4:4:4") == [luma]


def test_equal_when_all_values_are() -> None:
    one, other = (Coefficients(8, 8, (Plane(blocks(1, 1), TABLE.copy()),), "4:4:4") for _ in range(2))
    assert one == other
    other.planes[0].coefficients[0, 0, 7, 7] = 1
    assert one != other
    assert one != Coefficients(7, 8, one.planes, "4:4:4")
    assert one.planes[0] != Plane(blocks(1, 1), TABLE + np.uint16(1))


@pytest.mark.parametrize(
    ("planes", "sampling", "size", "word"),
    [
        ((blocks(2, 2),), "4:4:4", (8, 8), "int16 \\(1, 1, 8, 8\\)"),
        ((blocks(1, 1),), "4:2:0", (8, 8), "4:2:0"),
        ((blocks(1, 1),) * 2, "4:4:4", (8, 8), "2 planes"),
        ((blocks(2, 2),) * 3, "4:2:0", (16, 16), "plane 1"),
        ((blocks(1, 1).astype(np.int32),), "4:4:4", (8, 8), "int32"),
        ((blocks(1, 1),), "4:4:4", (0, 8), "0 × 8"),
        ((blocks(1, 1),), "4:4:4", (8, 65501), "65501"),
    ],
)
def test_refuses_what_does_not_fit(
    planes: tuple[NDArray[np.int16], ...], sampling: str, size: tuple[int, int], word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        Coefficients(*size, tuple(Plane(plane, TABLE) for plane in planes), sampling)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 256])
def test_refuses_tables_of_more_than_8_bits(value: int) -> None:
    table = TABLE.copy()
    table[3, 4] = value
    with pytest.raises(UsageError, match="1 to 255"):
        Coefficients(8, 8, (Plane(blocks(1, 1), table),), "4:4:4")


@pytest.mark.parametrize(
    ("place", "value", "fits"),
    [
        ((0, 0), -1024, True),
        ((0, 0), 1023, True),
        ((0, 0), 1024, False),
        ((0, 0), -1025, False),
        ((0, 1), -1023, True),
        ((7, 7), -1024, False),
        ((7, 7), 1024, False),
    ],
)
def test_refuses_coefficients_that_no_file_stores(place: tuple[int, int], value: int, fits: bool) -> None:
    coefficients = blocks(1, 2)
    coefficients[0, 1][place] = value
    plane = Plane(coefficients, TABLE)
    if fits:
        assert Coefficients(16, 8, (plane,), "4:4:4").planes[0] == plane
    else:
        with pytest.raises(UsageError, match="beyond"):
            Coefficients(16, 8, (plane,), "4:4:4")
