"""An area of the images of the served model, and good images as a server stores them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from blemish.serve.area_drawing import AreaDrawing

LEFT: list[Any] = [(0, 0), (16, 0), (16, 39), (0, 39)]
"""Polygon of the left third of the images, 48 × 40 pixels; their dot lies to the right of it."""


def left() -> AreaDrawing:
    return AreaDrawing(width=48, height=40, judge=[LEFT])


def store(good: Path, folder: Path) -> Path:
    """Copies of the images in ``good`` in ``folder``, under names of the server's."""
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(good.iterdir())):
        shutil.copy(path, folder / f"{number:040x}.png")
    return folder
