"""Drawings of the judged area, as the page and the interface give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blemish.errors import FileError, ServeError, UsageError
from blemish.limits import MAX_IMAGE_SIDE, MAX_PIXELS
from blemish.preprocessing.area_files import read_area
from blemish.preprocessing.judged_area import JudgedArea
from blemish.storage.leftovers import temporary_folder

MOST_POLYGONS, MOST_CORNERS = 1000, 10_000

Place = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Corner = tuple[Place, Place]
Polygon = list[Corner]


class AreaDrawing(BaseModel):
    """Polygons on images of ``width`` × ``height`` pixels: what to judge, all of it without one, and what to ignore."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    height: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    judge: list[Polygon] = Field(default_factory=list, max_length=MOST_POLYGONS)
    ignore: list[Polygon] = Field(default_factory=list, max_length=MOST_POLYGONS)

    def area(self) -> JudgedArea:
        """The area that is drawn.

        Raises
        ------
        UsageError
            When a polygon has fewer than three corners or too many, the image is too large, or nothing is left to judge.
        """
        if self.width * self.height > MAX_PIXELS:
            raise UsageError(f"the mask has more than {MAX_PIXELS} pixels; draw it on a smaller image")
        image = Image.new("1", (self.width, self.height), 0 if self.judge else 1)
        draw = ImageDraw.Draw(image)
        for value, polygons in ((1, self.judge), (0, self.ignore)):
            for corners in polygons:
                if not 3 <= len(corners) <= MOST_CORNERS:
                    raise UsageError(
                        f"a polygon has {len(corners)} corners; draw it with 3 to {MOST_CORNERS} of them"
                    )
                draw.polygon(corners, fill=value, outline=value)
        marked = np.asarray(image, dtype=np.bool_)
        if not marked.any():
            raise UsageError("the mask leaves nothing to judge; ignore less, or judge more")
        return JudgedArea.of(marked)


def area_of_image(content: bytes) -> JudgedArea:
    """The area that an image file marks by any value but 0, as ``--mask`` reads it.

    Raises
    ------
    FileError, UsageError
        When it is no image, or marks nothing.
    """
    with temporary_folder() as folder:
        path = Path(folder) / "mask"
        path.write_bytes(content)
        try:
            return read_area(path)
        except FileError as error:
            raise ServeError(f"the mask {error.problem}; {error.remedy}") from None


def drawing_of(content: bytes) -> AreaDrawing:
    """The drawing in JSON.

    Raises
    ------
    ServeError
        In one line, when it is none.
    """
    try:
        return AreaDrawing.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ServeError(
            f"the mask is no drawing ('{key}': {first['msg']}); write "
            '{"width": 640, "height": 480, "judge": [[[0, 0], [640, 0], [640, 200]]], "ignore": []}'
        ) from None
    except (ValueError, RecursionError) as error:
        raise ServeError(f"the mask is not readable JSON ({error}); correct it") from None
