"""The judged area: a region of interest, the same in every image, outside which nothing is an anomaly."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from blemish.data.image import image_info, resize
from blemish.data.masks import read_mask
from blemish.errors import FileError, ImageError
from blemish.limits import MAX_IMAGE_SIDE, MAX_PIXELS

MOST_RUNS = 500_000
"""Runs of a mask, at most; one of more is no drawn area."""


class JudgedArea(BaseModel):
    """A mask (height, width) by the lengths of its runs, row by row, those outside first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    width: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    runs: tuple[NonNegativeInt, ...] = Field(max_length=MOST_RUNS)

    @model_validator(mode="after")
    def _fills(self) -> JudgedArea:
        if self.height * self.width > MAX_PIXELS or sum(self.runs) != self.height * self.width:
            raise ValueError(f"the runs of a mask of {self.width} × {self.height} pixels do not fill it")
        return self

    @classmethod
    def of(cls, marked: NDArray[np.bool_]) -> JudgedArea:
        """The area that a mask (H, W) marks.

        >>> JudgedArea.of(np.array([[False, True], [True, False]])).runs
        (1, 2, 1)
        """
        flat = marked.ravel()
        changes = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *changes.tolist(), len(flat)]).tolist()
        height, width = marked.shape
        return cls(height=height, width=width, runs=tuple([0, *runs] if flat[0] else runs))

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """The area in images of another size: (height, width), not to be changed."""
        return _mask(self, height, width)

    def within(self, other: JudgedArea | None) -> JudgedArea:
        """The part of this area that lies in ``other``, if there is one."""
        if other is None:
            return self
        return JudgedArea.of(self.mask(self.height, self.width) & other.mask(self.height, self.width))


@lru_cache(maxsize=4)
def _mask(area: JudgedArea, height: int, width: int) -> NDArray[np.bool_]:
    inside = np.arange(len(area.runs)) % 2 == 1
    marked = np.repeat(inside, area.runs).reshape(area.height, area.width)
    if (height, width) != marked.shape:
        marked = resize(marked[None].astype(np.float32), (height, width))[0] > 0.5
    marked = np.asarray(marked, dtype=np.bool_)
    marked.setflags(write=False)
    return marked


def read_area(path: str | Path) -> JudgedArea:
    """Read an area from an image, which marks it by any value but 0, or from polygons in JSON.

    JSON has the keys ``width`` and ``height`` of the images and ``polygons``, each a list of corners [x, y].

    Raises
    ------
    FileError
        The file cannot be read, marks nothing, or is no such document.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        area = _from_polygons(path)
    else:
        info = image_info(path)
        try:
            area = JudgedArea.of(read_mask(path, size=(info.width, info.height)))
        except ValidationError as error:
            raise ImageError(
                path, f"is no mask of an area ({error.errors()[0]['msg']})", "draw it in one colour"
            ) from None
    if sum(area.runs[1::2]) == 0:
        raise FileError(path, "marks nothing, so nothing would be judged", "mark the area to judge")
    return area


class _Polygons(BaseModel):
    width: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    height: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    polygons: list[list[tuple[float, float]]] = Field(min_length=1)


def _from_polygons(path: Path) -> JudgedArea:
    remedy = 'write {"width": 640, "height": 480, "polygons": [[[0, 0], [640, 0], [640, 200]]]}'
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        found = _Polygons.model_validate(content)
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise FileError(path, f"is no list of polygons ('{key}': {first['msg']})", remedy) from None
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"is not readable JSON ({error})", remedy) from None
    image = Image.new("1", (found.width, found.height))
    draw = ImageDraw.Draw(image)
    for polygon in found.polygons:
        if len(polygon) < 3:
            raise FileError(path, "has a polygon of fewer than three corners", remedy)
        draw.polygon(polygon, fill=1, outline=1)
    return JudgedArea.of(np.asarray(image, dtype=np.bool_))
