"""Features that ``blemish features`` wrote, read lazily and by pixel; torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from blemish.errors import FileError, UsageError
from blemish.storage.tiled_array import TILED, open_tiled, reading

LAYER = "features"


@dataclass(frozen=True)
class Features:
    """The features of one scene or image: a vector of d numbers for every ``stride`` pixels.

    Element (:, i, j) of ``array`` belongs to the pixel (offset[0] + i · stride, offset[1] + j · stride), counted
    from the centre of the first one; where the image was resized for the network, of the resized image,
    whose sides are ``scale`` times the image's own. It is NaN where nothing is to be seen.
    """

    name: str
    """Name of the scene or image."""
    path: Path
    """The Zarr group."""
    array: Any
    """(d, h, w), a Zarr array: read from disk where it is indexed."""
    stride: int
    offset: tuple[float, float]
    """(row, column)."""
    scale: tuple[float, float]
    """(height, width)."""
    size: tuple[int, int]
    """(height, width) of the image in its own pixels."""
    modalities: tuple[str, ...]
    """Names of the modalities of a scene; empty for an image."""
    missing: tuple[str, ...]
    """Modalities that the scene does not have."""
    weights_sha256: str
    """SHA-256 of the weights of the model."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(d, h, w)."""
        d, h, w = self.array.shape
        return int(d), int(h), int(w)

    def described(self) -> dict[str, Any]:
        """Description of the features for JSON."""
        return {
            "name": self.name,
            "path": str(self.path),
            "shape": self.shape,
            "stride": self.stride,
            "offset": self.offset,
            "scale": self.scale,
            "size": self.size,
            "modalities": self.modalities,
            "missing": self.missing,
            "weights_sha256": self.weights_sha256,
        }

    def in_words(self) -> str:
        """Summary in one line."""
        d, h, w = self.shape
        without = f", without {', '.join(self.missing)}" if self.missing else ""
        return f"{self.name}: {d} features for each of {w} × {h} places, {self.stride} pixels apart{without}"

    def places(self, row: ArrayLike, column: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The indices i and j of the features nearest to pixels of the image.

        Raises
        ------
        UsageError
            When a pixel lies outside the image.
        """
        found = []
        for at, length, count, offset, scale in zip(
            (row, column), self.size, self.shape[1:], self.offset, self.scale, strict=True
        ):
            pixels = np.asarray(at, dtype=np.float64)
            if not ((pixels >= 0) & (pixels <= length - 1)).all():
                raise UsageError(f"{self.name}: a pixel lies outside 0 to {length - 1}")
            places = np.rint(((pixels + 0.5) * scale - 0.5 - offset) / self.stride)
            found.append(np.clip(places, 0, count - 1).astype(np.intp))
        return found[0], found[1]

    def at(self, row: ArrayLike, column: ArrayLike) -> NDArray[np.float32]:
        """The features at one pixel, (d,), or at several, (n, d) for ``row`` and ``column`` of shape (n,).

        Raises
        ------
        UsageError
            When a pixel lies outside the image.
        """
        i, j = np.broadcast_arrays(*self.places(row, column))
        with reading(self.path):
            if i.ndim == 0:
                return np.asarray(self.array[:, int(i), int(j)], np.float32)
            planes = np.arange(self.shape[0])
            values = self.array.vindex[planes, i.ravel()[:, None], j.ravel()[:, None]]  # (n, d)
        return np.asarray(values, np.float32).reshape(*i.shape, -1)


def read_features(folder: str | Path) -> Features:
    """The features in ``folder``: a ``NAME.zarr``, or the folder around it where there is only one.

    Raises
    ------
    FileError
        When there are none, several, or they cannot be read.
    """
    path = _chosen(Path(folder))
    group = open_tiled(path)
    with reading(path):
        attributes = dict(group.attrs)
        return Features(
            name=attributes["name"],
            path=path,
            array=zarr.open_array(str(path / LAYER), mode="r"),
            stride=attributes["stride"],
            offset=_pair(attributes["offset"]),
            scale=_pair(attributes["scale"]),
            # Features of version 0.1 name the size "picture".
            size=_pair(attributes["image"] if "image" in attributes else attributes["picture"]),
            modalities=tuple(attributes["modalities"]),
            missing=tuple(attributes["missing"]),
            weights_sha256=attributes["weights_sha256"],
        )


def _pair(values: Any) -> Any:
    first, second = values
    return first, second


def _chosen(folder: Path) -> Path:
    if folder.suffix == TILED:
        return folder
    found = sorted(folder.rglob(f"*{TILED}"))
    if not found:
        raise FileError(folder, f"holds no features ({TILED})", "give what blemish features --out made")
    if len(found) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found[:4])
        raise FileError(folder, f"holds the features of {len(found)} images ({names} …)", "name one of them")
    return found[0]
