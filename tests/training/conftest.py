from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.data.datasets import Item
from blemish.data.maps import write_image
from blemish.preprocessing.transform import Preprocessing

PREPARATION = Preprocessing(channels=1, convert=False, kind="uint8", size=None)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Three grey images of soft stripes, 40 × 44 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    found = []
    for number in range(3):
        stripes = 0.5 + 0.3 * np.sin(np.arange(44) / (3 + number))
        path = folder / f"{number}.png"
        write_image(path, np.broadcast_to(stripes, (1, 40, 44)))
        found.append(Item(path, path.name))
    return found


@pytest.fixture
def preparation() -> Preprocessing:
    return PREPARATION
