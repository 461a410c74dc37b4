from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor

from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.errors import ImageError
from blemish.training.patches import RandomPatches, make_loader, raising
from blemish.training.scene_patches import ScenePatches

H, W = 24, 40
COLUMNS = slice(4, 30)


@pytest.fixture
def readers(tmp_path: Path) -> list[SceneReader]:
    """Readers of two scenes of two sensors; every pixel of the first sensor has a value of its own."""
    for number, name in enumerate(["adam", "eve"]):
        (tmp_path / name).mkdir()
        values = np.arange(H * W, dtype=np.uint16).reshape(H, W) + number * H * W
        tifffile.imwrite(tmp_path / name / "a.tif", values, tile=(16, 16))
        tifffile.imwrite(tmp_path / name / "b.tif", np.full((H, W), np.nan, np.float32))
    return [SceneReader(scene) for scene in find_scenes(tmp_path)]


def source(readers: list[SceneReader], **options: Any) -> ScenePatches:
    return ScenePatches(readers, [COLUMNS] * len(readers), **{"flips": False, **options})


def drawn(patches: ScenePatches, *, seed: int = 0, start: int = 0, stop: int = 40, patch: int = 8) -> Tensor:
    found = RandomPatches(patches, patch, seed=seed, start=start, stop=stop)
    each = [found[index] for index in range(len(found))]
    return torch.stack([one for one in each if isinstance(one, Tensor)])


def numbers(patch: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.rint(patch * 65535).astype(np.int64)


def test_seed_and_index_alone_decide(readers: list[SceneReader]) -> None:
    patches = source(readers, flips=True)
    whole = drawn(patches)
    assert whole.shape == (40, 2, 8, 8)
    torch.testing.assert_close(drawn(patches, start=7), whole[7:], equal_nan=True, rtol=0, atol=0)
    assert not torch.equal(drawn(patches, seed=1)[:, 0], whole[:, 0])


def test_patches_lie_in_their_columns_anywhere(readers: list[SceneReader]) -> None:
    seen = set()
    for patch in drawn(source(readers), stop=3000).numpy():
        values = numbers(patch[0])
        number, top, left = (int(each) for each in np.unravel_index(values[0, 0], (2, H, W)))
        expected = np.arange(2 * H * W).reshape(2, H, W)[number, top : top + 8, left : left + 8]
        np.testing.assert_array_equal(values, expected)
        assert np.isnan(patch[1]).all()
        seen.add((number, top, left))
    assert {number for number, _, _ in seen} == {0, 1}
    assert {top for _, top, _ in seen} == set(range(H - 8 + 1))
    assert {left for _, _, left in seen} == set(range(4, 30 - 8 + 1))


def test_flips_are_the_eight_of_a_square(readers: list[SceneReader]) -> None:
    steps = {
        (int(v[0, 1] - v[0, 0]), int(v[1, 0] - v[0, 0]))
        for v in map(first, drawn(source(readers, flips=True)))
    }
    assert steps == {(a, b) for s in (1, -1) for t in (1, -1) for a, b in ((s, W * t), (W * s, t))}


def first(patch: Tensor) -> NDArray[np.int64]:
    return numbers(patch[0].numpy())


def test_patches_read_by_windows_equal_those_from_memory(readers: list[SceneReader]) -> None:
    needed = 2 * 2 * 4 * H * 26
    kept, read = source(readers, memory_limit=needed), source(readers, memory_limit=needed - 1)
    assert (kept.at_hand, read.at_hand) == (True, False)
    torch.testing.assert_close(drawn(kept), drawn(read), equal_nan=True, rtol=0, atol=0)


def test_workers_draw_the_same(readers: list[SceneReader]) -> None:
    patches = source(readers, memory_limit=0, flips=True)
    found = RandomPatches(patches, 8, seed=0, start=0, stop=40)
    batches = list(raising(make_loader(found, 8, workers=2)))
    torch.testing.assert_close(torch.cat(batches), drawn(patches), equal_nan=True, rtol=0, atol=0)


def test_absent_patches_are_drawn_again(tmp_path: Path) -> None:
    pixels = np.full((H, W), np.nan, np.float32)
    pixels[3, 20] = 0.5
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
    readers = [SceneReader(scene) for scene in find_scenes(tmp_path)]
    patches = drawn(source(readers), stop=20)
    assert (patches == 0.5).sum(dim=(1, 2, 3)).tolist() == [2] * 20
    pixels[3, 20] = np.nan
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
    with pytest.raises(ImageError, match="1000 random patches in a row were absent"):
        source(readers).draw(np.random.default_rng(0), 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_reaches_the_user_as_its_own_line(readers: list[SceneReader], workers: int) -> None:
    path = readers[1].scene.folder / "a.tif"
    path.write_bytes(path.read_bytes()[:1200])
    patches = RandomPatches(source(readers, memory_limit=0), 8, seed=0, start=0, stop=40)
    with pytest.raises(ImageError) as caught:
        list(raising(make_loader(patches, 8, workers=workers)))
    assert caught.value.path == path


def test_scenes_that_are_left_out_are_not_drawn(readers: list[SceneReader]) -> None:
    for options in ({}, {"memory_limit": 0}):
        rest = source(readers, **options).without([0])
        assert len(rest) == 1
        first = numbers(drawn(rest)[:, 0].numpy())
        assert first.min() >= H * W, "only values of the second scene"
        patches = source(readers[1:], **options)
        torch.testing.assert_close(drawn(rest), drawn(patches), equal_nan=True, rtol=0, atol=0)
