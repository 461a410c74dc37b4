"""A page for one scene that zooms into its layers, offline: plain files, also opened from a disk."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from markupsafe import Markup

from blemish._version import __version__
from blemish.report.layers import LayerStack
from blemish.report.page import encodable, environment, heat_gradient
from blemish.storage.atomic import write_text
from blemish.storage.pyramid import TILE, level_sizes

PAGE = "index.html"


def write_deep_zoom_page(path: Path, stack: LayerStack) -> None:
    """Write the page of a stack, whose tiles lie in a folder for each layer beside it, whole or not at all.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    write_text(path, render_deep_zoom_page(stack))


def render_deep_zoom_page(stack: LayerStack) -> str:
    """The page as text; everything but the tiles is in it."""
    # In a script element nothing is escaped, but "<" could end it.
    data = json.dumps(_described(stack), ensure_ascii=True).replace("<", "\\u003c")
    text = (
        environment()
        .get_template("deep_zoom.html")
        .render(
            stack=stack,
            data=Markup(data),
            rows=_rows(stack),
            has_area=stack.dpi is not None,
            groups=_groups(stack),
            heat_gradient=heat_gradient(),
            footer=f"Written by Blemish {__version__} on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC.",
        )
    )
    return encodable(text)


def _described(stack: LayerStack) -> dict[str, Any]:
    return {
        "width": stack.size[1],
        "height": stack.size[0],
        "tile": TILE,
        "pixel": stack.pixel_mm,
        "start": list(stack.start),
        "layers": [
            {
                "name": layer.name,
                "width": layer.raster.width,
                "height": layer.raster.height,
                "levels": len(level_sizes(layer.raster.size)),
                "scale": layer.scale,
                "note": layer.scale_note,
                "heat": layer.is_map,
            }
            for layer in stack.layers
        ],
        "regions": [
            {"rings": feature["geometry"]["coordinates"], "box": feature["properties"]["box"]}
            for feature in stack.regions["features"]
        ],
    }


def _groups(stack: LayerStack) -> list[tuple[str, list[tuple[str, str]]]]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for layer in stack.layers:
        groups.setdefault(layer.group, []).append((layer.name, layer.title))
    return list(groups.items())


def _rows(stack: LayerStack) -> list[dict[str, Any]]:
    return [
        {"number": number, **feature["properties"]}
        for number, feature in enumerate(stack.regions["features"], start=1)
    ]
