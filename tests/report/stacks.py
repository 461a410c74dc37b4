"""A stack of layers that is drawn by formula, for tests of files and pages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.decision.outlines import region_collection
from blemish.report.layers import DataFile, LayerStack, ViewLayer, draw_image, draw_map
from blemish.storage.pyramid import Raster


def raster_of(values: NDArray[np.float32]) -> Raster:
    return Raster(*values.shape, lambda top, left, h, w: values[:, top : top + h, left : left + w])


def make_values(height: int, width: int) -> dict[str, NDArray[np.float32]]:
    """Images and maps; the map is absent in its upper left corner."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    rng = np.random.default_rng(0)
    visible = np.stack([x, y, 0.5 + 0.5 * np.sin(40 * x)]) + rng.normal(0, 0.01, (3, height, width))
    residual = 0.2 * rng.random((1, height, width))
    residual[0, height // 2 : height // 2 + 40, width // 2 : width // 2 + 60] = 1
    residual[0, -30:-10, 20:90] = 0.9
    residual[0, : height // 8, : width // 8] = np.nan
    infrared = 1 - visible[:1]
    return {
        "visible": visible.clip(0, 1).astype(np.float32),
        "infrared": infrared.clip(0, 1).astype(np.float32),
        "residual": residual.astype(np.float32),
    }


def make_stack(values: dict[str, NDArray[np.float32]], **settings: Any) -> LayerStack:
    residual = values["residual"]
    height, width = residual.shape[1:]
    dpi = settings.get("dpi")
    given = {
        "name": "eve",
        "title": "Eve <1510>",
        "size": (height, width),
        "files": [
            DataFile("residual", ("residual",), raster_of(residual)),
            DataFile("visible", ("red", "green", "blue"), raster_of(values["visible"])),
        ],
        "layers": [
            ViewLayer("image-visible", "visible", "Images", raster_of(values["visible"]), draw_image()),
            ViewLayer(
                "image-infra red#1", "infra red #1", "Images", raster_of(values["infrared"]), draw_image()
            ),
            ViewLayer(
                "residual",
                "anomaly map",
                "Maps",
                raster_of(residual),
                draw_map(0.5),
                reduction="max",
                scale_note="Mid-scale is 0.5.",
                is_map=True,
            ),
        ],
        "regions": region_collection(residual[0], 0.5, size=(height, width), dpi=dpi),
        "start": ("image-visible", "residual"),
        "facts": (("score", "1"),),
        "notes": ("infrared: brought from 5 × 5",),
    }
    return LayerStack(**{**given, **settings})
