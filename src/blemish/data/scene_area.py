"""Judged area of a scene: a region of interest, and areas that are excluded from it such as frame and fills, by windows.

Both are images of the whole scene at any resolution, beside the files of its modalities: ``roi`` marks what is judged and
``exclude`` what is not, by any value but 0; ``modalities.yaml`` may name other files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blemish.data.image import SUFFIXES
from blemish.data.modality import list_folder
from blemish.data.opening import first_bytes, image_format
from blemish.data.windowed import open_windowed, same_field
from blemish.data.windowed_image import DecodedCache, WindowedImage
from blemish.errors import ImageError

JUDGED, EXCLUDED = "roi", "exclude"
"""Stems of the two files, where no description names others."""
_STRIP = 512


@dataclass(frozen=True)
class SceneAreaFiles:
    """Files of the judged area of one scene."""

    judged: Path | None = None
    excluded: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        return tuple(path for path in (self.judged, self.excluded) if path is not None)


def is_area_name(path: Path) -> bool:
    """True if a file is no modality but a part of the judged area, by its stem.

    >>> is_area_name(Path("roi.png")), is_area_name(Path("rgb.png"))
    (True, False)
    """
    return path.stem in (JUDGED, EXCLUDED)


def find_area(folder: Path, judged: str, excluded: str, used: Collection[Path]) -> SceneAreaFiles:
    """Files of the judged area in the folder of a scene.

    Parameters
    ----------
    judged, excluded: names that a description gives; empty without one.
    used: files of modalities, which mark nothing.

    Raises
    ------
    ImageError
        Two files have the same stem, so that either may be meant.
    """
    return SceneAreaFiles(_named(folder, judged, JUDGED, used), _named(folder, excluded, EXCLUDED, used))


def _named(folder: Path, name: str, stem: str, used: Collection[Path]) -> Path | None:
    if name:
        return folder / name if (folder / name).exists() else None
    found = [
        path
        for path in list_folder(folder)
        if path.stem == stem and path.suffix.lower() in SUFFIXES and path.is_file() and path not in used
    ]
    if len(found) > 1:
        raise ImageError(found[1], f"stands beside {found[0].name}", "remove one of the two")
    return found[0] if found else None


class SceneArea:
    """Judged pixels of a scene, read by windows.

    Parameters
    ----------
    size: (height, width) of the scene.

    Raises
    ------
    ImageError
        A file cannot be read, or is of another shape than the scene.
    """

    def __init__(self, files: SceneAreaFiles, size: tuple[int, int]) -> None:
        self._size = size
        self._masks = [
            (SceneMask(path, size), marks)
            for path, marks in ((files.judged, True), (files.excluded, False))
            if path is not None
        ]
        self.words = " and ".join(path.name for path in files.paths)

    @property
    def cached_bytes(self) -> int:
        """Bytes that stay in the cache once a window was read."""
        return sum(mask.image.cached_bytes for mask, _ in self._masks)

    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> NDArray[np.bool_]:
        """True (height, width) where the window whose first pixel is (top, left) is judged.

        Raises
        ------
        ImageError
            A file is damaged there.
        """
        judged = np.ones((height, width), np.bool_)
        for mask, marks in self._masks:
            judged &= mask.read(top, left, height, width, cache) == marks
        return judged

    def share(self, cache: DecodedCache) -> float:
        """Share of the scene that is judged; all of it is read, by windows.

        Raises
        ------
        ImageError
            As :meth:`read`, and where nothing is judged.
        """
        height, width = self._size
        count = sum(int(self.read(*window, cache).sum()) for window in self._windows())
        if not count:
            path = self._masks[0][0].image.path
            problem = f"leaves nothing to judge, by {self.words}"
            raise ImageError(path, problem, "mark what is to be judged, or remove it")
        return count / (height * width)

    def _windows(self) -> Iterator[tuple[int, int, int, int]]:
        height, width = self._size
        for top in range(0, height, _STRIP):
            for left in range(0, width, 8 * _STRIP):
                yield top, left, min(_STRIP, height - top), min(8 * _STRIP, width - left)


class SceneMask:
    """A mask of a scene of ``size`` (height, width), brought to that size by the nearest pixel.

    Raises
    ------
    ImageError
        The file cannot be read, or is of another shape than the scene.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.image: WindowedImage = open_windowed(path)
        self._size = size
        own = self.image.height, self.image.width
        coarse, fine = sorted((own, size))
        if own != size and not same_field(coarse, fine, rounded=True):
            raise ImageError(
                path,
                f"is a mask of {own[1]} × {own[0]} pixels, which is not the scene ({size[1]} × {size[0]}) at another "
                "resolution",
                "draw it on an image of the whole scene",
            )
        # Next to an edge the values of a JPEG file are noise.
        is_jpeg = image_format(first_bytes(path)) == "JPEG"
        self._least = (self.image.full_scale or 0) / 2 if is_jpeg else 0

    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> NDArray[np.bool_]:
        """True (height, width) where any channel of a window is not 0; ImageError where the file is damaged."""
        rows = _nearest(top, height, self._size[0], self.image.height)
        columns = _nearest(left, width, self._size[1], self.image.width)
        first, start = int(rows[0]), int(columns[0])
        values, absent = self.image.read(
            first, start, int(rows[-1]) - first + 1, int(columns[-1]) - start + 1, cache
        )
        marked: NDArray[np.bool_] = np.any(values > self._least, axis=0)
        if absent is not None:
            marked &= ~absent
        return marked[np.ix_(rows - first, columns - start)]


def _nearest(start: int, count: int, length: int, own: int) -> NDArray[np.int64]:
    """Pixels of a mask of ``own`` pixels along a side under those of a scene of ``length``.

    >>> _nearest(2, 4, 8, 4).tolist(), _nearest(0, 4, 4, 8).tolist()
    ([1, 1, 2, 2], [1, 3, 5, 7])
    """
    places = (np.arange(start, start + count) + 0.5) * own / length
    return np.minimum(places.astype(np.int64), own - 1)
