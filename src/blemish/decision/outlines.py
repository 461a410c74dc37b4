"""Outlines of regions: rings along the edges of their pixels, and GeoJSON of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from blemish.decision.regions import EIGHT_CONNECTED

Ring = list[tuple[int, int]]
"""Corners (x, y), the first one again at the end."""

COORDINATES = (
    "pixels of the scene; x to the right, y down, the origin at the upper left corner of the first pixel"
)
"""Stated in the files: GeoJSON would otherwise mean degrees."""


def outline(mask: ArrayLike) -> list[Ring]:
    """Trace the outlines of a mask (H, W) along the edges of its pixels: outer rings clockwise as seen, holes the other way.

    Pixels that touch at a corner alone are of one ring, as regions are 8-connected; corners without a turn are left out.

    >>> outline([[1, 1]])
    [[(0, 0), (2, 0), (2, 1), (0, 1), (0, 0)]]
    """
    inside = np.pad(np.asarray(mask, np.bool_), 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Edges have the mask on their right: along the top to the right, along the right side down, and so on.
    for (dy, dx), start, way in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (0, 1)),
        ((1, 0), (1, 1), (-1, 0)),
        ((0, -1), (0, 1), (0, -1)),
    ):
        edges = inside & ~np.roll(inside, (-dy, -dx), (0, 1))
        for y, x in zip(*np.nonzero(edges), strict=True):
            steps.setdefault((int(x) - 1 + start[0], int(y) - 1 + start[1]), []).append(way)
    rings = []
    for first in sorted(steps, key=lambda corner: (corner[1], corner[0])):
        corner, way, ring = first, (0, 0), []
        while corner in steps:
            ways = steps[corner]
            # Where two pixels touch at a corner, the turn to the left joins them.
            left = (way[1], -way[0])
            chosen = left if left in ways else ways[0]
            ways.remove(chosen)
            if not ways:
                del steps[corner]
            if chosen != way:
                ring.append(corner)
            way, corner = chosen, (corner[0] + chosen[0], corner[1] + chosen[1])
        if ring:
            rings.append([*ring, ring[0]])
    return rings


def region_collection(
    anomaly_map: NDArray[np.floating[Any]],
    pixel_threshold: float,
    *,
    size: tuple[int, int],
    factor: int = 1,
    means_of: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    dpi: float | None = None,
    most: int = 100,
) -> dict[str, Any]:
    """Find the regions above ``pixel_threshold`` as GeoJSON with statistics, the strongest first.

    Properties are ``score`` and ``mean`` of the map, ``pixels``, ``share`` of the scene, ``box`` (x, y, width, height),
    ``square_millimetres`` where the resolution is known, and the means of other images within.

    Parameters
    ----------
    anomaly_map: (h, w), NaN where absent; may be reduced.
    size: (height, width) of the scene.
    factor: pixels of the scene along a side for each of the map.
    means_of: images (h, w) of the size of the map, by name.
    dpi: pixels of the scene an inch.
    most: number of regions; the strongest are kept.
    """
    values = np.nan_to_num(anomaly_map.astype(np.float64))
    labels, count = ndimage.label(values > pixel_threshold, structure=EIGHT_CONNECTED)
    numbers = np.arange(1, count + 1)
    peaks = ndimage.maximum(values, labels, numbers) if count else np.empty(0)
    boxes = ndimage.find_objects(labels)
    features: list[dict[str, Any]] = []
    for index in np.argsort(-np.asarray(peaks), kind="stable")[:most]:
        rows, columns = box = boxes[index]
        own = labels[box] == index + 1
        rings = [
            [
                [min((columns.start + x) * factor, size[1]), min((rows.start + y) * factor, size[0])]
                for x, y in ring
            ]
            for ring in outline(own)
        ]
        area = abs(sum(_signed_area(ring) for ring in rings))
        left, top = columns.start * factor, rows.start * factor
        right, bottom = min(columns.stop * factor, size[1]), min(rows.stop * factor, size[0])
        properties: dict[str, Any] = {
            "number": len(features) + 1,
            "score": float(peaks[index]),
            "mean": float(values[box][own].mean()),
            "pixels": int(area),
            "share": area / (size[0] * size[1]),
            "box": [left, top, right - left, bottom - top],
        }
        if dpi is not None:
            properties["square_millimetres"] = area * (25.4 / dpi) ** 2
        for name, image in (means_of or {}).items():
            inside = image[box][own]
            present = inside[np.isfinite(inside)]
            properties[f"mean of {name}"] = float(present.mean()) if present.size else None
        geometry = {"type": "Polygon", "coordinates": rings}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {
        "type": "FeatureCollection",
        "coordinates": COORDINATES,
        "pixels_a_step": factor,
        **({} if dpi is None else {"dpi": dpi}),
        "features": features,
    }


def _signed_area(ring: list[list[int]]) -> float:
    x, y = np.array(ring, np.float64).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
