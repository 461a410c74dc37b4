"""Views of one image for the reader: image, reconstruction, heat map and regions, drawn at the size of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blemish.decision.records import Inspection
from blemish.decision.regions import Region
from blemish.report.colours import fit_map, fitted, glow, heat, overlay, size_within
from blemish.report.numbers import counted, number
from blemish.report.page import FigurePanel


@dataclass(frozen=True)
class ImageViews:
    """Images of one inspection, all at the size of the image.

    ``image`` and ``reconstruction`` are (C, H, W), of 8 or 16 bits or in [0, 1]; ``map`` is the anomaly map, (H, W), at least 0; ``mask``
    is the ground-truth mask, (H, W), if there is one.
    """

    image: npt.NDArray[np.floating]
    reconstruction: npt.NDArray[np.floating] | None
    map: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_] | None = None


def regions_in_words(regions: Sequence[Region]) -> str:
    """Sentence on the number of regions and the strongest one; empty without regions."""
    if not regions:
        return ""
    first = regions[0]
    return (
        f"{counted(len(regions), 'region')}; the strongest is {first.width} × {first.height} pixels "
        f"at ({first.x}, {first.y}), peak {number(first.peak)}"
        + (f", in class {first.region_class}" if first.region_class else "")
    )


def image_panels(
    found: ImageViews, record: Inspection, pixel_threshold: float, side: int
) -> list[FigurePanel]:
    """Image, reconstruction where there is one, heat map, and regions, each with a longer side of at most ``side``."""
    # Heat and boxes are drawn at the size of the page: drawn larger and then reduced, a defect of a few
    # pixels and the lines around it would fade.
    size = size_within(found.map.shape, side)
    small = size if max(found.map.shape) > side else found.map.shape
    panels = [FigurePanel("image", fitted(found.image, small))]
    if found.reconstruction is not None:
        panels.append(FigurePanel("reconstruction", fitted(found.reconstruction, small)))
    panels.append(FigurePanel("heat map", heat(fit_map(found.map, small), pixel_threshold), "map"))
    level = record.region_threshold(found.map, pixel_threshold)
    drawn = overlay(found.image, found.map, level, record.regions, mask=found.mask, side=side)
    panels.append(
        FigurePanel("regions" if found.mask is None else "regions, ground-truth mask outlined", drawn)
    )
    return panels


def two_panels(
    found: ImageViews, regions: Sequence[Region], pixel_threshold: float, level: float, side: int
) -> list[FigurePanel]:
    """Image, and its anomaly map over it with the regions above ``level`` outlined; longer sides of ``side`` pixels."""
    size = size_within(found.map.shape, side)
    return [
        FigurePanel("image", fitted(found.image, size)),
        FigurePanel(
            "anomaly map over the image",
            glow(found.image, found.map, pixel_threshold, level, regions, side=side),
        ),
    ]
