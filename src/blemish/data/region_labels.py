"""Labels of regions of an image, for classification: label images, GeoJSON and COCO."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from blemish.data.image import read_image
from blemish.errors import FileError, ImageError

STROKE_WIDTH = 3
"""Width in pixels of a line that states none."""
MOST_LABELS = 64
_KEYS = ("class", "label", "name", "category")


class RegionLabels(NamedTuple):
    """Labelled pixels of an image."""

    labels: NDArray[np.uint8]
    """(H, W), 0 where nothing is labelled, else number + 1 of the class."""
    classes: tuple[str, ...]


def read_region_labels(path: str | Path, size: tuple[int, int]) -> RegionLabels:
    """Read labels of an image of ``size`` (width, height).

    A label image has the size of the image; each value but 0 is a class. GeoJSON has polygons, lines and points in
    pixels (x to the right, y down), whose class is the property ``class``, ``label``, ``name`` or ``category``, or that of
    QuPath (``classification.name``); ``width`` is that of a line. COCO has polygons of categories.

    Raises
    ------
    FileError, ImageError
        When the file cannot be read, has fewer than two classes, or labels that are not within the image.
    """
    path = Path(path)
    drawn = _drawn(path, size) if path.suffix.lower() in {".json", ".geojson"} else _from_image(path, size)
    present = [name for number, name in enumerate(drawn.classes, start=1) if (drawn.labels == number).any()]
    if len(present) < 2:
        found = f"labels of one class alone ({present[0]})" if present else "no labels"
        raise FileError(path, f"has {found}", "label at least two classes, such as crack and sound paint")
    return drawn


def _from_image(path: Path, size: tuple[int, int]) -> RegionLabels:
    image = read_image(path)
    if (image.width, image.height) != size:
        problem = f"is {image.width} × {image.height} pixels, the image {size[0]} × {size[1]}"
        raise ImageError(path, problem, "draw the labels on the image at its full size")
    if image.channels != 1 or image.kind == "float32":
        raise ImageError(
            path, "is no label image of one channel", "save a number for each class, 0 where none is"
        )
    values = [int(value) for value in np.unique(image.pixels) if value]
    if len(values) > MOST_LABELS:
        raise ImageError(path, f"has {len(values)} values", f"use at most {MOST_LABELS} classes")
    labels = np.zeros(image.pixels.shape[1:], np.uint8)
    for number, value in enumerate(values, start=1):
        labels[image.pixels[0] == value] = number
    return RegionLabels(labels, tuple(map(str, values)))


def _drawn(path: Path, size: tuple[int, int]) -> RegionLabels:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"is not valid JSON ({error})", "export it again") from None
    if isinstance(data, dict) and "crs" in data:
        raise FileError(path, "is in another coordinate system ('crs')", "export it in pixels of the image")
    try:
        shapes = list(_coco(data) if isinstance(data, dict) and "annotations" in data else _geojson(data))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise FileError(
            path, "is neither GeoJSON nor COCO", "export polygons or lines with a class"
        ) from None
    classes = sorted({name for name, *_ in shapes})
    if len(classes) > MOST_LABELS:
        raise FileError(path, f"has {len(classes)} classes", f"use at most {MOST_LABELS}")
    canvas = Image.new("L", size)
    draw = ImageDraw.Draw(canvas)
    for name, kind, points, width in shapes:
        xs, ys = zip(*points, strict=True)
        if min(xs) < -1 or min(ys) < -1 or max(xs) > size[0] + 1 or max(ys) > size[1] + 1:
            problem = (
                f"has a label of '{name}' at ({xs[0]:g}, {ys[0]:g}), outside {size[0]} × {size[1]} pixels"
            )
            raise FileError(path, problem, "draw the labels on this image, in its pixels")
        value = classes.index(name) + 1
        if kind == "polygon" and len(points) >= 3:
            draw.polygon(points, fill=value)
        elif kind == "line" and len(points) >= 2:
            draw.line(points, fill=value, width=max(1, round(width)))
        else:
            reach = width / 2
            draw.ellipse([xs[0] - reach, ys[0] - reach, xs[0] + reach, ys[0] + reach], fill=value)
    return RegionLabels(np.asarray(canvas), tuple(classes))


_Shape = tuple[str, str, list[tuple[float, float]], float]


def _points(values: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    points = [(float(point[0]), float(point[1])) for point in values]
    if not points or not np.isfinite(points).all():
        raise ValueError("no points")
    return points


def _geojson(data: Any) -> Iterator[_Shape]:
    for feature in data["features"] if isinstance(data, dict) else data:
        properties = feature.get("properties") or {}
        name = next((properties[key] for key in _KEYS if properties.get(key) is not None), None)
        classification = properties.get("classification")
        if isinstance(classification, dict):
            name = classification.get("name", name)
        width = float(properties.get("width", STROKE_WIDTH))
        geometry = feature["geometry"]
        kind, places = geometry["type"], geometry["coordinates"]
        if name is None:
            raise ValueError("no class")
        if kind == "Polygon":
            yield str(name), "polygon", _points(places[0]), width
        elif kind == "MultiPolygon":
            for polygon in places:
                yield str(name), "polygon", _points(polygon[0]), width
        elif kind == "LineString":
            yield str(name), "line", _points(places), width
        elif kind == "MultiLineString":
            for line in places:
                yield str(name), "line", _points(line), width
        elif kind in {"Point", "MultiPoint"}:
            for point in [places] if kind == "Point" else places:
                yield str(name), "point", _points([point]), width
        else:
            raise ValueError(kind)


def _coco(data: dict[str, Any]) -> Iterator[_Shape]:
    names = {one["id"]: str(one["name"]) for one in data["categories"]}
    for annotation in data["annotations"]:
        for polygon in annotation["segmentation"]:
            pairs = list(zip(polygon[::2], polygon[1::2], strict=True))
            yield names[annotation["category_id"]], "polygon", _points(pairs), STROKE_WIDTH
