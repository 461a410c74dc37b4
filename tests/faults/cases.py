"""Numbered cases of a fault hunt: damaged image files, each a function of the seed and its number."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.faults.corpus import BaseFile, base_files, scene_files
from tests.faults.mutations import mutate, mutate_tags
from tests.faults.targets import TARGETS, Intact, cut_off, intact
from tests.faults.watchdog import Call

# Of 50 files, how many go to each target: the more, the more code a file meets there and the faster it is read.
SHARES = {
    "image": 17,
    "windows": 9,
    "source": 8,
    "lossless": 5,
    "coefficients": 4,
    "quality": 2,
    "scenes": 3,
    "mask": 2,
}
CUT_OFF = "cut off"

_CYCLE = [target for target, share in SHARES.items() for _ in range(share)]
_BATCH = 250
_JPEG = {".jpg"}
_IN_MEMORY = {".png", ".jpg", ".bmp", ".webp", ".tif"}


@dataclass(frozen=True)
class Case:
    """A file, and the target that it goes to; ``base`` is the name of the intact file that it was made of."""

    target: str
    base: str
    data: bytes
    whole: Intact | None = None


class Cases(ABC):
    """Numbered cases, of which each can be made again by its number.

    Parameters
    ----------
    folder: for the files, which lie in a folder for each process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def target(self, index: int) -> str:
        """The target of a case."""

    @abstractmethod
    def case(self, index: int) -> Case:
        """The case of a number."""

    def call(self, index: int) -> Call:
        """Write the file of a case and give the call that reads it."""
        case = self.case(index)
        path = self._folder / str(os.getpid()) / case.base
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # a file of its own, should the one before still be mapped into memory
        path.write_bytes(case.data)
        whole = case.whole
        if whole is not None:
            return lambda: cut_off(path, whole)
        return lambda: TARGETS[case.target](path)

    def batches(self, numbers: Iterable[int]) -> list[list[int]]:
        """The numbers by target, in batches."""
        by_target: dict[str, list[int]] = {}
        for index in numbers:
            by_target.setdefault(self.target(index), []).append(index)
        return [
            indices[start : start + _BATCH]
            for indices in by_target.values()
            for start in range(0, len(indices), _BATCH)
        ]


class DamagedFiles(Cases):
    """``files`` mutated files, then every base file cut off at ``cuts`` places."""

    def __init__(self, folder: Path, seed: int, files: int, cuts: int) -> None:
        super().__init__(folder)
        self._seed, self._files, self._cuts = seed, files, cuts
        self._bases = base_files(seed)
        readable = [file for file in self._bases if file.suffix in _IN_MEMORY]
        jpegs = [file for file in self._bases if file.suffix in _JPEG]
        self._of_target: dict[str, Sequence[BaseFile]] = {
            "image": readable,
            "windows": readable,
            "source": self._bases,
            "lossless": jpegs,
            "coefficients": jpegs,
            "quality": self._bases,
            "scenes": scene_files(seed),
            "mask": readable,
        }
        self._intact: list[Intact] = intact(self._bases, folder) if cuts else []

    def __len__(self) -> int:
        return self._files + self._cuts * len(self._bases)

    def target(self, index: int) -> str:
        return _CYCLE[index % len(_CYCLE)] if index < self._files else CUT_OFF

    def case(self, index: int) -> Case:
        rng = Random(f"{self._seed}/{index}")
        target = self.target(index)
        if target == CUT_OFF:
            whole = self._intact[(index - self._files) % len(self._intact)]
            data = whole.file.data
            return Case(target, whole.file.name, data[: _cut(len(data), rng)], whole)
        bases = self._of_target[target]
        base = rng.choice(bases)
        if target == "scenes" and rng.random() < 0.8:
            return Case(target, base.name, mutate_tags(base.data, rng))
        return Case(target, base.name, mutate(base.data, rng, rng.choice(bases).data))


class GivenFiles(Cases):
    """Files as they are, each for every target."""

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        super().__init__(folder)
        self._paths = list(paths)
        self._targets = list(TARGETS)

    def __len__(self) -> int:
        return len(self._paths) * len(self._targets)

    def target(self, index: int) -> str:
        return self._targets[index % len(self._targets)]

    def case(self, index: int) -> Case:
        path = self._paths[index // len(self._targets)]
        return Case(self.target(index), path.name, path.read_bytes())


def _cut(length: int, rng: Random) -> int:
    """A length that is shorter by a few bytes, or by any number."""
    return max(0, length - rng.randrange(1, 20)) if rng.random() < 0.25 else rng.randrange(length)
