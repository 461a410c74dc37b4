"""Datasets of HDF5 files, as NeXus stacks are, read by windows.

A dataset has two axes, or three of which one is the channels. Needs ``pip install blemish[large]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blemish.data.opening import reading
from blemish.data.windowed_image import DecodedCache, ReadWindow, WindowedImage, full_scale
from blemish.errors import ImageError, nearest
from blemish.extras import install_line
from blemish.limits import MAX_CHANNELS

if TYPE_CHECKING:
    from h5py import Dataset, File, Group

HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".he5", ".nxs"})

_SMALLEST_SIDE = 8
"""Datasets with a shorter side are axes, spectra and the like."""
_DEEPEST = 8
"""Groups from the root to the signal, at most: an attribute may lead back to its own group."""


class Hdf5Image(WindowedImage):
    """A dataset of an HDF5 file; pixels with its ``_FillValue`` in all channels are absent.

    Of three axes the channels are the last where the attribute ``interpretation`` says spectrum or rgb-image, the first
    where it says image (NeXus, NXdata), else the shortest, which must be at most half of the others.

    Parameters
    ----------
    dataset: its path within the file; where there is none, the signal that the attributes ``default`` and ``signal``
        lead to (NeXus), else the only dataset with the axes of an image.

    Raises
    ------
    ImageError
        The file cannot be read, or does not say which dataset is the image or which axis the channels.
    """

    cached_bytes = 0

    def __init__(self, path: Path, dataset: str = "") -> None:
        self.path = path
        with _opened(path) as file:
            found = _dataset(path, file, dataset)
            self._name = str(found.name)
            self._refuse_other_files(found)
            self._axis = self._channel_axis(found)
            sides = list(found.shape)
            self.channels = 1 if self._axis is None else sides.pop(self._axis)
            self.height, self.width = sides
            self.dtype = found.dtype.newbyteorder("=")
            self.full_scale = full_scale(self.dtype)
            fill = np.ravel(found.attrs.get("_FillValue", []))
            self._fill = fill[0] if fill.size and fill.dtype.kind in "uif" else None
        if not 0 < self.channels <= MAX_CHANNELS:
            raise ImageError(path, f"has {self.channels} channels in {self._name}", "save fewer channels")

    def _refuse_other_files(self, found: Dataset) -> None:
        if found.external or found.is_virtual:
            raise ImageError(
                self.path, f"keeps the values of {self._name} in other files", "copy them into one file"
            )

    def _channel_axis(self, found: Dataset) -> int | None:
        if found.ndim == 2:
            return None
        interpretation = _word(found, "interpretation")
        if interpretation in {"spectrum", "rgb-image", "rgba-image"}:
            return 2
        if interpretation == "image":
            return 0
        axis = int(np.argmin(found.shape))
        if 2 * found.shape[axis] > sorted(found.shape)[1]:
            shape = " × ".join(map(str, found.shape))
            raise ImageError(
                self.path,
                f"does not say which axis of {self._name} ({shape}) is the channels",
                "set its attribute 'interpretation' to 'image' where it is the first, or 'spectrum' where it is the last",
            )
        return axis

    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> ReadWindow:
        place = [slice(top, top + height), slice(left, left + width)]
        if self._axis is not None:
            place.insert(self._axis, slice(None))
        with _opened(self.path) as file:
            values = np.asarray(file[self._name][tuple(place)])
        values = values[np.newaxis] if self._axis is None else np.moveaxis(values, self._axis, 0)
        values = np.ascontiguousarray(values, self.dtype)  # (C, h, w)
        absent = None if self._fill is None else (values == self._fill).all(0)
        return ReadWindow(values, absent if absent is not None and absent.any() else None)

    def check(self) -> None:
        """Do nothing: opening it has compared its length with the one that it states."""


def is_hdf5(start: bytes) -> bool:
    """Whether a file is HDF5, by its first bytes."""
    return start.startswith(b"\x89HDF\r\n\x1a\n")


def holds_image(path: Path) -> bool:
    """Whether ``path`` is an HDF5 file with one image, which can be read here."""
    if path.suffix.lower() not in HDF5_SUFFIXES:
        return False
    try:
        Hdf5Image(path)
    except ImageError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[File]:
    try:
        import h5py
    except ImportError:
        problem = "is an HDF5 file, for which h5py is not installed"
        raise ImageError(path, problem, install_line("large")) from None
    with reading(path), h5py.File(path, "r", locking=False) as file:
        yield file


def _dataset(path: Path, file: File, wanted: str) -> Dataset:
    images = _images(file)
    names = [str(one.name) for one in images]
    if wanted:
        name = "/" + wanted.strip("/")
        if name not in names:
            problem = f"has no dataset '{wanted}' with the axes of an image; {nearest(name, names)}"
            raise ImageError(path, problem, "correct 'dataset' in modalities.yaml")
        return images[names.index(name)]
    if len(images) == 1:
        return images[0]
    if not images:
        raise ImageError(path, "has no dataset with the axes of an image", "export the image as TIFF")
    signal = _signal(file)
    if signal in names:
        return images[names.index(signal)]
    some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    raise ImageError(
        path,
        f"has {len(names)} datasets with the axes of an image ({some})",
        "name one as 'dataset' in modalities.yaml",
    )


def _images(file: File) -> list[Dataset]:
    """Datasets of numbers with two or three axes, two of them not short; links into other files are not followed."""
    import h5py

    found: list[Dataset] = []

    def look(_: str, item: object) -> None:
        if (
            isinstance(item, h5py.Dataset)
            and item.dtype.kind in "uif"
            and item.ndim in (2, 3)
            and sorted(item.shape)[-2] >= _SMALLEST_SIDE
        ):
            found.append(item)

    file.visititems(look)
    return found


def _signal(group: Group) -> str | None:
    """Path of the default signal (NeXus, NXroot to NXdata)."""
    import h5py

    for _ in range(_DEEPEST):
        signal, default = _word(group, "signal"), _word(group, "default")
        if signal is not None:
            return f"{group.name.rstrip('/')}/{signal}"
        if default not in set(group) or not isinstance(group.get(default, getlink=True), h5py.HardLink):
            return None
        below = group[default]
        if not isinstance(below, h5py.Group):
            return None
        group = below
    return None


def _word(item: Group | Dataset, name: str) -> str | None:
    value = item.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None
