"""Readers and encoders under test, each a function of the path of an image file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blemish.data.image import image_info, read_image
from blemish.data.items import Item
from blemish.data.masks import read_mask
from blemish.data.open_scenes import open_scenes
from blemish.data.windowed import open_windowed
from blemish.data.windowed_image import DecodedCache, WindowedImage
from blemish.errors import BlemishError, FileError
from blemish.jpeg.batch.plan import EncodingJob
from blemish.jpeg.batch.settings import BatchSettings
from blemish.jpeg.batch.worker import encode_one
from blemish.jpeg.file import from_bytes
from blemish.jpeg.source_image import read_source
from blemish.observer import Observer
from tests.faults.corpus import HEIGHT, WIDTH, BaseFile, scene_files
from tests.faults.watchdog import Wrong

Target = Callable[[Path], None]

PATCH = 16
CACHE = 2**20

_LOSSLESS, _QUALITY = BatchSettings(lossless=True), BatchSettings(quality=50)
_OWN_DEFECT = "report this as a defect"


def image(path: Path) -> None:
    """Read an image into memory; its header must promise what comes."""
    info: object
    try:
        info = image_info(path)
    except BlemishError as error:
        info = error
    loaded = read_image(path)
    pixels = loaded.pixels
    found = (loaded.channels, loaded.kind, loaded.width, loaded.height)
    if isinstance(info, BlemishError):
        raise Wrong(f"read, but its header is refused: {info.args[0].partition(': ')[2]}")
    if vars(info) != dict(zip(("channels", "kind", "width", "height"), found, strict=True)):
        raise Wrong(f"header says {info}, pixels are {found}")
    if pixels.ndim != 3 or pixels.size == 0:
        raise Wrong(f"pixels of shape {pixels.shape}")
    if loaded.kind == "float32" and not ((pixels >= 0) & (pixels <= 1)).all():
        raise Wrong("floats beyond 0..1")


def windows(path: Path) -> None:
    """Read an image by windows; a part of a window must be the same read by itself."""
    opened = open_windowed(path)
    opened.check()
    sides = (opened.channels, opened.height, opened.width)
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise Wrong(f"opened with the sides {sides}")
    height, width = min(opened.height, 40), min(opened.width, 40)
    places = {(0, 0), (opened.height - height, opened.width - width), (opened.height // 2 - height // 2, 0)}
    cache_of_wholes, cache_of_parts = DecodedCache(CACHE), DecodedCache(CACHE)
    for top, left in sorted(places):
        whole = opened.read(top, left, height, width, cache_of_wholes)
        part = opened.read(top + height // 3, left + width // 4, 1, width // 2 or 1, cache_of_parts)
        if whole.values.shape != (opened.channels, height, width) or whole.values.dtype != opened.dtype:
            raise Wrong(f"window of {whole.values.shape} {whole.values.dtype}")
        columns = slice(width // 4, width // 4 + (width // 2 or 1))
        inside = (slice(None), slice(height // 3, height // 3 + 1), columns)
        if not np.array_equal(whole.values[inside], part.values, equal_nan=opened.dtype.kind == "f"):
            raise Wrong("other values in a smaller window")


def source(path: Path) -> None:
    """Read an image to encode."""
    found = read_source(path)
    if found.pixels.dtype != np.uint8 or found.pixels.size == 0 or found.pixels.shape[2:] not in {(), (3,)}:
        raise Wrong(f"pixels of shape {found.pixels.shape} and type {found.pixels.dtype}")
    read_source(path, keep_metadata=False)


def lossless(path: Path) -> None:
    """Recode a JPEG file without loss."""
    _encode(path, _LOSSLESS)


def quality(path: Path) -> None:
    """Encode an image as a JPEG of quality 50."""
    _encode(path, _QUALITY)


def _encode(path: Path, settings: BatchSettings) -> None:
    job = EncodingJob(Item(path, path.name), path.parent / "out", "image.jpg", settings, False, "")
    result = encode_one(job)
    if isinstance(result, FileError):
        if _OWN_DEFECT in str(result):
            raise Wrong(result.problem)
        raise result
    if not result.data:
        raise Wrong("no bytes")


def coefficients(path: Path) -> None:
    """Read the coefficients of a JPEG file."""
    found = from_bytes(path.read_bytes(), name=path)
    for plane in found.planes:
        if plane.coefficients.shape[2:] != (8, 8) or plane.table.shape != (8, 8):
            raise Wrong(f"planes of {plane.coefficients.shape} with tables of {plane.table.shape}")


def mask(path: Path) -> None:
    """Read a mask of an image of the size that all intact files have."""
    found = read_mask(path, size=(WIDTH, HEIGHT))
    if found.shape != (HEIGHT, WIDTH) or found.dtype != np.bool_:
        raise Wrong(f"mask of shape {found.shape} and type {found.dtype}")


class _Problems(Observer):
    """Keeps the first file that cannot be used."""

    def __init__(self) -> None:
        self.first: BlemishError | None = None

    def problem(self, error: BlemishError) -> None:
        self.first = self.first or error


def scenes(path: Path) -> None:
    """Open a folder of two scenes, of which one has the file as a third sensor, and read them."""
    folder = path.parent / f"scenes-{path.stem}"
    if not folder.exists():
        _paint(folder, path.name)
    (folder / "b" / path.name).write_bytes(path.read_bytes())
    observer = _Problems()
    opened = open_scenes(folder, patch=PATCH, observer=observer)
    for reader in opened.readers:
        reader.read(0, 0, min(reader.height, 40), min(reader.width, 40))
    if observer.first is not None:
        raise observer.first


def _paint(folder: Path, sensor: str) -> None:
    """Two scenes of two sensors, and the intact file of the name ``sensor`` in the first, if there is one."""
    intact_files = _scene_files()
    for scene in ("a", "b"):
        (folder / scene).mkdir(parents=True)
        for name, number in (("visible.tif", 0), ("infrared.tif", 1)):
            (folder / scene / name).write_bytes(intact_files[number].data)
    for file in intact_files:
        if file.name == sensor:
            (folder / "a" / sensor).write_bytes(file.data)


_scene_files = cache(scene_files)


TARGETS: Mapping[str, Target] = {
    "image": image,
    "windows": windows,
    "source": source,
    "lossless": lossless,
    "quality": quality,
    "coefficients": coefficients,
    "scenes": scenes,
    "mask": mask,
}


# -- files that were cut off ---------------------------------------------------------------------------

Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Intact:
    """An intact file, and its pixels by each reader that reads it."""

    file: BaseFile
    pixels: Mapping[str, Pixels]


def _in_memory(path: Path) -> Pixels:
    return read_image(path).pixels


def _by_windows(path: Path) -> Pixels:
    opened: WindowedImage = open_windowed(path)
    opened.check()
    read = opened.read(0, 0, opened.height, opened.width, DecodedCache(CACHE))
    present = True if read.absent is None else ~read.absent
    return np.where(present, read.values, 0)


def _to_encode(path: Path) -> Pixels:
    return read_source(path).pixels


READERS: Mapping[str, Callable[[Path], Pixels]] = {
    "read_image": _in_memory,
    "open_windowed": _by_windows,
    "read_source": _to_encode,
}


def intact(files: Iterable[BaseFile], folder: Path) -> list[Intact]:
    """The files with their pixels; ``folder`` is for temporary files."""
    found = []
    for file in files:
        path = folder / file.name
        path.write_bytes(file.data)
        pixels = {}
        for name, read in READERS.items():
            values = _read_or_none(read, path)
            if values is not None:
                pixels[name] = values
        found.append(Intact(file, pixels))
        path.unlink()
    return found


def _read_or_none(read: Callable[[Path], Pixels], path: Path) -> Pixels | None:
    try:
        return read(path)
    except BlemishError:
        return None


def cut_off(path: Path, whole: Intact) -> None:
    """Read a file that was cut off: each reader must refuse it, or give all pixels of the whole one."""
    refused: BlemishError | None = None
    for name, expected in whole.pixels.items():
        try:
            found = READERS[name](path)
        except BlemishError as error:
            refused = error
            continue
        if not np.array_equal(found, expected):
            raise Wrong(f"{name} gives other pixels")
    if refused is not None:
        raise refused
