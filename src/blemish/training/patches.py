"""Random patches of the training images, each a function of the seed and of its number."""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from blemish.data.image import image_info, read_image
from blemish.data.items import Item
from blemish.errors import BlemishError, within_memory
from blemish.preprocessing.absent import filled, inside_places
from blemish.preprocessing.tiling import TilePlan
from blemish.preprocessing.transform import Preprocessing
from blemish.training.disk_cache import CacheSlot, DiskCache, free_disk_bytes

MEMORY_LIMIT = 2**30
DISK_LIMIT = 2**33
THREADS = 2


class PatchSource(Protocol):
    """Images or scenes that patches are drawn from."""

    @property
    def at_hand(self) -> bool:
        """True if a patch costs no decoding."""

    def __len__(self) -> int:
        """Number of images or scenes."""

    def draw(self, rng: np.random.Generator, patch: int) -> NDArray[np.float32]:
        """A random patch (C, P, P) in [0, 1], determined by ``rng``; NaN where a scene has no values."""

    def without(self, left_out: Collection[int]) -> PatchSource:
        """The images or scenes but those of the numbers ``left_out``."""


class PreprocessedImages:
    """Preprocessed images by number; each is preprocessed at its first use, and then kept.

    They are kept in memory while all fit in ``memory_limit`` bytes; beyond that in a disk cache, while they fit in
    ``disk_limit`` bytes and in half of the free space. Beyond that too, each is read and preprocessed at every use, so
    memory and disk stay bounded whatever the size of the data set.
    """

    def __init__(
        self,
        items: Sequence[Item],
        preprocessing: Preprocessing,
        *,
        memory_limit: int = MEMORY_LIMIT,
        disk_limit: int = DISK_LIMIT,
    ) -> None:
        self._items = items
        self._preprocessing = preprocessing
        needed = self._bytes()
        self._in_memory = needed <= memory_limit
        self._cache: DiskCache | None = None
        if not self._in_memory and needed <= min(disk_limit, free_disk_bytes() // 2):
            with suppress(OSError):
                self._cache = DiskCache()
        self._kept: dict[int, NDArray[np.float32] | CacheSlot] = {}

    @property
    def at_hand(self) -> bool:
        """True if images are kept after their first use."""
        return self._in_memory or self.on_disk

    @property
    def on_disk(self) -> bool:
        """True if they are kept in a disk cache."""
        return self._cache is not None

    def _bytes(self) -> int:
        sides = (image_info(item.path) for item in self._items)
        pixels = sum(math.prod(self._preprocessing.scaled(info.height, info.width)) for info in sides)
        return 4 * self._preprocessing.channels * pixels

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """(C, h, w) floats in [0, 1]; NaN at the places outside the image."""
        kept = self._kept.get(index)
        if isinstance(kept, np.ndarray):
            return kept
        if kept is not None and self._cache is not None:
            return self._cache.get(kept)
        pixels = self._preprocessed(index)
        self._keep(index, pixels)
        return pixels

    def preprocess_all(self) -> Iterator[int]:
        """Preprocess all images that can be kept, two at a time; gives the number done, after each.

        Raises
        ------
        ImageError
            When an image cannot be read.
        """
        pool = ThreadPoolExecutor(THREADS)
        try:
            for index, pixels in enumerate(pool.map(self._preprocessed, range(len(self)))):
                self._keep(index, pixels)
                if not self.at_hand:
                    return
                yield index + 1
        finally:
            pool.shutdown(cancel_futures=True)

    def _preprocessed(self, index: int) -> NDArray[np.float32]:
        path = self._items[index].path
        with within_memory(path):
            return self._preprocessing.apply(read_image(path)).model_input

    def _keep(self, index: int, pixels: NDArray[np.float32]) -> None:
        if self._in_memory:
            self._kept[index] = pixels
        elif self._cache is not None:
            try:
                self._kept[index] = self._cache.put(pixels)
            except OSError:  # another program has filled the disk
                self._cache = None
                self._kept.clear()

    def without(self, left_out: Collection[int]) -> PreprocessedImages:
        """The images but those of the numbers ``left_out``; kept images are shared."""
        stay = [index for index in range(len(self)) if index not in left_out]
        others = copy.copy(self)
        others._items = [self._items[index] for index in stay]
        others._kept = {place: self._kept[index] for place, index in enumerate(stay) if index in self._kept}
        return others

    def draw(self, rng: np.random.Generator, patch: int) -> NDArray[np.float32]:
        """A patch (C, P, P) of an image drawn uniformly, at a position drawn uniformly.

        Of an image with places outside it the position is drawn among those with the fewest of them in the patch, so
        that the loss counts no invented pixel where that can be avoided.
        """
        pixels = self[int(rng.integers(len(self)))]
        inside = inside_places(pixels)
        plan = TilePlan(pixels.shape[1:], (patch, patch), (patch, patch))
        pixels = plan.pad(filled(pixels, inside))
        if inside is None:
            top, left = (int(rng.integers(side - patch + 1)) for side in pixels.shape[1:])
        else:
            absent = _counts(plan.pad(~inside[np.newaxis])[0], patch)
            rows, columns = np.nonzero(absent == absent.min())
            chosen = int(rng.integers(len(rows)))
            top, left = int(rows[chosen]), int(columns[chosen])
        return pixels[:, top : top + patch, left : left + patch].copy()


def _counts(mask: NDArray[np.bool_], patch: int) -> NDArray[np.int64]:
    """Number of marked pixels in the patch at each position of a mask (h, w): (h - P + 1, w - P + 1)."""
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    counts: NDArray[np.int64] = (
        sums[patch:, patch:] - sums[:-patch, patch:] - sums[patch:, :-patch] + sums[:-patch, :-patch]
    )
    return counts


class RandomPatches(Dataset["Tensor | BlemishError"]):
    """Patch ``i`` of the endless sequence that ``seed`` determines, (C, P, P) in [0, 1].

    Because every patch depends on (seed, index) alone, a run resumed at step k sees the same patches as an
    uninterrupted one.

    The error of an image that cannot be read takes the place of its patch: an exception in a worker of the loader
    would reach the user as a traceback.
    """

    def __init__(self, images: PatchSource, patch: int, *, seed: int, start: int, stop: int) -> None:
        self._images = images
        self._patch = patch
        self._seed = seed
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Tensor | BlemishError:
        rng = np.random.default_rng((self._seed, self._start + index))
        try:
            return torch.from_numpy(self._images.draw(rng, self._patch))
        except BlemishError as error:
            return error


class RowsOfBatches(Sampler[list[int]]):
    """Numbers of the patches of each batch that process ``rank`` of ``processes`` has: consecutive ones.

    >>> list(RowsOfBatches(12, 4, rank=1, processes=2))
    [[2, 3], [6, 7], [10, 11]]
    """

    def __init__(self, patches: int, batch: int, *, rank: int, processes: int) -> None:
        self._rows, self._rank, self._processes = batch // processes, rank, processes
        self._batches = patches // batch

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self._batches):
            first = (number * self._processes + self._rank) * self._rows
            yield list(range(first, first + self._rows))


def make_loader(
    patches: RandomPatches, batch: int, *, workers: int = 0, rank: int = 0, processes: int = 1
) -> DataLoader[Any]:
    """Batches of ``patches`` in their order, or the rows of one process; read them through :func:`raising`."""
    shared = RowsOfBatches(len(patches), batch, rank=rank, processes=processes) if processes > 1 else None
    return DataLoader(
        patches,
        batch_size=1 if shared else batch,
        batch_sampler=shared,
        num_workers=workers,
        collate_fn=_stack,
        worker_init_fn=_leave_interrupts_to_parent,
    )


def raising(batches: Iterable[Tensor | BlemishError]) -> Iterator[Tensor]:
    """``batches`` (N, C, P, P); raises the error of the first one that could not be read."""
    for batch in batches:
        if isinstance(batch, BlemishError):
            raise batch
        yield batch


def _stack(patches: list[Tensor | BlemishError]) -> Tensor | BlemishError:
    for patch in patches:
        if isinstance(patch, BlemishError):
            return patch
    stacked: Tensor = default_collate(patches)
    return stacked


def _leave_interrupts_to_parent(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal; the parent finishes its step, which needs its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
