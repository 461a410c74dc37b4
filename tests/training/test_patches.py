from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blemish.data.items import Item
from blemish.data.maps import write_image
from blemish.errors import ImageError
from blemish.preprocessing.transform import Preprocessing
from blemish.training import patches as patches_room
from blemish.training.disk_cache import CacheSlot, DiskCache
from blemish.training.patches import PreprocessedImages, RandomPatches, make_loader, raising


def draw(
    images: PreprocessedImages, *, patch: int = 32, seed: int = 0, start: int = 0, stop: int = 12
) -> Tensor:
    patches = RandomPatches(images, patch, seed=seed, start=start, stop=stop)
    drawn = [patches[index] for index in range(len(patches))]
    return torch.stack([each for each in drawn if isinstance(each, Tensor)])


def test_seed_and_index_alone_decide(items: list[Item], preparation: Preprocessing) -> None:
    images = PreprocessedImages(items, preparation)
    whole = draw(images)
    assert whole.shape == (12, 1, 32, 32)
    assert whole.dtype == torch.float32
    assert torch.equal(draw(images), whole)
    assert torch.equal(draw(images, start=5), whole[5:])
    assert torch.equal(draw(images, stop=4), whole[:4])
    assert not torch.equal(draw(images, seed=1), whole)


def test_patches_are_cut_from_the_images(tmp_path: Path, preparation: Preprocessing) -> None:
    # Every pixel of both images has a value of its own, so a patch betrays where it was cut.
    values = np.arange(2 * 9 * 12).reshape(2, 1, 9, 12) / 255
    for number in range(2):
        write_image(tmp_path / f"{number}.png", values[number])
    items = [Item(tmp_path / f"{number}.png", f"{number}.png") for number in range(2)]
    seen = set()
    for patch in draw(PreprocessedImages(items, preparation), patch=8, stop=200):
        first = round(float(patch[0, 0, 0]) * 255)
        number, top, left = first // 108, first % 108 // 12, first % 12
        expected = torch.from_numpy(values[number][:, top : top + 8, left : left + 8]).float()
        torch.testing.assert_close(patch, expected)
        seen.add((number, top, left))
    assert seen == {(number, top, left) for number in range(2) for top in range(2) for left in range(5)}


def test_patches_hold_as_few_places_outside_the_image_as_they_can(
    tmp_path: Path, preparation: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "0.png", np.full((1, 20, 30), 0.5))
    images = PreprocessedImages([Item(tmp_path / "0.png", "0.png")], preparation)
    cut = np.full((1, 20, 30), 0.5, np.float32)
    cut[0, :, 12:] = np.nan
    cut[0, :, 0] = 0.25
    monkeypatch.setattr(images, "_preprocessed", lambda index: cut)
    drawn = draw(images, patch=8, stop=100)
    lefts = {bool((patch == 0.25).any()) for patch in drawn}
    assert lefts == {True, False}  # several positions, all of them inside
    assert {float(patch.max()) for patch in drawn} == {0.5}
    cut[0, :, :12] = np.linspace(0, 1, 12)
    assert {float(patch[0, 0, 0]) for patch in draw(images, patch=8, stop=100)} == set(cut[0, 0, :5].tolist())
    # Of 16 columns 12 are inside at best, and the last of them is repeated.
    for patch in draw(images, patch=16, stop=20):
        assert torch.isfinite(patch).all()
        torch.testing.assert_close(patch[0, :, :12], torch.from_numpy(cut[0, :16, :12]))
        assert (patch[0, :, 12:] == 1).all()


def test_images_are_the_same_in_memory_on_disk_and_read_anew(
    items: list[Item], preparation: Preprocessing
) -> None:
    kept = PreprocessedImages(items, preparation)
    shelved = PreprocessedImages(items, preparation, memory_limit=0)
    read = PreprocessedImages(items, preparation, memory_limit=0, disk_limit=0)
    for images in (shelved, read):
        assert torch.equal(draw(images), draw(kept))
        assert torch.equal(draw(images), draw(kept))  # some are on disk now
    assert [one.at_hand for one in (kept, shelved, read)] == [True, True, False]
    assert [one.on_disk for one in (kept, shelved, read)] == [False, True, False]
    assert [len(one._kept) for one in (kept, shelved, read)] == [3, 3, 0]
    assert len(kept) == len(shelved) == len(read) == 3


def test_at_most_half_of_the_free_disk_is_used(
    items: list[Item], preparation: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 3 * 4 * 40 * 44
    for room, fits in ((2 * needed, True), (2 * needed - 2, False), (0, False)):
        monkeypatch.setattr(patches_room, "free_disk_bytes", lambda room=room: room)
        assert PreprocessedImages(items, preparation, memory_limit=0).at_hand is fits


def test_all_images_can_be_preprocessed_in_advance(items: list[Item], preparation: Preprocessing) -> None:
    images = PreprocessedImages(items, preparation, memory_limit=0)
    expected = draw(PreprocessedImages(items, preparation))
    fewer = draw(PreprocessedImages([items[0], items[2]], preparation))
    assert list(images.preprocess_all()) == [1, 2, 3]
    for item in items:
        item.path.unlink()
    assert torch.equal(draw(images), expected)
    assert torch.equal(draw(images.without([1])), fewer)


def test_a_full_disk_cache_changes_no_patch(
    items: list[Item], preparation: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = PreprocessedImages(items, preparation, memory_limit=0)
    put = DiskCache.put

    def full(self: DiskCache, values: np.ndarray) -> CacheSlot:
        if self._end:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(self, values)

    monkeypatch.setattr(DiskCache, "put", full)
    assert list(images.preprocess_all()) == [1]
    assert not images.at_hand
    assert torch.equal(draw(images), draw(PreprocessedImages(items, preparation)))


def test_the_limit_counts_the_bytes_of_all_prepared_images(items: list[Item]) -> None:
    own = Preprocessing(channels=1, convert=False, kind="uint8", size=None)
    larger = Preprocessing(channels=3, convert=True, kind="uint8", size=80)
    for preparation, size in [(own, 3 * 4 * 40 * 44), (larger, 3 * 4 * 3 * 80 * 88)]:
        assert not PreprocessedImages(items, preparation, memory_limit=size).on_disk
        assert PreprocessedImages(items, preparation, memory_limit=size - 1, disk_limit=size).on_disk
        assert not PreprocessedImages(items, preparation, memory_limit=0, disk_limit=size - 1).at_hand


def test_images_in_memory_are_read_once(items: list[Item], preparation: Preprocessing) -> None:
    images = PreprocessedImages(items, preparation)
    before = draw(images)
    for item in items:
        item.path.unlink()
    assert torch.equal(draw(images), before)


@pytest.mark.parametrize("limit", [2**30, 0])
def test_an_image_smaller_than_a_patch_is_padded(
    items: list[Item], preparation: Preprocessing, limit: int
) -> None:
    images = PreprocessedImages(items, preparation, memory_limit=limit)
    assert images[0].shape == (1, 40, 44)
    patches = draw(images, patch=64)
    assert patches.shape == (12, 1, 64, 64)
    own = [torch.from_numpy(images[number]) for number in range(3)]
    for patch in patches:
        assert any(torch.equal(patch[:, 12:52, 10:54], image) for image in own)
        assert torch.equal(patch[:, 11], patch[:, 13])  # mirrored about the first row


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_reaches_the_user_as_its_own_line(
    items: list[Item], preparation: Preprocessing, workers: int
) -> None:
    images = PreprocessedImages(items, preparation, memory_limit=0, disk_limit=0)
    items[1].path.write_bytes(b"no image")
    patches = RandomPatches(images, 32, seed=0, start=0, stop=12)
    with pytest.raises(ImageError) as caught:
        list(raising(make_loader(patches, 4, workers=workers)))
    assert caught.value.path == items[1].path
    assert "\n" not in str(caught.value)


def test_batches_keep_the_order_and_the_last_may_be_partial(
    items: list[Item], preparation: Preprocessing
) -> None:
    images = PreprocessedImages(items, preparation)
    batches = list(raising(make_loader(RandomPatches(images, 32, seed=0, start=0, stop=10), 4)))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.equal(torch.cat(batches), draw(images, stop=10))


@pytest.mark.parametrize("limit", [2**30, 0])
def test_patches_without_some_images_depend_on_seed_index_and_the_list_alone(
    items: list[Item], preparation: Preprocessing, limit: int
) -> None:
    images = PreprocessedImages(items, preparation, memory_limit=limit)
    expected = draw(PreprocessedImages([items[0], items[2]], preparation))
    assert torch.equal(draw(images.without([1])), expected)
    whole = draw(images)  # some are in memory now
    assert torch.equal(draw(images.without({1})), expected)
    assert torch.equal(draw(images.without([])), whole)
    assert torch.equal(draw(images), whole)
    assert len(images.without([0, 1])) == 1
