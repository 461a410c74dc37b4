"""Latent features of panels and images, block by block, as arrays for other tools.

Where the network's encoder is convolutional it is run on windows with a margin as wide as one latent place can
see, so the features are those of one run over the whole image. An encoder that was built for patches of one
size (a dense bottleneck, an alignment) or that sees the whole image at once (attention) is run on patches,
``patch.stride`` pixels apart, and a place holds all latent variables of its patch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blemish.data.datasets import find_images
from blemish.data.image import read_image
from blemish.data.open_scenes import open_useful
from blemish.data.scenes import Scene, find_scenes
from blemish.errors import BlemishError, ImageError, Stopped
from blemish.inspection.features import LAYER, Features, read_features
from blemish.models import Autoencoder
from blemish.models.autoencoder import Bottleneck, ImageEncoder
from blemish.observer import Observer
from blemish.preprocessing.tiling import smallest_side
from blemish.preprocessing.transform import Preprocessing
from blemish.report.numbers import counted
from blemish.storage.tiled_array import Block, BlockRecord, Layer, TiledFile, claim

if TYPE_CHECKING:
    from blemish.inspection.detector import Detector

SETTINGS_FILE = "features.json"
_BLOCK_PIXELS = 512  # side of what one block of features is made from, about
_PATCHES_AT_ONCE = 16
_PROBE_SEED = 0
_PROBE_PATCHES = (4, 16)  # small patches: an encoder may see more than four of them


class FeatureSource(Protocol):
    """What features are taken of: a panel, or a prepared image."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """(C, height, width), NaN where absent."""


class FeatureAxis(NamedTuple):
    """How features lie along one side of an image."""

    places: int
    before: int
    """Pixels that are added before the first one."""
    after: int


class Grid(ABC):
    """How an encoder lays features over an image."""

    stride: int
    depth: int
    """d, the features of one place."""
    centre: float
    """The middle of what the first place sees, in pixels from the first one of the padded image."""

    @abstractmethod
    def axis(self, length: int) -> FeatureAxis:
        """Along a side of ``length`` pixels."""

    @abstractmethod
    def window(self, places: slice, axis: FeatureAxis, length: int) -> slice:
        """The pixels of the padded side that ``places`` need."""

    @abstractmethod
    def encode(self, window: Tensor, rows: slice, columns: slice) -> Tensor:
        """(C, h, w) to (d, rows, columns): those places, counted from the first one of the window."""


class Convolutional(Grid):
    """The grid of an encoder that treats every place of an image alike.

    Parameters
    ----------
    reach: first and last pixel that latent place 0 sees, where negative ones lie before the image.
    lost: how many places fewer than strides there are.
    """

    def __init__(self, model: Autoencoder, *, reach: tuple[int, int], lost: int) -> None:
        self._model = model
        self._patch = model.encoder.patch
        self.stride = model.encoder.stride
        self.reach, self.lost = reach, lost
        self.depth = latent_shape(model)[0]
        self.centre = sum(reach) / 2

    def axis(self, length: int) -> FeatureAxis:
        # As Autoencoder.prepare pads: to whole strides, and to one patch at least.
        padded = max(self._patch, math.ceil(length / self.stride) * self.stride)
        before = (padded - length) // 2
        return FeatureAxis(padded // self.stride - self.lost, before, padded - length - before)

    def window(self, places: slice, axis: FeatureAxis, length: int) -> slice:
        padded = length + axis.before + axis.after
        first, last = self.reach
        start = max(0, (places.start * self.stride + first) // self.stride * self.stride)
        stop = (places.stop - 1) * self.stride + last + 1
        # So long that the encoder gives the last place, and not shorter than what it was built for.
        stop = max(stop, (places.stop + self.lost) * self.stride, start + self._patch)
        stop = min(padded, math.ceil(stop / self.stride) * self.stride)
        return slice(min(start, (stop - self._patch) // self.stride * self.stride), stop)

    def encode(self, window: Tensor, rows: slice, columns: slice) -> Tensor:
        return self._model.encode(window[None])[0, :, rows, columns]


class ByPatch(Grid):
    """The grid of an encoder that is run on patches: all latent variables of each are the features of a place."""

    def __init__(self, model: Autoencoder, patch: int, stride: int) -> None:
        self._model, self._patch = model, patch
        self.stride = stride
        self.depth = math.prod(latent_shape(model))
        self.centre = (patch - 1) / 2

    def axis(self, length: int) -> FeatureAxis:
        places = math.ceil(max(0, length - self._patch) / self.stride) + 1
        added = self._patch + (places - 1) * self.stride - length
        return FeatureAxis(places, added // 2, added - added // 2)

    def window(self, places: slice, axis: FeatureAxis, length: int) -> slice:
        return slice(places.start * self.stride, (places.stop - 1) * self.stride + self._patch)

    def encode(self, window: Tensor, rows: slice, columns: slice) -> Tensor:
        step, patch = self.stride, self._patch
        corners = [
            (row * step, column * step)
            for row in range(rows.start, rows.stop)
            for column in range(columns.start, columns.stop)
        ]
        latents = []
        for first in range(0, len(corners), _PATCHES_AT_ONCE):
            patches = torch.stack(
                [
                    window[:, top : top + patch, left : left + patch]
                    for top, left in corners[first : first + _PATCHES_AT_ONCE]
                ]
            )  # (n, C, P, P)
            if self._model.alignment is not None:
                patches = self._model.alignment(patches).image
            latents.append(self._model.encode(patches).flatten(1))  # (n, d)
        return torch.cat(latents).T.reshape(self.depth, rows.stop - rows.start, -1)


def latent_shape(model: Autoencoder) -> tuple[int, int, int]:
    """(d, h, w) of the latent of one patch."""
    last = cast(ImageEncoder | Bottleneck, model.bottlenecks[-1] if model.bottlenecks else model.encoder)
    return last.latent_shape


def encoder_grid(model: Autoencoder, channels: int, *, patch: int, stride: int) -> Grid:
    """How the encoder of ``model`` lays features over an image, found by looking which pixels it heeds.

    Rows of noise are exchanged for others, and what does not change the latent place in the middle is not seen by
    it. Both axes are taken to be alike, as they are in every encoder here.

    Parameters
    ----------
    patch, stride: of the recipe, where the encoder has to be run on patches.
    """
    if model.alignment is not None or any(part.one_size for part in model.bottlenecks):
        return ByPatch(model, patch, stride)
    for patches in _PROBE_PATCHES:
        found = _seen(model, channels, patches)
        if found is not None:
            return found
    return ByPatch(model, patch, stride)


def _seen(model: Autoencoder, channels: int, patches: int) -> Convolutional | None:
    """The grid, if what one place sees fits in a probe of so many patches."""
    step, patch = model.encoder.stride, model.encoder.patch
    side, width = (math.ceil(length / step) * step for length in (patches * patch, patch))
    draw = torch.Generator().manual_seed(_PROBE_SEED)
    device = next(model.parameters()).device
    noise, other = (torch.rand(2, channels, side, width, generator=draw).to(device) for _ in range(2))
    with torch.inference_mode():
        latent = model.encode(noise)  # (2, d, n, m)
        middle = latent.shape[2] // 2
        # Fast convolutions round a value differently when its neighbours change.
        least = 1e-5 * float(latent.abs().max())

        def heeds(rows: slice) -> bool:
            changed = noise.clone()
            changed[:, :, rows] = other[:, :, rows]
            difference = model.encode(changed)[:, :, middle] - latent[:, :, middle]
            return float(difference.abs().max()) > least

        # Both are monotone: what some rows change, more of them change too.
        before = _least(side, lambda row: heeds(slice(0, row)))
        after = _least(side, lambda row: heeds(slice(side - row, side)))
    first, last = before - 1, side - after
    if first == 0 or last == side - 1:
        return None
    return Convolutional(
        model, reach=(first - middle * step, last - middle * step), lost=side // step - latent.shape[2]
    )


def _least(most: int, holds: Callable[[int], bool]) -> int:
    """The least number in 1..``most`` for which ``holds``, which holds for all larger ones too."""
    low, high = 1, most
    while low < high:
        between = (low + high) // 2
        if holds(between):
            high = between
        else:
            low = between + 1
    return low


@dataclass
class Extraction:
    """The output folder of :func:`extract_features`."""

    folder: Path
    features: list[Features] = field(default_factory=list)
    """Of what is finished."""
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

    They are float32 (d, h, w), a vector for each ``stride`` of pixels, NaN where nothing is to be seen there;
    :func:`read_features` reads them. Of what cannot be read the observer is told, and the others go on.

    Raises
    ------
    Stopped
        When the observer asked to stop; finished blocks are on disk.
    FileError, UsageError
        When ``source`` holds nothing to read, or ``out`` cannot be used.
    """
    observer = observer or Observer()
    recipe, preparation = detector.recipe, detector.file.preparation
    folder = Path(out)
    works: Sequence[_SceneWork | _ImageWork]
    if preparation.modalities:
        works = [_SceneWork(scene) for scene in find_scenes(Path(source), preparation.modalities)]
    else:
        works = [_ImageWork(item.name, item.path, preparation) for item in find_images(Path(source))]
    grid = encoder_grid(
        detector.model, preparation.channels, patch=recipe.patch.size, stride=recipe.patch.stride
    )
    claim(
        folder,
        SETTINGS_FILE,
        {
            "recipe": recipe.name,
            "stride": grid.stride,
            "by_patch": isinstance(grid, ByPatch),
            "weights_sha256": detector.file.weights_sha256,
        },
        below=".",
        command="features",
        resume=resume,
        overwrite=overwrite,
    )
    done = Extraction(folder)
    observer.stage(f"Features of {counted(len(works), 'scene' if preparation.modalities else 'image')}")
    for work in works:
        _extract(detector, grid, work, done, observer)
    return done


def _extract(
    detector: Detector,
    grid: Grid,
    work: _SceneWork | _ImageWork,
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
    except ImageError as problem:
        observer.problem(problem)
        done.problems.append(problem)
    else:
        done.features.append(read_features(file.path))


@dataclass(frozen=True)
class _Array:
    """An image in memory as a :class:`FeatureSource`."""

    pixels: NDArray[np.float32]

    @property
    def height(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[2])

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        return self.pixels[:, top : top + height, left : left + width]


class _Opened(NamedTuple):
    source: FeatureSource
    path: Path
    """Of the file or folder, to be named where something is wrong."""
    size: tuple[int, int]
    """(height, width) before the network's resizing."""
    modalities: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _SceneWork:
    scene: Scene

    @property
    def name(self) -> str:
        return self.scene.name

    @contextmanager
    def open(self, observer: Observer) -> Iterator[_Opened]:
        with open_useful(self.scene, observer) as panel:
            names = tuple(one.name for one in panel.modalities)
            size = (panel.height, panel.width)
            yield _Opened(panel, self.scene.folder, size, names, panel.missing, panel.notices)


@dataclass(frozen=True)
class _ImageWork:
    name: str
    path: Path
    preparation: Preprocessing

    @contextmanager
    def open(self, observer: Observer) -> Iterator[_Opened]:
        image = read_image(self.path)
        yield _Opened(_Array(self.preparation.apply(image).pixels), self.path, (image.height, image.width))


def _file(
    detector: Detector, grid: Grid, work: _SceneWork | _ImageWork, opened: _Opened, folder: Path
) -> TiledFile[BlockRecord]:
    source, least = opened.source, smallest_side(detector.recipe.patch.size)
    if min(source.height, source.width) < least:
        raise ImageError(
            opened.path,
            f"is {source.width} × {source.height} pixels, too small for patches of {detector.recipe.patch.size}",
            f"give images of {least} × {least} at least, or fit with a smaller --set patch.size",
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
        "by_patch": isinstance(grid, ByPatch),
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
    if not there.all() and not detector.model.encoder.takes_absent:
        raise ImageError(
            opened.path,
            f"has absent values, which {detector.recipe.name} cannot take",
            "fit fp-cae-add or fp-cae-concat, or fill them",
        )
    device = next(detector.model.parameters()).device
    with torch.inference_mode():
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
        features = grid.encode(tensor, *places).cpu().numpy()  # (d, h, w)
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
        """A window of the padded side, ``before`` pixels of which come before the image."""
        wanted_start, wanted_stop = window.start - before, window.stop - before
        # A window that lies in the padding alone repeats the border as all padding does.
        start = min(max(wanted_start, 0), length - 1)
        stop = max(min(wanted_stop, length), start + 1)
        return cls(start, stop - start, (start - wanted_start, wanted_stop - stop))


def _any_in_cells(
    there: NDArray[np.bool_], first: Sequence[float], shape: tuple[int, int], stride: int
) -> NDArray[np.bool_]:
    """Whether anything of ``there`` (h, w) is in the stride × stride pixels around the middle of each place."""
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
