from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from blemish.training.disk_cache import DiskCache, free_disk_bytes


def test_arrays_come_back_in_any_order_and_are_copies() -> None:
    cache, rng = DiskCache(), np.random.default_rng(0)
    arrays = [rng.random(shape, np.float32) for shape in ((3, 5, 7), (1, 1, 1), (2, 300, 200))]
    arrays.append(rng.random((4, 6, 2), np.float32).transpose(2, 0, 1))  # not contiguous
    slots = [cache.put(array) for array in arrays]
    for number in (2, 0, 3, 1, 2):
        found = cache.get(slots[number])
        np.testing.assert_array_equal(found, arrays[number])
        found[:] = -1
        np.testing.assert_array_equal(cache.get(slots[number]), arrays[number])


def test_the_temporary_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache = DiskCache()
    cache.put(np.ones((1, 8, 8), np.float32))
    del cache
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_has_no_free_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_disk_bytes() > 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert free_disk_bytes() == 0
    with pytest.raises(OSError, match="absent"):
        DiskCache()
