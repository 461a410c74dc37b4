"""Files that mark the judged area: images, whose values may be classes of regions, and polygons in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngImageFile
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from scipy import ndimage

from blemish.data.image import image_info
from blemish.data.masks import marked_by, mask_planes
from blemish.data.opening import first_bytes, image_format
from blemish.errors import FileError, ImageError
from blemish.limits import MAX_IMAGE_SIDE
from blemish.preprocessing.judged_area import LEAST_PIXELS, MOST_CLASSES, JudgedArea, class_name

OTHER = "other"
"""Class of the polygons without one, where others have one."""
LARGE_SHARE = 0.9
"""Share of a label image that large classes cover at least; smooth borders cover the rest."""
LEAST_SHARE = 0.01
"""Share of a class among the places of a label image with smooth borders, at least."""
LEAST_STEP = 8
"""Grey levels by which such classes differ at least; those of a blurred mask differ by less."""


def read_area(path: str | Path) -> JudgedArea:
    """Read an area from an image or from polygons in JSON.

    An image marks it by any value but 0. An image of few values, each of which has places of its own, marks a class of
    regions by each, named by its grey value, its number in the palette or its colour (``#ff0000``); a mask in one
    colour, also one with smooth borders, marks one area.

    JSON has the keys ``width`` and ``height`` of the images and ``polygons``, each a list of corners [x, y], or an
    object with such ``points`` and a ``class``. Where polygons overlap, the later one counts.

    Raises
    ------
    FileError
        The file cannot be read, marks nothing, is no such document, or has classes that are too small or too many.
    """
    path = Path(path)
    try:
        area = _from_polygons(path) if path.suffix.lower() == ".json" else _from_image(path)
    except ValidationError as error:
        raise ImageError(
            path, f"is no mask of an area ({error.errors()[0]['msg']})", "draw it in one colour"
        ) from None
    if sum(area.runs[1::2]) == 0:
        raise FileError(path, "marks nothing, so nothing would be judged", "mark the area to judge")
    return area


# -- images --------------------------------------------------------------------------------------------


def _from_image(path: Path) -> JudgedArea:
    info = image_info(path)
    planes, least = mask_planes(path, size=(info.width, info.height))
    marked = marked_by(planes, least)
    if planes.dtype.kind != "u" or len(planes) not in (1, 3):
        return JudgedArea.of(marked)
    codes = planes[0].astype(np.int64)
    for plane in planes[1:]:
        codes = (codes << 16) | plane
    values = _class_values(path, codes, marked, len(planes))
    if len(values) < 2:
        return JudgedArea.of(marked)
    labels = np.zeros(codes.shape, np.uint8)
    for number, value in enumerate(values, start=1):
        labels[marked & (codes == value)] = number
    return JudgedArea.of_classes(labels, _names(path, values, len(planes)))


def _class_values(
    path: Path, codes: NDArray[np.int64], marked: NDArray[np.bool_], channels: int
) -> list[int]:
    """Values that are classes of regions; none of a mask that is drawn in one colour.

    A smooth border has values, too, but each only beside others: a class has places all of whose neighbours are its
    own.
    """
    values, counts = np.unique(codes[marked], return_counts=True)
    if len(values) < 2:
        return []
    pixels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    is_flat = ndimage.minimum_filter(codes, 3) == ndimage.maximum_filter(codes, 3)
    large = np.unique(codes[marked & is_flat]).tolist()
    if len(large) < 2:
        return []
    small = [value for value in pixels if value not in set(large)]
    if not small:
        if len(large) > MOST_CLASSES:
            raise ImageError(
                path,
                f"has {len(large)} values, and each is a class of regions, of which there are at most {MOST_CLASSES}",
                "draw classes of one kind in one value, or the area in one colour",
            )
        return [int(value) for value in large]
    share = sum(pixels[value] for value in large) / int(counts.sum())
    if share < LARGE_SHARE:
        return []
    if len(small) <= MOST_CLASSES:
        worst = min(small, key=lambda value: (pixels[value], value))
        (name,) = _names(path, [worst], channels)
        raise ImageError(
            path,
            f"marks classes of regions by its values, and '{name}' is too small for one: {pixels[worst]} pixels, none of "
            "them with its own value all around",
            "draw it larger, or leave it out; of a mask with smooth borders, draw them sharp",
        )
    drawn = [value for value in large if pixels[value] >= LEAST_SHARE * int(counts.sum())]
    if len(drawn) > 1 and min(np.diff(drawn)) > LEAST_STEP:
        raise ImageError(
            path,
            f"has {len(drawn)} large values, as classes of regions, and {len(small)} more at their borders",
            "save the label image as PNG, with sharp borders, or draw the area in one colour",
        )
    return []


def _names(path: Path, values: Iterable[int], channels: int) -> tuple[str, ...]:
    """Names of classes by the codes of their values: grey value, number in the palette, or colour."""
    palette = _palette(path) if channels == 3 else {}
    names = []
    for value in values:
        colour = (value >> 32, value >> 16 & 0xFFFF, value & 0xFFFF)
        if channels == 1:
            names.append(str(value))
        elif colour in palette:
            names.append(str(palette[colour]))
        elif len(set(colour)) == 1:
            names.append(str(colour[0]))
        else:
            names.append("#" + "".join(f"{part:02x}" for part in colour))
    return tuple(names)


def _palette(path: Path) -> dict[tuple[int, int, int], int]:
    """Number of each colour in the palette of a PNG file, the first one of equal colours; empty without a palette."""
    found: dict[tuple[int, int, int], int] = {}
    if image_format(first_bytes(path)) == "PNG":
        with PngImageFile(path) as image:
            entries = (image.mode == "P" and image.getpalette()) or []
        for number in range(len(entries) // 3):
            red, green, blue = entries[3 * number : 3 * number + 3]
            found.setdefault((red, green, blue), number)
    return found


# -- polygons ------------------------------------------------------------------------------------------

_Corners = list[tuple[float, float]]


class _Polygon(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    points: _Corners
    region_class: Annotated[str, AfterValidator(class_name)] | None = Field(None, alias="class")


class _Polygons(BaseModel):
    width: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    height: int = Field(ge=1, le=MAX_IMAGE_SIDE)
    polygons: list[_Polygon | _Corners] = Field(min_length=1)


def _from_polygons(path: Path) -> JudgedArea:
    remedy = (
        'write {"width": 640, "height": 480, "polygons": [[[0, 0], [640, 0], [640, 200]]]}, or for a polygon of a class '
        '{"class": "seal", "points": [[0, 0], [640, 0], [640, 200]]}'
    )
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        found = _Polygons.model_validate(content)
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("_", "list[")))
        raise FileError(path, f"is no list of polygons ('{key}': {first['msg']})", remedy) from None
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"is not readable JSON ({error})", remedy) from None
    polygons = [one if isinstance(one, _Polygon) else _Polygon(points=one) for one in found.polygons]
    named = any(one.region_class is not None for one in polygons)
    names = tuple(dict.fromkeys(one.region_class or OTHER for one in polygons)) if named else ("",)
    if len(names) > MOST_CLASSES:
        raise FileError(
            path,
            f"has {len(names)} classes of regions, of which there are at most {MOST_CLASSES}",
            "give polygons of one kind one class",
        )
    image = Image.new("L", (found.width, found.height))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        if len(polygon.points) < 3:
            raise FileError(path, "has a polygon of fewer than three corners", remedy)
        number = 1 + names.index(polygon.region_class or OTHER) if named else 1
        draw.polygon(polygon.points, fill=number, outline=number)
    labels = np.asarray(image)
    if not named:
        return JudgedArea.of(labels > 0)
    for number, name in enumerate(names, start=1):
        pixels = int((labels == number).sum())
        if labels.any() and pixels < LEAST_PIXELS:
            raise FileError(
                path,
                f"class '{name}' marks {pixels} of {found.width} × {found.height} pixels, too few for a class of regions",
                "draw it larger, or leave it out; where polygons overlap, the later one counts",
            )
    return JudgedArea.of_classes(labels, names)
