from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.data.image import LoadedImage, read_image
from blemish.data.items import Item
from blemish.data.maps import write_image
from blemish.inspection import calibration
from blemish.inspection.detector import Detector
from blemish.preprocessing.transform import Preprocessing
from blemish.training import image_source, patches

PREPARATION = Preprocessing(channels=1, convert=False, kind="uint8", size=None)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Three grey images of soft stripes, 40 × 44 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    found = []
    for number in range(3):
        stripes = 0.5 + 0.3 * np.sin(np.arange(44) / (3 + number))
        path = folder / f"{number}.png"
        write_image(path, np.broadcast_to(stripes, (1, 40, 44)))
        found.append(Item(path, path.name))
    return found


@pytest.fixture
def preparation() -> Preprocessing:
    return PREPARATION


@pytest.fixture
def base(fitted: tuple[Detector, Path]) -> Path:
    """Folder of a model to go on from."""
    return fitted[1]


@pytest.fixture
def mixed(good: Path, tmp_path: Path, draw: Callable[..., Any], save: Callable[..., Path]) -> Path:
    """24 good images, and 4 with a dot."""
    folder = Path(shutil.copytree(good, tmp_path / "mixed"))
    for seed in range(4):
        save(folder / f"dot {seed}.png", draw(600 + seed, dot=True))
    return folder


@pytest.fixture
def dots() -> Callable[[Iterable[str]], set[str]]:
    """``dots(names)``: those of images with a dot."""
    return lambda names: {name for name in names if name.startswith("dot")}


@pytest.fixture
def listed() -> Callable[[Path, dict[str, str], Path], Path]:
    """``listed(folder, groups, path)``: a CSV list of the images in a folder, with the groups by file name."""

    def write(folder: Path, groups: dict[str, str], path: Path) -> Path:
        rows = [f"{one},{groups.get(one.name, '')}" for one in sorted(folder.iterdir())]
        path.write_text("path,group\n" + "\n".join(rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every image that fit opens."""
    opened: list[Path] = []

    def spy(path: str | Path, **options: int) -> LoadedImage:
        opened.append(Path(path))
        return read_image(path, **options)

    for module in (
        image_source,
        calibration,
        patches,
        __import__("blemish.data.fingerprint", fromlist=["read_image"]),
    ):
        monkeypatch.setattr(module, "read_image", spy)
    return opened
