from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.errors import PictureError
from blemish.images import Picture, Preparation


def picture(channels: int, kind: str = "uint8") -> Picture:
    pixels = np.random.default_rng(channels).integers(0, 256, (channels, 9, 12)).astype(kind)
    return Picture(Path("part.tif"), pixels)


def test_kept_as_it_is_where_nothing_has_to_change() -> None:
    own = Preparation(channels=5, convert=False, kind="uint8", size=None)
    np.testing.assert_array_equal(own.prepare(picture(5)), picture(5).floats())


@pytest.mark.parametrize(("have", "want"), [(1, 3), (3, 1), (4, 3), (2, 1)])
def test_converted_and_resized_where_wanted(have: int, want: int) -> None:
    prepared = Preparation(channels=want, convert=True, kind="uint8", size=18).prepare(picture(have))
    assert (prepared.shape, prepared.dtype) == ((want, 18, 24), np.float32)
    assert 0 <= prepared.min() <= prepared.max() <= 1


@pytest.mark.parametrize(
    ("preparation", "given", "words"),
    [
        (Preparation(channels=4, convert=True, kind="uint8", size=None), picture(1), "1 channels"),
        (Preparation(channels=3, convert=True, kind="uint8", size=None), picture(5), "5 channels"),
        (Preparation(channels=1, convert=False, kind="uint8", size=None), picture(3), "has 3 channels"),
        (Preparation(channels=1, convert=False, kind="uint16", size=None), picture(1), "is 8-bit"),
    ],
    ids=["grey for four channels", "five channels for three", "colour for grey", "8-bit for 16-bit"],
)
def test_a_picture_that_does_not_fit_is_refused_by_its_name(
    preparation: Preparation, given: Picture, words: str
) -> None:
    with pytest.raises(PictureError, match=words) as refusal:
        preparation.prepare(given)
    assert str(refusal.value).startswith("part.tif: ")
