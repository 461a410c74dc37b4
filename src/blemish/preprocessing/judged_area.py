"""The judged area: a region of interest, the same in every image, outside which nothing is an anomaly.

Its places may be of several classes, each of which is scored by itself. The anomaly map of a class is divided by its
usual score, so that one threshold, on the largest of the scores, is a threshold of each class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from blemish.data.fingerprint import Fingerprint
from blemish.data.image import resize
from blemish.errors import UsageError
from blemish.limits import MAX_IMAGE_SIDE, MAX_PIXELS

MOST_RUNS = 500_000
"""Runs of a mask, at most; one of more is no drawn area."""
MOST_CLASSES = 16
"""Classes of regions, at most."""
OBLONG, ALIKE = 0.1, 0.02
"""Logarithms of proportions of sides: from which on an area is clearly oblong, and up to which two are the same."""
LEAST_PIXELS = 9
"""Pixels of a class at the scale of the model, at least."""


def class_name(name: str) -> str:
    """``name``, if it can name a class of regions.

    Raises
    ------
    ValueError
        When it is empty, longer than 64 characters, or not printable.
    """
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise ValueError("the name of a class has 1 to 64 characters that can be printed")
    return name


Runs = Annotated[tuple[NonNegativeInt, ...], Field(max_length=MOST_RUNS)]
"""Lengths of the runs of a mask, row by row, those outside first."""


class RegionClass(BaseModel):
    """A class of regions: its name, its places, and its usual score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(class_name)]
    runs: Runs
    scale: FiniteFloat = Field(1.0, gt=0)
    """Score of the class that most good images stay below, measured on images that do not calibrate."""


class JudgedArea(BaseModel):
    """A mask (height, width) by the lengths of its runs, row by row, those outside first, and its classes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    width: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    runs: Runs
    classes: tuple[RegionClass, ...] = Field((), max_length=MOST_CLASSES)
    """Classes of regions that together are the area; none where all of it is judged as one."""

    @model_validator(mode="after")
    def _fills(self) -> JudgedArea:
        pixels = self.height * self.width
        if pixels > MAX_PIXELS or any(sum(runs) != pixels for runs in (self.runs, *self._class_runs)):
            raise ValueError(f"the runs of a mask of {self.width} × {self.height} pixels do not fill it")
        if len({one.name for one in self.classes}) < len(self.classes):
            raise ValueError("two classes of regions have one name")
        return self

    @model_serializer(mode="wrap")
    def _without_classes(self, serialise: SerializerFunctionWrapHandler) -> dict[str, object]:
        # An area of one class stays readable for versions that know no classes.
        data: dict[str, object] = serialise(self)
        return {key: value for key, value in data.items() if key != "classes" or value}

    @property
    def _class_runs(self) -> list[tuple[int, ...]]:
        return [one.runs for one in self.classes]

    @classmethod
    def of(cls, marked: NDArray[np.bool_]) -> JudgedArea:
        """The area that a mask (H, W) marks.

        >>> JudgedArea.of(np.array([[False, True], [True, False]])).runs
        (1, 2, 1)
        """
        height, width = marked.shape
        return cls(height=height, width=width, runs=_runs(marked))

    @classmethod
    def of_classes(
        cls, labels: NDArray[np.uint8], names: tuple[str, ...], scales: tuple[float, ...] = ()
    ) -> JudgedArea:
        """The area of classes that ``labels`` (H, W) mark: 1 the first of ``names``, and 0 outside all of them."""
        height, width = labels.shape
        classes = tuple(
            RegionClass(name=name, runs=_runs(labels == number), scale=scale)
            for number, (name, scale) in enumerate(
                zip(names, scales or (1.0,) * len(names), strict=True), start=1
            )
        )
        return cls(height=height, width=width, runs=_runs(labels > 0), classes=classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(one.name for one in self.classes)

    @property
    def scales(self) -> tuple[float, ...]:
        """Usual score of each class."""
        return tuple(one.scale for one in self.classes)

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """The area in images of another size: (height, width), not to be changed."""
        return _mask(self, height, width)

    def labels(self, height: int, width: int) -> NDArray[np.uint8]:
        """Number of the class of each place, from 1, and 0 outside: (height, width), not to be changed."""
        return _labels(self, height, width)

    def within(self, other: JudgedArea | None) -> JudgedArea:
        """The part of this area that lies in ``other``, if there is one, each place in its class of ``other``.

        Of an area with classes, that is the part where both have a place in the same class.

        Raises
        ------
        UsageError
            When a class is none of ``other``, or nothing is left.
        """
        if other is None:
            return self
        size = self.height, self.width
        if other.classes:
            labels = np.where(self.mask(*size), other.labels(*size), np.uint8(0))
            if self.classes:
                _refuse_unknown(self.names, other.names)
                numbers = np.array([0, *(1 + other.names.index(name) for name in self.names)], np.uint8)
                labels[labels != numbers[self.labels(*size)]] = 0
            found = JudgedArea.of_classes(labels, other.names, other.scales)
        elif self.classes:
            inside = other.mask(*size)
            found = JudgedArea.of_classes(np.where(inside, self.labels(*size), np.uint8(0)), self.names)
        else:
            found = JudgedArea.of(self.mask(*size) & other.mask(*size))
        if not sum(found.runs[1::2]):
            raise UsageError(
                "--mask: has no place in common with the area that the model judges, so nothing would be judged; mark "
                "some of that area"
            )
        return found

    def scaled(self, scales: tuple[float, ...]) -> JudgedArea:
        """The same area with other usual scores of its classes."""
        classes = tuple(
            one.model_copy(update={"scale": scale}) for one, scale in zip(self.classes, scales, strict=True)
        )
        return self.model_copy(update={"classes": classes})

    def for_a_fit(self) -> JudgedArea:
        """The area as a model judges it: one class alone is none."""
        return self if len(self.classes) > 1 else self.model_copy(update={"classes": ()})

    def check_orientation(self, data: Fingerprint) -> None:
        """Refuse an area that lies across the images of a fit, as EXIF turns images.

        Raises
        ------
        UsageError
            When its longer side is the shorter one of all images, in the same proportion.
        """
        width, height = data.width.median, data.height.median
        own, other = math.log(self.width / self.height), math.log(width / height)
        one_way = data.width.min > data.height.max or data.height.min > data.width.max
        if one_way and abs(own) > OBLONG and abs(own + other) < ALIKE:
            raise UsageError(
                f"--mask: is {self.width} × {self.height} pixels, across the images of {width:.0f} × {height:.0f}, which are "
                "upright by their EXIF orientation; turn the mask as EXIF turns them"
            )

    def check_classes(self, size: tuple[int, int], own: tuple[int, int]) -> None:
        """Refuse a class that is too small to be scored.

        Parameters
        ----------
        size: (height, width) of an image at the scale of the model.
        own: (height, width) of its file.

        Raises
        ------
        UsageError
            Naming the class, and its pixels in the file.
        """
        labels = self.labels(*size)
        for number, one in enumerate(self.classes, start=1):
            if int((labels == number).sum()) < LEAST_PIXELS:
                share = sum(one.runs[1::2]) / (self.height * self.width)
                factor = size[0] / own[0]
                at_scale = f" at the model's scale of {factor:.3g}" if factor != 1 else ""
                larger = ", or fit with a larger --set image.size" if factor < 1 else ""
                raise UsageError(
                    f"--mask: class '{one.name}' marks {share * own[0] * own[1]:.0f} of the {own[1]} × {own[0]} pixels of "
                    f"an image, which are fewer than {LEAST_PIXELS}{at_scale}; mark more of it, join it to another "
                    f"class{larger}"
                )


def _refuse_unknown(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"--mask: the model has no class '{name}'; its classes are {', '.join(known)}")


def _runs(marked: NDArray[np.bool_]) -> tuple[int, ...]:
    flat = marked.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes.tolist(), len(flat)]).tolist()
    return tuple([0, *runs] if flat[0] else runs)


def _full(runs: tuple[int, ...], height: int, width: int) -> NDArray[np.bool_]:
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(height, width)


@lru_cache(maxsize=4)
def _mask(area: JudgedArea, height: int, width: int) -> NDArray[np.bool_]:
    marked = _full(area.runs, area.height, area.width)
    if (height, width) != marked.shape:
        marked = resize(marked[None].astype(np.float32), (height, width))[0] > 0.5
    marked = np.asarray(marked, dtype=np.bool_)
    marked.setflags(write=False)
    return marked


@lru_cache(maxsize=4)
def _labels(area: JudgedArea, height: int, width: int) -> NDArray[np.uint8]:
    planes = (_full(one.runs, area.height, area.width) for one in area.classes)
    if (height, width) != (area.height, area.width):
        planes = (resize(plane[None].astype(np.float32), (height, width))[0] for plane in planes)
    labels = np.where(area.mask(height, width), largest_of(planes), np.uint8(0))
    labels.setflags(write=False)
    return labels


def largest_of(planes: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
    """Number, from 1, of the plane (H, W) with the largest value at each place; of equal ones the first.

    Between two classes of a mask that is resized no place is lost in this way.

    >>> largest_of([np.array([[0.2, 0.5]]), np.array([[0.6, 0.5]])]).tolist()
    [[2, 1]]
    """
    found = highest = None
    for number, plane in enumerate(planes, start=1):
        if found is None or highest is None:
            found, highest = np.ones(plane.shape, np.uint8), plane
        else:
            found[plane > highest] = number
            highest = np.maximum(highest, plane)
    assert found is not None
    return found
