"""Reading a scene by windows: the images of all its modalities together, on one grid of pixels."""

from __future__ import annotations

import math
from collections.abc import Collection
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.data.affine import as_matrix, covered_share, resample_affine, scale_of, scaling
from blemish.data.image import DEPTH_WORDS
from blemish.data.modality import Modality, channel_slices, modality_files
from blemish.data.resampling import ResamplingAxis, resample
from blemish.data.scene_area import SceneArea
from blemish.data.scene_description import MODALITIES_FILE
from blemish.data.scenes import Scene
from blemish.data.windowed import Mosaic, open_windowed, same_field
from blemish.data.windowed_image import DecodedCache, WindowedImage
from blemish.errors import ImageError

PART_LIMIT = 256 * 2**20
"""Bytes of decoded tiles and strips that an open scene keeps."""
WHOLE_LIMIT = 2**30
"""Bytes of a scene's images that can only be decoded whole; a scene with more is refused."""

AUTOMATIC_QUANTILES = 0.001, 0.999
"""Quantiles of a modality's values that an automatic range makes 0 and 1."""

_PROBES, _PROBE_SIDE = 4, 64


class Probed(NamedTuple):
    """Coverage and constancy of a modality in a sample of windows."""

    covered: float
    """Share of the windows' pixels on which the modality is present."""
    constant: float | None
    """Its value where all of these have the same one, else None."""


class SceneReader:
    """An opened scene: images of several sensors as one image of all their channels, read by windows.

    Opening reads headers only; so does unpickling. The grid is that of the modality marked ``grid``. Where that
    one is missing, the grid is derived from another modality and the ``scale`` at which a model was fitted on it;
    without such a scale the modality with most pixels gives the grid. Others are brought to it by bilinear
    resampling with the outer edges of the pixels aligned, the same whatever the window.

    Values are scaled by the full range of the file's own depth, or by the modality's ``range``. A pixel is
    NaN in all channels of a modality where this is absent: the sensor was never used, the file has no-data
    values, NaN or infinity, full transparency, or no tile there; after resampling, where any pixel that it
    is made of is absent.

    One thread may read at a time.

    Parameters
    ----------
    scene: what to open.
    without: names of modalities that are treated as missing although they have files.
    cache: of decoded parts; several scenes may share one. Its own by default.

    Raises
    ------
    ImageError
        A file's header cannot be read, or has other channels than the modality; an image is of another
        shape than the grid's; or what has to be decoded whole is too large.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from blemish.data.scenes import find_scenes
    >>> from blemish.data.maps import write_image
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = write_image(folder / "visible.png", np.ones((3, 40, 60)))
    >>> _ = write_image(folder / "infrared.png", np.zeros((1, 20, 30)))
    >>> (scene,) = find_scenes(folder)
    >>> with SceneReader(scene) as reader:
    ...     reader.channels, reader.height, reader.width, reader.notices
    ...     reader.read(10, 20, 2, 2)[:2].tolist()
    (4, 40, 60, ('infrared: brought from 30 × 20 to 60 × 40 pixels',))
    [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]
    """

    def __init__(
        self, scene: Scene, *, without: Collection[str] = (), cache: DecodedCache | None = None
    ) -> None:
        self.scene = scene
        self.modalities: tuple[Modality, ...] = scene.modalities
        self.channels = sum(modality.channels for modality in self.modalities)
        self._without = tuple(without)
        opened = {modality.name: _open(scene, modality) for modality in self.modalities}
        present = {name: windows for name, windows in opened.items() if windows is not None}
        if not present:
            raise ImageError(scene.folder, "holds none of its modalities' files", "add them, or remove it")
        grid, scale = self._grid(present)
        self.height, self.width = (max(1, round(side / scale)) for side in (grid.height, grid.width))
        transformed = {one.name for one in self.modalities if one.transform is not None}
        for name, windows in present.items():
            # A marked grid need not be the finest; then both are of the finest one, and rounded.
            if name not in transformed:
                _check_field(windows, grid, rounded=any(one.grid for one in self.modalities))
        self.area = SceneArea(scene.area, (self.height, self.width)) if scene.area.paths else None
        """Where the scene is judged; None where all of it is."""
        whole = sum(windows.cached_bytes for windows in present.values())
        whole += 0 if self.area is None else self.area.cached_bytes
        if whole > WHOLE_LIMIT:
            largest = max(present.values(), key=lambda windows: windows.cached_bytes)
            raise ImageError(
                largest.path,
                f"can only be decoded whole, and {scene.name} would take {whole / 2**30:.1f} GiB so",
                "save it as a tiled TIFF",
            )
        self._matrices = self._registered(present, grid, scale)
        self.missing = tuple(
            modality.name
            for modality in self.modalities
            if modality.name not in present or modality.name in self._without
        )
        if len(self.missing) == len(self.modalities):
            raise ImageError(scene.folder, "has no modality left", "keep one")
        self.notices = (*scene.notices, *self._notices(present))
        self._windows = {name: windows for name, windows in present.items() if name not in self.missing}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._shared = cache is not None
        self._cache = cache if cache is not None else DecodedCache(PART_LIMIT + whole)

    @property
    def name(self) -> str:
        """Name of the scene."""
        return self.scene.name

    @property
    def depths(self) -> dict[str, str]:
        """Type of the pixels of each present modality, as NumPy names it."""
        return {name: windows.dtype.name for name, windows in self._windows.items()}

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """Read the window whose first pixel is (top, left): (C, height, width) in [0, 1], NaN where absent.

        Raises
        ------
        ValueError
            The window is empty or leaves the scene.
        ImageError
            A file is damaged where the window needs it, or holds values outside 0..1 and has no range.
        """
        inside = 0 <= top < top + height <= self.height and 0 <= left < left + width <= self.width
        if not inside:
            raise ValueError(
                f"a window of {height} × {width} at ({top}, {left}) is not within {self.height} × {self.width}"
            )
        pixels = np.full((self.channels, height, width), np.nan, np.float32)
        for channels, modality in zip(channel_slices(self.modalities), self.modalities, strict=True):
            if modality.name in self._windows:
                pixels[channels] = self.read_modality(modality.name, top, left, height, width)
        return pixels

    def read_modality(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """Read a window of one present modality alone, (c, height, width); errors as of :meth:`read`."""
        modality = next(one for one in self.modalities if one.name == name)
        return self._read(self._windows[name], modality, top, left, height, width)

    def judged(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """True (height, width) where a window is judged; None where all of the scene is. Errors as of :meth:`read`."""
        return None if self.area is None else self.area.read(top, left, height, width, self._cache)

    def judged_share(self) -> float:
        """Share of the scene that is judged; a scene of which nothing is raises ImageError."""
        return 1.0 if self.area is None else self.area.share(self._cache)

    def leaving_out(self, names: Collection[str]) -> SceneReader | None:
        """The scene without these modalities as well, with the same cache; None where nothing would be left."""
        without = {*self._without, *names}
        if without | {*self.missing} >= {one.name for one in self.modalities}:
            return None
        return SceneReader(self.scene, without=sorted(without), cache=self._cache)

    def check(self) -> None:
        """Raise ImageError for a TIFF that is cut off, as far as that shows without decoding."""
        for windows in self._windows.values():
            windows.check()

    def probed(self) -> dict[str, Probed]:
        """Coverage and constancy of each present modality in 16 windows, spread over the scene.

        Raises
        ------
        ImageError
            As :meth:`read`.
        """
        tops, lefts = (_spread(side) for side in (self.height, self.width))
        size = min(_PROBE_SIDE, self.height), min(_PROBE_SIDE, self.width)
        probes = np.stack([self.read(top, left, *size) for top in tops for left in lefts])
        found: dict[str, Probed] = {}
        first = 0
        for modality in self.modalities:
            values = probes[:, first : first + modality.channels]
            first += modality.channels
            if modality.name in self._windows:
                there = np.isfinite(values)
                values = values[there]
                constant = values.size and values.min() == values.max()
                found[modality.name] = Probed(
                    float(there.all(axis=1).mean()), float(values[0]) if constant else None
                )
        return found

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Empty the cache; files are open only while they are read."""
        if not self._shared:
            self._cache.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.scene, self._without, self._cache if self._shared else None)

    @property
    def finest(self) -> str:
        """Modality with the most pixels."""
        return max(self._windows, key=lambda name: _pixels(self._windows[name]))

    @property
    def scales(self) -> dict[str, float]:
        """Scale of each present modality: its pixels along a side for each pixel of the scene."""
        return {
            name: scale_of(self._matrices[name])
            if name in self._matrices
            else math.sqrt(_pixels(windows) / (self.height * self.width))
            for name, windows in self._windows.items()
        }

    def _grid(self, present: dict[str, WindowedImage]) -> tuple[WindowedImage, float]:
        """The modality that gives the grid, and how many of its pixels along a side are one of the scene's."""
        for modality in self.modalities:
            if modality.grid and modality.name in present:
                return present[modality.name], 1.0
        scales = {modality.name: modality.scale for modality in self.modalities if modality.scale}
        # Of the finest one the size is rounded least.
        plain = {modality.name for modality in self.modalities if modality.transform is None}
        name = max(present, key=lambda name: (name in plain, name in scales, _pixels(present[name])))
        return present[name], scales.get(name, 1.0)

    def _notices(self, present: dict[str, WindowedImage]) -> list[str]:
        """A line for each property of the files that a user may not expect."""
        notices = []
        for modality in self.modalities:
            name, windows = modality.name, present.get(modality.name)
            if windows is None:
                notices.append(
                    f"{name}: missing" + (f", there is no {modality.file}" if modality.file else "")
                )
                continue
            if name in self._without:
                notices.append(f"{name}: left out")
                continue
            if modality.transform is not None:
                notices.append(f"{name}: brought to the grid by its transform in {MODALITIES_FILE}")
            elif (windows.height, windows.width) != (self.height, self.width):
                notices.append(
                    f"{name}: brought from {windows.width} × {windows.height} "
                    f"to {self.width} × {self.height} pixels"
                )
            if modality.depth not in (None, windows.dtype.name) and modality.range is None:
                notices.append(
                    f"{name}: {_in_words(windows.dtype.name)} here, {_in_words(modality.depth)} in most of what "
                    "the model is fitted on; each is scaled by its own full range"
                )
            if isinstance(windows, Mosaic) and windows.missing:
                places = ", ".join(f"row {row} column {column}" for row, column in windows.missing)
                notices.append(f"{name}: no file for {places}, taken as absent")
        return notices

    def automatic_range(self, name: str) -> tuple[float, float]:
        """Quantiles 0.1 % and 99.9 % of a present modality's own values, in 16 windows of its file.

        Raises
        ------
        ImageError
            A file is damaged there, or all its values are the same.
        """
        if name not in self._ranges:
            modality = next(one for one in self.modalities if one.name == name)
            windows = self._windows[name]
            size = min(_PROBE_SIDE, windows.height), min(_PROBE_SIDE, windows.width)
            found = []
            for top in _spread(windows.height):
                for left in _spread(windows.width):
                    values, nowhere = self._values(windows, modality, top, left, *size)
                    found.append(values[:, ~nowhere].ravel())
            every = np.concatenate(found)
            low, high = np.quantile(every, AUTOMATIC_QUANTILES) if every.size else (0.0, 0.0)
            if not low < high:
                problem = "has the same value in all windows that were looked at, so that it has no range"
                raise ImageError(windows.path, problem, "scan it again, or leave it out")
            self._ranges[name] = float(low), float(high)
        return self._ranges[name]

    def _registered(
        self, present: dict[str, WindowedImage], grid: WindowedImage, scale: float
    ) -> dict[str, NDArray[np.float64]]:
        """From places of the scene to own places of each modality that a transform concerns, 3 × 3."""
        transforms = {one.name: one.transform for one in self.modalities if one.name in present}
        own = next(transforms[name] for name, windows in present.items() if windows is grid)
        if own is None and not any(transforms.values()):
            return {}
        # The grid's own places, in those of the modality that the transforms are written for.
        origin = scaling(scale, scale)
        if own is not None:
            origin = np.linalg.inv(as_matrix(own)) @ origin
        elif scale != 1:
            origin = np.eye(3)
        matrices = {
            name: as_matrix(transform) @ origin for name, transform in transforms.items() if transform
        }
        for name, matrix in matrices.items():
            windows = present[name]
            if not covered_share(matrix, (self.height, self.width), (windows.height, windows.width)):
                problem = (
                    f"lies beyond the scene by its transform in {MODALITIES_FILE}, which leaves nothing of it"
                )
                raise ImageError(windows.path, problem, f"run blemish register {self.scene.folder} again")
        return matrices

    def _read(
        self, windows: WindowedImage, modality: Modality, top: int, left: int, height: int, width: int
    ) -> NDArray[np.float32]:
        matrix = self._matrices.get(modality.name)
        if matrix is not None:
            size = windows.height, windows.width

            def read(*window: int) -> NDArray[np.float32]:
                return self._scaled(windows, modality, *window)

            return resample_affine(read, size, modality.channels, matrix, (top, left, height, width))
        if (windows.height, windows.width) == (self.height, self.width):
            return self._scaled(windows, modality, top, left, height, width)
        rows = ResamplingAxis(of=windows.height, to=self.height, start=top, stop=top + height)
        columns = ResamplingAxis(of=windows.width, to=self.width, start=left, stop=left + width)
        source = (rows.first, columns.first, rows.last - rows.first, columns.last - columns.first)
        return resample(self._scaled(windows, modality, *source), rows, columns)

    def _scaled(
        self, windows: WindowedImage, modality: Modality, top: int, left: int, height: int, width: int
    ) -> NDArray[np.float32]:
        """The window of one modality at its own resolution, in [0, 1] or NaN."""
        values, nowhere = self._values(windows, modality, top, left, height, width)
        if modality.range is not None:
            low, high = self.automatic_range(modality.name) if modality.range == "auto" else modality.range
            precise: NDArray[np.float64] = values.astype(np.float64)
            with np.errstate(invalid="ignore"):  # what is not finite is absent
                pixels = np.clip((precise - low) / (high - low), 0, 1).astype(np.float32)
        else:
            pixels = self._by_depth(windows, values, ~nowhere)
        pixels[:, nowhere] = np.nan
        return pixels

    def _values(
        self, windows: WindowedImage, modality: Modality, top: int, left: int, height: int, width: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The file's own values (C, h, w) of a window, and (h, w) where there are none."""
        values, absent = windows.read(top, left, height, width, self._cache)
        nowhere = np.zeros((height, width), np.bool_) if absent is None else absent.copy()
        if modality.no_data is not None:
            nowhere |= (values == modality.no_data).all(axis=0)
        if values.dtype.kind == "f":
            nowhere |= ~np.isfinite(values).all(axis=0)
        return values, nowhere

    def _by_depth(
        self, windows: WindowedImage, values: NDArray[Any], there: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        if windows.full_scale is None:
            raise _without_range(windows)
        if values.dtype.kind == "f":
            present = values[:, there]
            if present.size and not (present.min() >= 0 and present.max() <= 1):
                problem = f"holds values from {present.min():g} to {present.max():g}, outside 0..1"
                raise ImageError(windows.path, problem, "give its 'range' in modalities.yaml")
            floats: NDArray[np.float32] = values.astype(np.float32)
            return floats
        pixels: NDArray[np.float32] = np.divide(values, np.float32(windows.full_scale), dtype=np.float32)
        return pixels


def _reopened(scene: Scene, without: tuple[str, ...], cache: DecodedCache | None) -> SceneReader:
    return SceneReader(scene, without=without, cache=cache)


def _open(scene: Scene, modality: Modality) -> WindowedImage | None:
    files = modality_files(scene.folder, modality)
    if not files:
        return None
    windows = (
        Mosaic(files, modality.dataset)
        if len(files) > 1
        else open_windowed(next(iter(files.values())), modality.dataset)
    )
    if windows.channels != modality.channels:
        problem = (
            f"has {windows.channels} channel{'s' * (windows.channels != 1)} where "
            f"'{modality.name}' has {modality.channels}"
        )
        raise ImageError(windows.path, problem, "convert it, or give it another name")
    if windows.full_scale is None and modality.range is None:
        raise _without_range(windows)
    return windows


def _pixels(windows: WindowedImage) -> int:
    return windows.height * windows.width


def _check_field(windows: WindowedImage, grid: WindowedImage, *, rounded: bool) -> None:
    own, whole = (windows.height, windows.width), (grid.height, grid.width)
    coarse, fine = sorted((own, whole))
    if own != whole and not same_field(coarse, fine, rounded=rounded):
        raise ImageError(
            windows.path,
            f"is {own[1]} × {own[0]} pixels, which is not {grid.path.name} ({whole[1]} × {whole[0]}) "
            "at another resolution",
            "align it by blemish register, or crop the two to one field",
        )


def _without_range(windows: WindowedImage) -> ImageError:
    problem = f"holds values of the type {windows.dtype}, whose full range is unknown"
    return ImageError(windows.path, problem, "give its 'range' in modalities.yaml")


def _in_words(depth: str | None) -> str:
    words = {str(kind): words for kind, words in DEPTH_WORDS.items()}
    return words.get(depth or "", str(depth))


def _spread(length: int) -> list[int]:
    """Starts of probes, evenly from one end to the other."""
    last = max(0, length - _PROBE_SIDE)
    return sorted({round(last * number / (_PROBES - 1)) for number in range(_PROBES)})
