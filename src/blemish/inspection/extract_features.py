"""Latent features of scenes and images, block by block, as arrays for other tools."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from blemish.data.datasets import find_images
from blemish.data.fingerprint import file_sha256
from blemish.data.image import read_image
from blemish.data.open_scenes import open_useful, scene_sha256
from blemish.data.scenes import Scene, find_scenes
from blemish.detectors.contracts import ImageReader
from blemish.detectors.scoring import ArrayReader
from blemish.errors import BlemishError, ImageError, NameInTheWayError, Stopped
from blemish.inspection.detector import Detector
from blemish.inspection.document import Subject
from blemish.inspection.features import LAYER, Features, read_features
from blemish.observer import Observer
from blemish.preprocessing.tiling import smallest_side
from blemish.preprocessing.transform import Preprocessing
from blemish.report.numbers import counted
from blemish.storage.blocks import Block
from blemish.storage.run_lock import owned
from blemish.storage.tiled_array import BlockRecord, Layer, TiledFile, claim

if TYPE_CHECKING:
    from blemish.detectors.feature_grid import Grid

SETTINGS_FILE = "features.json"
_BLOCK_PIXELS = 512  # side of what one block of features is made from, about


@dataclass
class Extraction:
    """The output folder of :func:`extract_features`."""

    folder: Path
    features: list[Features] = field(default_factory=list)
    """Features of the finished scenes or images."""
    problems: list[BlemishError] = field(default_factory=list)


def extract_features(
    detector: Detector,
    source: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Extraction:
    """Write the latent features of every scene or image in ``source`` to ``out/NAME.zarr``.

    They are float32 (d, h, w), a vector for each ``stride`` of pixels, NaN where nothing is present;
    :func:`read_features` reads them. Images that cannot be read are reported to the observer, and the others go on.

    Raises
    ------
    Stopped
        When the observer asked to stop; finished blocks are on disk.
    FileError, UsageError
        When ``source`` holds nothing to read, or ``out`` cannot be used.
    """
    with owned(out):
        return _extract_all(detector, Path(source), Path(out), resume, overwrite, observer or Observer())


def _extract_all(
    detector: Detector, source: Path, folder: Path, resume: bool, overwrite: bool, observer: Observer
) -> Extraction:
    from blemish.detectors.feature_grid import encoder_grid

    recipe, preprocessing = detector.recipe, detector.file.preprocessing
    subject = detector.file.subject
    works = _WORKS[subject](source, preprocessing)
    grid = encoder_grid(
        detector.autoencoder, preprocessing.channels, patch=recipe.patch.size, stride=recipe.patch.stride
    )
    claim(
        folder,
        SETTINGS_FILE,
        {
            "recipe": recipe.name,
            "stride": grid.stride,
            "by_patch": grid.by_patch,
            "weights_sha256": detector.file.weights_sha256,
        },
        below=".",
        command="features",
        resume=resume,
        overwrite=overwrite,
    )
    done = Extraction(folder)
    observer.stage(f"Features of {counted(len(works), subject.removesuffix('s'))}")
    for work in works:
        _extract(detector, grid, work, done, observer)
    return done


def _extract(
    detector: Detector,
    grid: Grid,
    work: _Subject,
    done: Extraction,
    observer: Observer,
) -> None:
    try:
        with work.open(observer) as opened:
            for notice in opened.notices:
                observer.stage(f"{work.name}: {notice}")
            file = _file(detector, grid, work, opened, done.folder)
            for block in file.unfinished():
                if observer.should_stop():
                    raise Stopped(f"stopped in {work.name}; finished blocks are kept")
                _extract_block(detector, grid, opened, file, block)
                observer.count(len(file.done), file.count)
    except NameInTheWayError as error:
        problem = error.of_image(work.path)
        observer.problem(problem)
        done.problems.append(problem)
    except ImageError as problem:
        observer.problem(problem)
        done.problems.append(problem.without_frames())
    else:
        done.features.append(read_features(file.path))


class _Opened(NamedTuple):
    source: ImageReader
    path: Path
    """Path of the file or folder, for error messages."""
    size: tuple[int, int]
    """(height, width) before the network's resizing."""
    modalities: tuple[str, ...]
    sha256: str
    """Of the files."""
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class _Subject(Protocol):
    """A scene or an image whose features are to be written."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...

    def open(self, observer: Observer) -> AbstractContextManager[_Opened]: ...


@dataclass(frozen=True)
class _SceneWork:
    scene: Scene

    @property
    def name(self) -> str:
        return self.scene.name

    @property
    def path(self) -> Path:
        return self.scene.folder

    @contextmanager
    def open(self, observer: Observer) -> Iterator[_Opened]:
        with open_useful(self.scene, observer) as opened:
            names = tuple(one.name for one in opened.modalities)
            size = (opened.height, opened.width)
            sha256 = scene_sha256(opened)
            yield _Opened(opened, self.scene.folder, size, names, sha256, opened.missing, opened.notices)


@dataclass(frozen=True)
class _ImageWork:
    name: str
    path: Path
    preprocessing: Preprocessing

    @contextmanager
    def open(self, observer: Observer) -> Iterator[_Opened]:
        image = read_image(self.path)
        reader = ArrayReader(self.preprocessing.apply(image).pixels)
        yield _Opened(reader, self.path, (image.height, image.width), (), file_sha256(self.path))


def _scenes(source: Path, preprocessing: Preprocessing) -> Sequence[_Subject]:
    return [_SceneWork(scene) for scene in find_scenes(source, preprocessing.modalities)]


def _images(source: Path, preprocessing: Preprocessing) -> Sequence[_Subject]:
    return [_ImageWork(item.name, item.path, preprocessing) for item in find_images(source)]


_WORKS: Mapping[Subject, Callable[[Path, Preprocessing], Sequence[_Subject]]] = {
    "images": _images,
    "scenes": _scenes,
}


def _file(
    detector: Detector, grid: Grid, work: _Subject, opened: _Opened, folder: Path
) -> TiledFile[BlockRecord]:
    source, least = opened.source, smallest_side(detector.recipe.patch.size)
    if min(source.height, source.width) < least:
        scale = source.height / opened.size[0]
        own = math.ceil(least / scale)
        raise ImageError(
            opened.path,
            f"is {opened.size[1]} × {opened.size[0]} pixels"
            + (
                ""
                if scale == 1
                else f" ({source.width} × {source.height} at the model's scale of {scale:.3g})"
            )
            + f", too small for patches of {detector.recipe.patch.size}",
            f"give images of {own} × {own} at least, or fit with a smaller --set patch.size",
        )
    rows, columns = grid.axis(source.height), grid.axis(source.width)
    attributes = {
        "name": work.name,
        "image": opened.size,
        "modalities": opened.modalities,
        "missing": opened.missing,
        "stride": grid.stride,
        "offset": (grid.centre - rows.before, grid.centre - columns.before),
        "scale": (source.height / opened.size[0], source.width / opened.size[1]),
        "by_patch": grid.by_patch,
        "recipe": detector.recipe.name,
        "weights_sha256": detector.file.weights_sha256,
    }
    return TiledFile(
        folder / work.name,
        BlockRecord,
        {LAYER: Layer((grid.depth,), dtype="float32", together=True)},
        size=(rows.places, columns.places),
        side=max(1, _BLOCK_PIXELS // grid.stride),
        attributes=attributes,
        content=opened.sha256,
    )


def _extract_block(
    detector: Detector, grid: Grid, opened: _Opened, file: TiledFile[BlockRecord], block: Block
) -> None:
    source = opened.source
    spans, places, first = [], [], []
    for wanted, length in ((block.rows, source.height), (block.columns, source.width)):
        axis = grid.axis(length)
        window = grid.window(wanted, axis, length)
        spans.append(_Span.of(window, axis.before, length))
        origin = window.start // grid.stride
        places.append(slice(wanted.start - origin, wanted.stop - origin))
        first.append(wanted.start * grid.stride + grid.centre - window.start - (grid.stride - 1) / 2)
    rows, columns = spans
    pixels = source.read(rows.start, columns.start, rows.length, columns.length)
    pixels = np.pad(pixels, [(0, 0), rows.added, columns.added], mode="edge")
    there = np.isfinite(pixels)
    if not there.all() and not grid.takes_absent:
        raise ImageError(
            opened.path,
            f"has absent values, which {detector.recipe.name} cannot take",
            "fit fp-cae-add or fp-cae-concat, or fill them",
        )
    features = grid.features(pixels, *places)  # (d, h, w)
    shown = _any_in_cells(np.asarray(there.any(axis=0)), first, block.shape, grid.stride)
    file.write(LAYER, block, np.where(shown, features, np.nan))
    file.finish(BlockRecord(row=block.row, column=block.column))


class _Span(NamedTuple):
    """Pixels of one side of the image, and how many to add before and after them."""

    start: int
    length: int
    added: tuple[int, int]

    @classmethod
    def of(cls, window: slice, before: int, length: int) -> _Span:
        """Window of the padded side, ``before`` pixels of which come before the image."""
        wanted_start, wanted_stop = window.start - before, window.stop - before
        # A window that lies in the padding alone repeats the border as all padding does.
        start = min(max(wanted_start, 0), length - 1)
        stop = max(min(wanted_stop, length), start + 1)
        return cls(start, stop - start, (start - wanted_start, wanted_stop - stop))


def _any_in_cells(
    there: NDArray[np.bool_], first: Sequence[float], shape: tuple[int, int], stride: int
) -> NDArray[np.bool_]:
    """True if anything of ``there`` (h, w) is in the stride × stride pixels around the middle of each place."""
    total = np.pad(there.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    starts = [
        math.floor(start) + stride * np.arange(count) for start, count in zip(first, shape, strict=True)
    ]
    (top, bottom), (left, right) = (
        (np.clip(at, 0, length), np.clip(at + stride, 0, length))
        for at, length in zip(starts, there.shape, strict=True)
    )
    inside = (
        total[np.ix_(bottom, right)]
        - total[np.ix_(top, right)]
        - total[np.ix_(bottom, left)]
        + total[np.ix_(top, left)]
    )
    return np.asarray(inside > 0)
