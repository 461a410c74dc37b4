"""Pose: one object on a plain ground, turned and moved into the same pose in every image.

An object that lies in any position gives a different image each time. In one pose each of its locations can be
compared with the same location on good objects, and the ground, where nothing is to be inspected, is left out.
The pose is a function of the one image alone: the object's main axis lies along the rows, its heavier end to
the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from blemish.data.image import resize
from blemish.limits import MAX_IMAGE_SIDE

SIDE = 512
"""Shorter side in pixels at which objects are looked for; smaller images are taken as they are."""
MARGIN = 0.03
"""Of ground beside the object, as a share of its length, on each side."""
MULTIPLE = 16
SUPERSAMPLING = 2
FAINTEST = 1e-3
"""Gradient, in units of the range, that is no edge: less than a step of one grey level of 255 gives."""


_ROWS = 256
"""Rows of an image that are computed at once."""


class Pose(NamedTuple):
    """Position and direction of an object, in pixels of its image."""

    centre: tuple[float, float]
    """(y, x), halfway between its ends."""
    direction: tuple[float, float]
    """(y, x) of length 1, from the heavier end to the lighter one."""


class Crop(BaseModel):
    """Size of the crop around the object, in pixels at the network's scale."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    width: int = Field(ge=1, le=MAX_IMAGE_SIDE)


class FoundObject(NamedTuple):
    """An object, in pixels of its image."""

    pose: Pose
    length: float
    """From end to end along its main axis."""
    breadth: float
    elongation: float
    """Standard deviation along the main axis over that across it."""
    share: float
    """Share of the image's area."""
    inside: bool
    """Whether it touches no border."""
    plain: bool
    """Whether the ground around it has hardly any edges."""
    objects: int = 1
    """Number of objects of at least a third of its area, this one included."""


def find_object(grey: NDArray[np.floating]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the largest object with edges, and all edges: (H, W) in [0, 1] to two masks of the same shape.

    The first is empty where there is none.

    Edges are where the gradient's magnitude is above Otsu's threshold (Otsu 1979), and above what one grey level of
    255 gives; soft shadows have none. They are closed, filled and smoothed.

    >>> image = np.full((64, 64), 0.8)
    >>> image[24:40, 8:56] = 0.2
    >>> mask, edges = find_object(image)
    >>> bool(mask[32, 32]), bool(mask[4, 4])
    (True, False)
    """
    labels, areas, edges = _objects(grey)
    if not len(areas):
        return np.zeros(grey.shape, dtype=np.bool_), edges
    return np.asarray(labels == 1 + np.argmax(areas)), edges


def _objects(grey: NDArray[np.floating]) -> tuple[NDArray[np.int_], NDArray[np.float64], NDArray[np.bool_]]:
    """All objects with edges, numbered from 1 in an image (H, W), the area of each, and all edges."""
    unit = max(min(grey.shape) / SIDE, 0.25)
    gradient = ndimage.gaussian_gradient_magnitude(np.asarray(grey, dtype=np.float64), max(1.5 * unit, 0.7))
    edges = gradient > max(_otsu(gradient), FAINTEST)
    reach = max(2, round(6 * unit))
    closed = ndimage.binary_closing(np.pad(edges, 2 * reach), _disk(reach))
    inner = (slice(2 * reach, -2 * reach),) * 2
    mask = ndimage.binary_fill_holes(closed[inner])
    mask = ndimage.binary_opening(mask, _disk(max(1, round(3 * unit))))
    labels, count = ndimage.label(mask)
    areas = ndimage.sum_labels(mask, labels, np.arange(1, count + 1)) if count else np.zeros(0)
    return np.asarray(labels), np.asarray(areas, dtype=np.float64), edges


def find_pose(grey: NDArray[np.floating]) -> FoundObject | None:
    """Find the object in an image (H, W) in [0, 1] and its pose; None where there is none.

    Parameters
    ----------
    grey: at any size; the object is looked for at ``SIDE`` pixels or fewer.
    """
    return _search(grey)


@contextmanager
def kept_poses(keep: Callable[[PoseSearch], PoseSearch]) -> Iterator[None]:
    """Let ``keep``, such as ``joblib.Memory(folder).cache``, wrap the search for poses in this process.

    For many fits on the same images, most of whose time would go into finding the same poses.
    """
    global _search
    plain = _search
    _search = keep(plain)
    try:
        yield
    finally:
        _search = plain


def search_pose(grey: NDArray[np.floating]) -> FoundObject | None:
    """:func:`find_pose` without anything kept."""
    scale = max(1.0, min(grey.shape) / SIDE)
    small = grey if scale == 1 else resize(grey[None], _rounded(grey.shape, scale))[0]
    labels, areas, edges = _objects(small)
    mask = labels == 1 + np.argmax(areas) if len(areas) else np.zeros(small.shape, dtype=np.bool_)
    rows, columns = np.nonzero(mask)
    if len(rows) < 3:
        return None
    y, x = rows.mean(), columns.mean()
    spread, axes = np.linalg.eigh(np.cov(np.stack([rows, columns])))
    dy, dx = axes[:, 1]
    along = (rows - y) * dy + (columns - x) * dx
    if (along**3).mean() < 0:
        dy, dx, along = -dy, -dx, -along
    across = (rows - y) * dx - (columns - x) * dy
    middle = (along.min() + along.max()) / 2
    ground = ~ndimage.binary_dilation(mask, iterations=4)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return FoundObject(
        pose=Pose(((y + middle * dy + 0.5) * scale - 0.5, (x + middle * dx + 0.5) * scale - 0.5), (dy, dx)),
        length=float(np.ptp(along) + 1) * scale,
        breadth=2 * float(np.abs(across).max() + 0.5) * scale,
        elongation=math.sqrt(spread[1] / max(spread[0], 1e-9)),
        share=float(mask.mean()),
        inside=not border.any(),
        plain=bool(edges[ground].mean() < 0.02) if ground.any() else False,
        objects=int((areas >= areas.max() / 3).sum()),
    )


PoseSearch: TypeAlias = Callable[[NDArray[np.floating]], FoundObject | None]

_search: PoseSearch = search_pose


def plan_crop(
    found: Sequence[FoundObject | None], scales: Sequence[float], *, least: int = 1
) -> tuple[Crop | None, str]:
    """Plan a common crop at the network's scale, or None where not every image shows one object; the reason in a line.

    Parameters
    ----------
    found: of a sample of the good images.
    scales: the network's scale of each, in its pixels per image pixel.
    least: side in the network's pixels that the crop has at least.
    """
    objects = [(one, scale) for one, scale in zip(found, scales, strict=True) if one is not None]
    if len(objects) < max(1, 0.95 * len(found)):
        return None, "whole images: not every one shows an object on a plain ground"
    for share, reason in (
        (np.mean([one.plain for one, _ in objects]), "the ground is not plain"),
        (np.mean([one.inside for one, _ in objects]), "what stands out reaches the border"),
        (np.mean([0.003 < one.share < 0.6 for one, _ in objects]), "what stands out is no single object"),
        (
            np.mean([one.elongation > 1.3 for one, _ in objects]),
            "the object has no long axis to tell its pose by",
        ),
    ):
        if share < 0.95:
            return None, f"whole images: {reason}"
    lengths = np.array([one.length * scale for one, scale in objects])
    breadths = np.array([one.breadth * scale for one, scale in objects])
    if lengths.std() > 0.15 * lengths.mean():
        return None, "whole images: the objects differ in size"
    margin = 2 * MARGIN * lengths.max()
    height, width = (
        math.ceil(max(most + margin, least) / MULTIPLE) * MULTIPLE for most in (breadths.max(), lengths.max())
    )
    turned = "each turned into one pose" if _turned(objects) else "all of one pose"
    return Crop(height=height, width=width), f"one object on a plain ground, {turned}"


def _turned(objects: Sequence[tuple[FoundObject, float]]) -> bool:
    directions = np.array([one.pose.direction for one, _ in objects])
    return bool(np.hypot(*directions.mean(0)) < 0.99)


def crop(pixels: NDArray[np.floating], pose: Pose, size: Crop, scale: float) -> NDArray[np.float32]:
    """``pixels`` (C, H, W) in the common pose: (C, size.height, size.width); beyond the border it is repeated.

    ``scale`` is the crop's pixels per image pixel.
    """
    side = max(
        SUPERSAMPLING, math.ceil(0.5 / scale)
    )  # no further apart than two pixels, or fine detail aliases
    rows, columns = size.height * side, size.width * side
    down = ((np.arange(rows) + 0.5) / side - size.height / 2) / scale
    right = ((np.arange(columns) + 0.5) / side - size.width / 2) / scale
    dy, dx = pose.direction
    y = pose.centre[0] + right[None] * dy + down[:, None] * dx
    x = pose.centre[1] + right[None] * dx - down[:, None] * dy
    sampled = np.stack([ndimage.map_coordinates(plane, [y, x], order=1, mode="nearest") for plane in pixels])
    pooled = sampled.reshape(len(pixels), size.height, side, size.width, side).mean((2, 4))
    return np.asarray(pooled, dtype=np.float32)


def inside_image(shape: tuple[int, int], pose: Pose, size: Crop, scale: float) -> NDArray[np.bool_]:
    """Mask (size.height, size.width) of the places of a crop that lie inside an image of ``shape`` (H, W).

    At the others :func:`crop` repeats the border; there is nothing to judge, and nothing to remember.

    >>> mask = inside_image((4, 4), Pose((0.0, 1.5), (0.0, 1.0)), Crop(height=4, width=4), 1.0)
    >>> mask.all(1).tolist()
    [False, True, True, True]
    """
    down = (np.arange(size.height) - (size.height - 1) / 2) / scale
    right = (np.arange(size.width) - (size.width - 1) / 2) / scale
    dy, dx = pose.direction
    y = pose.centre[0] + right[None] * dy + down[:, None] * dx
    x = pose.centre[1] + right[None] * dx - down[:, None] * dy
    is_inside = (y >= -0.5) & (y <= shape[0] - 0.5) & (x >= -0.5) & (x <= shape[1] - 0.5)
    return np.asarray(is_inside, dtype=np.bool_)


def uncrop(
    values: NDArray[np.floating],
    pose: Pose,
    shape: tuple[int, int],
    scale: float,
    outside: NDArray[np.floating],
) -> NDArray[np.float32]:
    """The inverse of :func:`crop`: ``values`` (K, h, w) where they belong in an image of ``shape`` (H, W).

    ``outside``, which broadcasts to (K, H, W), is what stands where the crop does not reach.
    """
    found = np.empty((len(values), *shape), np.float32)
    beyond = np.broadcast_to(outside, found.shape) if np.ndim(outside) == 3 else outside
    for start in range(0, shape[0], _ROWS):  # coordinates of all pixels of a large image would be very many
        rows = slice(start, min(start + _ROWS, shape[0]))
        found[:, rows] = _uncropped_rows(
            values, pose, rows, shape[1], scale, beyond[:, rows] if np.ndim(beyond) == 3 else beyond
        )
    return found


def _uncropped_rows(
    values: NDArray[np.floating],
    pose: Pose,
    rows: slice,
    columns: int,
    scale: float,
    outside: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Some rows (K, rows, columns) of :func:`uncrop`."""
    height, width = values.shape[1:]
    dy, dx = pose.direction
    y = np.arange(rows.start, rows.stop)[:, None] - pose.centre[0]
    x = np.arange(columns)[None] - pose.centre[1]
    right, down = y * dy + x * dx, y * dx - x * dy
    row, column = down * scale + (height - 1) / 2, right * scale + (width - 1) / 2
    within = (row >= -0.5) & (row <= height - 0.5) & (column >= -0.5) & (column <= width - 0.5)
    back = np.stack(
        [ndimage.map_coordinates(plane, [row, column], order=1, mode="nearest") for plane in values]
    )
    return np.where(within, back, outside)


def _rounded(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    return round(shape[0] / scale), round(shape[1] / scale)


def _otsu(values: NDArray[np.float64]) -> float:
    """The level that parts ``values`` into two classes of the largest variance between them."""
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * middles)
    # Where all lie on one side there is no second class; divided by 0 the rounding above the line would win.
    apart = np.maximum(below * (below[-1] - below), 1)
    between = (mass[-1] * below / below[-1] - mass) ** 2 / apart
    return float(middles[np.argmax(between)])


def _disk(radius: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(np.hypot(y, x) <= radius)
