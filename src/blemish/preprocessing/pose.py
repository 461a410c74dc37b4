"""Pose: objects on a plain ground, turned and moved into the same pose in every image.

An object that lies in any position gives a different image each time. In one pose each of its locations can be
compared with the same location on good objects, and the ground, where nothing is to be inspected, is left out.
The pose is a function of the one image alone: the object's main axis lies along the rows, its heavier end to
the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

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
FAINTER = 0.6
"""Gradient, in units of the threshold of edges, from which on a place beside an edge of a small object is one, too."""
SMALLEST = 0.003
"""Share of the image's area that an object has at least."""
MOST_OBJECTS = 16
"""Objects in an image that are told apart; more are looked at as a texture."""

_ROWS = 256
"""Rows of an image that are computed at once."""


class Pose(NamedTuple):
    """Position and direction of an object, in pixels of its image."""

    centre: tuple[float, float]
    """(y, x), halfway between its ends."""
    direction: tuple[float, float]
    """(y, x) of length 1, from the heavier end to the lighter one."""


class Crop(BaseModel):
    """Size of the crop around an object, in pixels at the network's scale, and how many crops an image has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    width: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    count: int = Field(1, ge=1, le=MOST_OBJECTS)
    """Objects in an image at most; their crops lie one under the other."""
    turned: bool = True
    """Whether objects are turned, too; those without a long axis keep the orientation that they have."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of all crops of an image together."""
        return self.count * self.height, self.width


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
    """Whether the ground around all objects has hardly any edges."""


def find_objects(grey: NDArray[np.floating]) -> tuple[FoundObject, ...]:
    """Find the objects in an image (H, W) in [0, 1] and their poses, the largest first; empty where there is none.

    Objects have edges, where the gradient's magnitude is above Otsu's threshold (Otsu 1979), and above what one grey
    level of 255 gives; soft shadows have none. Edges are closed, filled and smoothed. What has less than a third of the
    area of the largest object does not count, and no more than ``MOST_OBJECTS`` + 1 are described.

    Parameters
    ----------
    grey: at any size; objects are looked for at ``SIDE`` pixels or fewer.

    >>> image = np.full((64, 64), 0.8)
    >>> image[24:40, 8:56] = 0.2
    >>> [(round(one.pose.centre[0]), round(one.pose.centre[1])) for one in find_objects(image)]
    [(32, 32)]
    """
    return _search(grey)


def _objects(
    grey: NDArray[np.floating], expected: int = 1
) -> tuple[NDArray[np.int_], NDArray[np.float64], NDArray[np.bool_]]:
    """All objects, numbered from 1 in an image (H, W), the area of each, and all edges.

    Of more than one ``expected`` each is smaller: so is what is too thin to belong to it, and its edges, which are but a
    few pixels long, are followed to fainter ones, as a single gap would leave it unfilled.
    """
    unit = max(min(grey.shape) / SIDE, 0.25)
    gradient = ndimage.gaussian_gradient_magnitude(np.asarray(grey, dtype=np.float64), max(1.5 * unit, 0.7))
    level = max(_otsu(gradient), FAINTEST)
    edges = gradient > level
    if expected > 1:
        edges = ndimage.binary_propagation(edges, mask=gradient > FAINTER * level)
    reach = max(2, round(6 * unit))
    closed = ndimage.binary_closing(np.pad(edges, 2 * reach), _disk(reach))
    inner = (slice(2 * reach, -2 * reach),) * 2
    mask = ndimage.binary_fill_holes(closed[inner])
    mask = ndimage.binary_opening(mask, _disk(max(1, round(3 * unit / math.sqrt(expected)))))
    labels, count = ndimage.label(mask)
    areas = ndimage.sum_labels(mask, labels, np.arange(1, count + 1)) if count else np.zeros(0)
    return np.asarray(labels), np.asarray(areas, dtype=np.float64), edges


@contextmanager
def kept_poses(keep: Callable[[ObjectSearch], ObjectSearch]) -> Iterator[None]:
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


def search_objects(grey: NDArray[np.floating]) -> tuple[FoundObject, ...]:
    """:func:`find_objects` without anything kept."""
    scale = max(1.0, min(grey.shape) / SIDE)
    small = grey if scale == 1 else resize(grey[None], _rounded(grey.shape, scale))[0]
    labels, areas, edges = _objects(small)
    counting = _counting(areas)
    if len(counting) > 1:
        labels, areas, edges = _objects(small, len(counting))
        counting = _counting(areas)
    masks = [labels == 1 + number for number in counting[: MOST_OBJECTS + 1]]
    ground = ~ndimage.binary_dilation(np.isin(labels, 1 + np.array(counting, dtype=int)), iterations=4)
    is_plain = bool(edges[ground].mean() < 0.02) if ground.any() else False
    described = (_described(mask, scale, is_plain) for mask in masks)
    return tuple(one for one in described if one is not None)


def _counting(areas: NDArray[np.float64]) -> list[int]:
    """Those of at least a third of the largest area, the largest first."""
    return [int(number) for number in np.argsort(-areas, kind="stable") if 3 * areas[number] >= areas.max()]


def _described(mask: NDArray[np.bool_], scale: float, is_plain: bool) -> FoundObject | None:
    """The object that a mask (h, w) marks, in an image that is ``scale`` times as large; None if it has no axis."""
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
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return FoundObject(
        pose=Pose(((y + middle * dy + 0.5) * scale - 0.5, (x + middle * dx + 0.5) * scale - 0.5), (dy, dx)),
        length=float(np.ptp(along) + 1) * scale,
        breadth=2 * float(np.abs(across).max() + 0.5) * scale,
        elongation=math.sqrt(spread[1] / max(spread[0], 1e-9)),
        share=float(mask.mean()),
        inside=not border.any(),
        plain=is_plain,
    )


Belongs: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]
ObjectSearch: TypeAlias = Callable[[NDArray[np.floating]], tuple[FoundObject, ...]]

_search: ObjectSearch = search_objects


def plan_crop(
    found: Sequence[Sequence[FoundObject]], scales: Sequence[float], *, least: int = 1
) -> tuple[Crop | None, str]:
    """Plan common crops at the network's scale, or None where images do not show objects of one kind; the reason in a line.

    Where nearly all images show one object, the largest one of each counts. Otherwise all of them do, if they are of one
    size; where they are not, and most images show one, the largest counts all the same.

    Parameters
    ----------
    found: of a sample of the good images.
    scales: the network's scale of each, in its pixels per image pixel.
    least: side in the network's pixels that the crops of an image together have at least.
    """
    shown = [(objects, scale) for objects, scale in zip(found, scales, strict=True) if objects]
    if len(shown) < max(1, 0.95 * len(found)):
        return None, "whole images: not every one shows an object on a plain ground"
    if not np.mean([objects[0].plain for objects, _ in shown]) >= 0.95:
        return None, "whole images: the ground is not plain"
    with_one = np.mean([len(objects) == 1 for objects, _ in shown])
    if with_one < 0.95:
        planned = _planned(shown, least, max(len(objects) for objects, _ in shown))
        if planned[0] is not None or with_one < 0.8:
            return planned
    return _planned([(objects[:1], scale) for objects, scale in shown], least, 1)


def _planned(
    shown: Sequence[tuple[Sequence[FoundObject], float]], least: int, count: int
) -> tuple[Crop | None, str]:
    """:func:`plan_crop` for all objects that are ``shown``, up to ``count`` in an image."""
    if count > MOST_OBJECTS:
        return None, f"whole images: there are more than {MOST_OBJECTS} objects"
    counting = [(one, scale) for objects, scale in shown for one in objects]
    for share, reason in (
        (np.mean([one.inside for one, _ in counting]), "what stands out reaches the border"),
        (np.mean([SMALLEST < one.share < 0.6 for one, _ in counting]), "what stands out is no single object"),
    ):
        if share < 0.95:
            return None, f"whole images: {reason}"
    has_axis = bool(np.mean([one.elongation > 1.3 for one, _ in counting]) >= 0.95)
    if count == 1 and not has_axis:
        return None, "whole images: the object has no long axis to tell its pose by"
    lengths = np.array([one.length * scale for one, scale in counting])
    breadths = np.array([one.breadth * scale for one, scale in counting])
    are_like_most = np.abs(lengths / np.median(lengths) - 1) < 0.25
    if lengths.std() > 0.15 * lengths.mean() or (count > 1 and are_like_most.mean() < 0.95):
        return None, "whole images: the objects differ in size"
    margin = 2 * MARGIN * lengths.max()
    across = breadths.max() if has_axis else max(breadths.max(), lengths.max())
    height, width = (
        math.ceil(max(most + margin, smallest) / MULTIPLE) * MULTIPLE
        for most, smallest in ((across, least / count), (lengths.max(), least))
    )
    objects = "one object" if count == 1 else f"up to {count} objects"
    turned = "each turned into one pose" if _turned(counting) else "all of one pose"
    return (
        Crop(height=height, width=width, count=count, turned=has_axis),
        f"{objects} on a plain ground, {turned if has_axis else 'each cut out'}",
    )


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


def crop_places(size: Crop, pose: Pose, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the pixels of a crop lie in the image: y and x, (size.height, size.width) each.

    >>> y, x = crop_places(Crop(height=2, width=3), Pose((0.5, 1.0), (0.0, 1.0)), 1.0)
    >>> y[:, 0].tolist(), x[0].tolist()
    ([0.0, 1.0], [0.0, 1.0, 2.0])
    """
    down = (np.arange(size.height) - (size.height - 1) / 2) / scale
    right = (np.arange(size.width) - (size.width - 1) / 2) / scale
    dy, dx = pose.direction
    y = pose.centre[0] + right[None] * dy + down[:, None] * dx
    x = pose.centre[1] + right[None] * dx - down[:, None] * dy
    return y, x


def uncrop(
    values: NDArray[np.floating],
    pose: Pose,
    shape: tuple[int, int],
    scale: float,
    outside: NDArray[np.floating],
    belongs: Belongs | None = None,
) -> NDArray[np.float32]:
    """The inverse of :func:`crop`: ``values`` (K, h, w) where they belong in an image of ``shape`` (H, W).

    ``outside``, which broadcasts to (K, H, W), is what stands where the crop does not reach. ``belongs`` says of rows
    (h, 1) and columns (1, W) which places the crop may fill; all, unless it is given.
    """
    found = np.array(np.broadcast_to(outside, (len(values), *shape)), np.float32)
    rows, columns = _reach(pose, values.shape[1:], shape, scale)
    for start in range(
        rows.start, rows.stop, _ROWS
    ):  # coordinates of all pixels of a large image would be very many
        part = slice(start, min(start + _ROWS, rows.stop))
        back, within = _uncropped(values, pose, part, columns, scale)
        if belongs is not None:
            within &= belongs(*np.ogrid[part, columns])
        np.copyto(found[:, part, columns], back, where=within, casting="same_kind")
    return found


def _reach(pose: Pose, size: tuple[int, ...], shape: tuple[int, int], scale: float) -> tuple[slice, slice]:
    """Rows and columns of an image of ``shape`` (H, W) that a crop of ``size`` (h, w) may reach."""
    height, width = size
    dy, dx = (abs(part) for part in pose.direction)
    reaches = (dy * width + dx * height) / (2 * scale), (dx * width + dy * height) / (2 * scale)
    rows, columns = (
        slice(max(0, math.floor(middle - reach)), max(0, min(side, math.ceil(middle + reach) + 1)))
        for middle, reach, side in zip(pose.centre, reaches, shape, strict=True)
    )
    return rows, columns


def _uncropped(
    values: NDArray[np.floating], pose: Pose, rows: slice, columns: slice, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values (K, h, w) at some rows and columns of an image, (K, rows, columns), and which of these places they reach."""
    height, width = values.shape[1:]
    dy, dx = pose.direction
    y, x = np.ogrid[rows, columns]
    y, x = y - pose.centre[0], x - pose.centre[1]
    right, down = y * dy + x * dx, y * dx - x * dy
    row, column = down * scale + (height - 1) / 2, right * scale + (width - 1) / 2
    within = (row >= -0.5) & (row <= height - 0.5) & (column >= -0.5) & (column <= width - 0.5)
    back = np.stack(
        [ndimage.map_coordinates(plane, [row, column], order=1, mode="nearest") for plane in values]
    )
    return back, within


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
