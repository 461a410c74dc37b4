from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from blemish.data.maps import write_image
from blemish.data.modality import Modality, modality_files
from blemish.errors import ImageError


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((1, 8, 8), 0.5))


def test_grey_exactly_for_three_channels_unless_given() -> None:
    assert [Modality(name="a", channels=c).is_grey for c in (1, 2, 3, 4)] == [False, False, True, False]
    assert not Modality(name="a", channels=3, grey=False).is_grey
    assert Modality(name="a", channels=1, grey=True).is_grey


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": ".a"},
        {"channels": 0},
        {"range": (5, 5)},
        {"range": (0, float("inf"))},
        {"file": "../a.tif"},
        {"file": "/a.tif"},
        {"file": "a_{line}.tif"},
        {"file": "a_{row}_{row}.tif"},
        {"file": "{row}/a.tif"},
    ],
)
def test_values_that_no_modality_can_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Modality.model_validate({"name": "a", "channels": 1, **wrong})


def test_files_of_a_grid_are_found_by_number(tmp_path: Path) -> None:
    modality = Modality(name="x", channels=1, file="scans/x_{row}_{column}.png")
    places = {(1, 9): "x_01_9.png", (1, 10): "x_01_10.png", (2, 9): "x_02_9.png"}
    for name in places.values():
        image(tmp_path / "scans" / name)
    image(tmp_path / "scans" / "x_3.png")
    assert modality_files(tmp_path, modality) == {
        place: tmp_path / "scans" / name for place, name in places.items()
    }
    assert modality_files(tmp_path / "scans", modality) == {}
    image(tmp_path / "scans" / "x_1_9.png")
    with pytest.raises(ImageError, match="stands where"):
        modality_files(tmp_path, modality)
