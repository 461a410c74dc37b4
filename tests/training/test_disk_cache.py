from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from blemish.training import disk_cache as shelf_room
from blemish.training.disk_cache import DiskCache, room


def test_what_was_put_is_got_in_any_order_and_is_an_array_of_its_own() -> None:
    shelf, rng = DiskCache(), np.random.default_rng(0)
    arrays = [rng.random(shape, np.float32) for shape in ((3, 5, 7), (1, 1, 1), (2, 300, 200))]
    arrays.append(rng.random((4, 6, 2), np.float32).transpose(2, 0, 1))  # not contiguous
    places = [shelf.put(array) for array in arrays]
    for number in (2, 0, 3, 1, 2):
        found = shelf.get(places[number])
        np.testing.assert_array_equal(found, arrays[number])
        found[:] = -1
        np.testing.assert_array_equal(shelf.get(places[number]), arrays[number])


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shelf = DiskCache()
    shelf.put(np.ones((1, 8, 8), np.float32))
    del shelf
    assert list(tmp_path.iterdir()) == []


def test_there_is_no_room_where_there_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert room() > 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert shelf_room.room() == 0
    with pytest.raises(OSError, match="absent"):
        DiskCache()
