"""Cells: the crops of all objects of an image, each in the common pose, one under the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.preprocessing.pose import Crop, FoundObject, Pose, crop, crop_places, uncrop


class Cells(NamedTuple):
    """Objects of an image, and where they lie in the one that the network sees.

    Crops of neighbouring objects overlap. A place of the image belongs to the object whose rectangle is nearest, and
    the crops of the others leave it out.
    """

    objects: tuple[FoundObject | None, ...]
    """That of each cell, from the top; None in a cell without one."""
    size: Crop
    """Of a cell."""
    scale: float
    """The network's pixels per image pixel."""
    shape: tuple[int, int]
    """(H, W) of the image."""

    def take(self, pixels: NDArray[np.floating]) -> NDArray[np.float32]:
        """``pixels`` (C, H, W) as the network sees them, (C, h, w); 0 in a cell without an object."""
        empty = np.zeros((len(pixels), self.size.height, self.size.width), np.float32)
        taken = [
            empty if one is None else crop(pixels, one.pose, self.size, self.scale) for one in self.objects
        ]
        return np.concatenate(taken, axis=1)

    def inside(self) -> NDArray[np.bool_]:
        """Mask (h, w) of the places that lie inside the image and belong to the object of their cell.

        Elsewhere there is nothing to judge, and nothing to remember.
        """
        masks = []
        for number, one in enumerate(self.objects):
            if one is None:
                masks.append(np.zeros((self.size.height, self.size.width), np.bool_))
                continue
            y, x = crop_places(self.size, one.pose, self.scale)
            is_inside = (y >= -0.5) & (y <= self.shape[0] - 0.5) & (x >= -0.5) & (x <= self.shape[1] - 0.5)
            masks.append(is_inside & self._belong(number, y, x))
        return np.concatenate(masks)

    def back(self, values: NDArray[np.floating], outside: NDArray[np.floating]) -> NDArray[np.float32]:
        """The inverse of :meth:`take`: ``values`` (K, h, w) where they belong in the image, (K, H, W).

        ``outside``, which broadcasts to (K, H, W), is what stands where no cell reaches.
        """
        found = outside
        for number, one in enumerate(self.objects):
            if one is not None:
                own = values[:, number * self.size.height : (number + 1) * self.size.height]
                belongs = partial(self._belong, number)
                found = uncrop(own, one.pose, self.shape, self.scale, found, belongs)
        return np.asarray(found, dtype=np.float32)

    def _belong(self, number: int, y: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether places of the image belong to the object of a cell."""
        own = self.objects[number]
        assert own is not None
        others = [one for one in self.objects if one is not None and one is not own]
        if not others:
            return np.ones(np.broadcast_shapes(y.shape, x.shape), np.bool_)
        nearest = np.minimum.reduce([_distance(one, y, x) for one in others])
        return np.asarray(_distance(own, y, x) <= nearest)


def _distance(one: FoundObject, y: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distance in pixels of places of the image from the rectangle around an object; 0 inside."""
    (cy, cx), (dy, dx) = one.pose
    along = np.abs((y - cy) * dy + (x - cx) * dx) - one.length / 2
    across = np.abs((y - cy) * dx - (x - cx) * dy) - one.breadth / 2
    return np.asarray(np.hypot(np.maximum(along, 0), np.maximum(across, 0)))


def make_cells(found: Sequence[FoundObject], size: Crop, scale: float, shape: tuple[int, int]) -> Cells:
    """Give each object a cell, the largest ones where there are more objects than cells.

    They lie in the order of their rows and columns, spread evenly, so that every cell sees objects where images differ in
    their number. Without any, one is assumed in the middle, so that the image is inspected all the same.

    Parameters
    ----------
    found: the objects, the largest first.
    scale: the network's pixels per image pixel.
    shape: (H, W) of the image.

    >>> size = Crop(height=16, width=16, count=4)
    >>> [one is not None for one in make_cells([], size, 1.0, (64, 64)).objects]
    [False, False, True, False]
    """
    objects = sorted(found[: size.count], key=lambda one: one.pose.centre)
    if not objects:
        middle = Pose(((shape[0] - 1) / 2, (shape[1] - 1) / 2), (0.0, 1.0))
        sides = size.width / scale, size.height / scale
        objects = [FoundObject(middle, *sides, elongation=1.0, share=0.0, inside=True, plain=True)]
    if not size.turned:
        objects = [one._replace(pose=Pose(one.pose.centre, (0.0, 1.0))) for one in objects]
    cells: list[FoundObject | None] = [None] * size.count
    for number, one in enumerate(objects):
        cells[(2 * number + 1) * size.count // (2 * len(objects))] = one
    return Cells(tuple(cells), size, scale, shape)
