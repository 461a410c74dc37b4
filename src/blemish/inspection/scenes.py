"""Panels inspected block by block into maps, records and a report; memory does not depend on their size.

    panel ─► window of a block ─► tiles ─► autoencoder ─► residuals ─► blend ─► block of each map
                                                                            └─► scores ─► record ─► report

Every tile of the panel-wide plan that touches a block is examined for it, so a map shows no seam between blocks
and is what one pass over the whole panel would give. A tile on the border of two blocks is examined for both:
blocks are as large as it takes to keep that below a tenth of the work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat
from scipy import ndimage
from torch import Tensor

from blemish.data.open_scenes import open_useful
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import Scene, find_scenes
from blemish.decision import Inspection, Region, benjamini_hochberg, find_regions, image_score, p_values
from blemish.decision.regions import EIGHT_CONNECTED
from blemish.errors import BlemishError, FileError, ImageError, Stopped, UsageError, nearest
from blemish.inspection.scene_page import Inspected, write_overviews, write_panel_report
from blemish.models.modal_similarity import ModalSSIM, modal_residuals
from blemish.observer import Observer
from blemish.preprocessing.tiling import Blender, TilePlan
from blemish.report import ModelSummary
from blemish.report.numbers import counted
from blemish.storage.records_log import RecordsLog
from blemish.storage.tiled_array import (
    Block,
    BlockRecord,
    Layer,
    TiledFile,
    claim,
    open_tiled,
    reading,
    tiled,
)

if TYPE_CHECKING:
    from blemish.inspection.detector import Detector

RECORDS_FILE, SETTINGS_FILE, REPORT_FILE = "inspections.jsonl", "inspection.json", "report.html"
MAPS, OVERVIEWS = "maps", "overviews"
SQUARE = 128
"""Side of the squares that are scored where the calibration does not say."""
LEAST_SHOWN = 0.5
"""Share of a square that has to show something for it to be scored, as in the calibration."""
OVERVIEW_SIDE = 2_000
MOST_REGIONS, MOST_SQUARES = 100, 20
# Enough tiles at a time for the network to be busy, few enough for its features to stay in memory.
_PIXELS_AT_ONCE = 2**17
_SMALLEST_BLOCK = 512
_TILES_A_SIDE = 21  # (22 / 21)² is just below 1.1


class ScoredSquare(BaseModel):
    """One scored square of a panel, in its pixels."""

    model_config = ConfigDict(frozen=True)

    x: int
    y: int
    width: int
    height: int
    score: FiniteFloat
    p_value: FiniteFloat


class ModalityRecord(BaseModel):
    """What became of one modality of a scene."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["present", "missing", "hidden"]
    similarity: FiniteFloat | None
    """Mean SSIM of its reconstruction, seen by the network; None where it was not."""
    from_others: FiniteFloat | None
    """Mean SSIM of its reconstruction from the other modalities alone; None where that cannot be told."""


class SceneRecord(Inspection):
    """What was found in one scene.

    The panel is scored square by square, since a panel is no image among many alike: ``score`` is the highest
    and ``threshold`` that of a square. ``p_value`` combines those of all squares (Simes 1986), and
    ``is_anomalous`` says whether any square stays called when the false-discovery rate among the squares is kept
    to the false-reject rate (Benjamini and Hochberg 1995); with a threshold without a promise, whether any
    square is above it. The largest ``regions`` come first; they are found on the overview, so their boxes and
    areas are as coarse as it is.
    """

    squares: int
    """How many were scored."""
    above: int
    """How many of them are above the threshold; the false-reject rate allows that share of good ones."""
    called: int
    """How many stay called in spite of their number."""
    strongest: tuple[ScoredSquare, ...]
    modalities: tuple[ModalityRecord, ...]
    notices: tuple[str, ...]


class Sum(NamedTuple):
    """Of values over the pixels where there are any."""

    total: float
    pixels: int


class InspectedBlock(BlockRecord):
    """What the journal keeps of a finished block."""

    scores: tuple[tuple[FiniteFloat | None, ...], ...]
    """Of its squares, row by row; None where nothing is to be seen."""
    own: tuple[Sum, ...]
    """Of each modality, 1 − SSIM of its reconstruction."""
    cross: tuple[Sum, ...]
    """Of each modality, 1 − SSIM of its reconstruction from the others."""
    reading: FiniteFloat
    computing: FiniteFloat
    writing: FiniteFloat
    """Seconds."""


class BlockMaps(NamedTuple):
    """What is seen in one block (h, w); NaN stands for what is absent."""

    image: NDArray[np.float32]
    """(C, h, w), as the sensors took it."""
    reconstruction: NDArray[np.float32]
    """(C, h, w) from what the network was shown; of an absent modality, what the others tell of it."""
    residual: NDArray[np.float32]
    """(h, w), what is scored."""
    own: NDArray[np.float32]
    """(M, h, w), 1 − SSIM of each modality's own reconstruction."""
    cross: NDArray[np.float32]
    """(M, h, w), 1 − SSIM of each modality's reconstruction from the others."""


@dataclass
class SceneInspection:
    """The output folder of an inspection of panels."""

    folder: Path
    settings: dict[str, Any]
    journal: RecordsLog[SceneRecord]
    problems: list[BlemishError] = field(default_factory=list)

    @property
    def records(self) -> list[SceneRecord]:
        """Of the finished scenes."""
        return self.journal.records

    def map(self, scene: str, name: str) -> NDArray[np.float32]:
        """A whole map of a finished scene: ``residual`` (H, W), ``own`` or ``cross`` (M, H, W); NaN where absent.

        Raises
        ------
        FileError
            When it cannot be read.
        """
        path = tiled(self.folder / MAPS / scene)
        group = open_tiled(path)
        with reading(path):
            return np.asarray(group[name][...], np.float32)

    def in_words(self) -> str:
        """One line for people."""
        squares, above = (
            sum(getattr(record, key) for record in self.records) for key in ("squares", "above")
        )
        called = sum(record.is_anomalous for record in self.records)
        return (
            f"{counted(len(self.records), 'scene')} inspected, {called} with more above the threshold than "
            f"chance brings; {above} of {counted(squares, 'square')} are above it."
        )


def square_side(detector: Detector) -> int:
    """Side of the squares that are scored, in pixels."""
    return detector.file.calibration.square or SQUARE


def block_side(stride: int, *parts: int) -> int:
    """Side of the blocks for tiles at a ``stride``: tiles examined twice are at most a tenth of all.

    It is a multiple of ``parts``: of the scored squares, and of what becomes one pixel of the overview.

    Examples
    --------
    >>> block_side(16, 128, 16), block_side(16, 96, 4), block_side(32, 128, 1), block_side(64, 128, 1)
    (512, 576, 768, 1408)
    """
    step = math.lcm(*parts)
    return math.ceil(max(_SMALLEST_BLOCK, _TILES_A_SIDE * stride) / step) * step


def overview_reduction(size: tuple[int, int]) -> int:
    """How many pixels a side become one of the overview: the power of two that keeps it within 2,000 pixels.

    Examples
    --------
    >>> overview_reduction((512, 2000)), overview_reduction((20_000, 20_000))
    (1, 16)
    """
    reduction = 1
    while max(size) > OVERVIEW_SIDE * reduction:
        reduction *= 2
    return reduction


class SceneScorer:
    """What :meth:`Detector.measure` is for an image: the maps of one panel, a block at a time.

    Parameters
    ----------
    panel: anything that has ``height``, ``width``, ``modalities`` and ``read`` as a Panel has.
    hidden: names of modalities that are kept from the network, though they are there to compare with.

    Raises
    ------
    ImageError
        When the panel is smaller than the network's patch can be filled up to, has nothing that is not hidden, or has
        not what the network cannot do without.
    """

    def __init__(self, detector: Detector, panel: SceneReader, hidden: Sequence[str] = ()) -> None:
        self.panel = panel
        self._model = detector.autoencoder
        self._device = next(detector.autoencoder.parameters()).device
        self._score = detector.recipe.score
        self.square = square_side(detector)
        patch, stride = detector.recipe.patch.size, detector.recipe.patch.stride
        try:
            self._plan = TilePlan((panel.height, panel.width), (patch, patch), (stride, stride))
        except UsageError as error:
            raise ImageError(
                panel.scene.folder,
                str(error),
                "inspect larger panels, or fit with a smaller --set patch.size",
            ) from None
        self._at_once = max(1, _PIXELS_AT_ONCE // patch**2)
        self._modalities = len(panel.modalities)
        self._hidden = [place for place, one in enumerate(panel.modalities) if one.name in hidden]
        ends = np.cumsum([0, *(one.channels for one in panel.modalities)])
        self._kept_back = [slice(ends[place], ends[place + 1]) for place in self._hidden]
        self._seen = np.ones(ends[-1], np.bool_)
        for channels in self._kept_back:
            self._seen[channels] = False
        if not {one.name for one in panel.modalities} - {*panel.missing, *hidden}:
            problem = f"has nothing else than what is to be hidden ({', '.join(hidden)})"
            raise ImageError(panel.scene.folder, problem, "hide another modality, or leave it out")
        self._recipe = detector.recipe.name
        if panel.missing and not self._model.encoder.takes_absent:
            raise self._cannot_do_without(f"has no {', '.join(panel.missing)}")

    def read(self, block: Block) -> NDArray[np.float32]:
        """The window (C, h, w) that :meth:`measure` needs for ``block``.

        Raises
        ------
        ImageError
            When a file of the panel is damaged there, or something is absent that the network needs.
        """
        rows, columns = self._plan.around(block.rows, block.columns)
        window = self.panel.read(
            rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start
        )
        if not self._model.encoder.takes_absent and np.isnan(window).any():
            raise self._cannot_do_without(f"has absent values near ({columns.start}, {rows.start})")
        return window

    def _cannot_do_without(self, problem: str) -> ImageError:
        return ImageError(
            self.panel.scene.folder,
            f"{problem}, which {self._recipe} cannot do without",
            "fit fp-cae-add, fp-cae-concat or fp-cae, or leave the scene out",
        )

    def measure(self, block: Block, window: NDArray[np.float32]) -> BlockMaps:
        """The maps of ``block``, from the window that :meth:`read` gave."""
        rows, columns = self._plan.around(block.rows, block.columns)
        inside = (slice(None), *block.within(rows, columns))
        image = window[inside]
        channels, count = len(window), self._modalities
        if not np.isfinite(window[self._seen]).any():
            nothing = np.full((channels + 2 * count + 1, *block.shape), np.nan, np.float32)
            return self._split(image, nothing)
        plan = TilePlan(window.shape[1:], self._plan.tile, self._plan.stride)
        blended = Blender(plan, channels + 2 * count + 1)
        with torch.inference_mode():
            for where, tiles in plan.tiles(window, batch=self._at_once):
                values = self._examine(torch.from_numpy(tiles).to(self._device))
                blended.add(where, values.cpu().numpy())
        return self._split(image, blended.result()[inside])

    def _examine(self, x: Tensor) -> Tensor:
        """Tiles (n, C, P, P) to residual, reconstruction, own and cross residuals: (n, 1 + C + 2 M, P, P)."""
        seen = x
        if self._hidden:
            seen = x.clone()
            for channels in self._kept_back:
                seen[:, channels] = torch.nan
        model, measure = self._model, self._model.measure
        nothing = x.new_full((len(x), self._modalities, *x.shape[2:]), torch.nan)
        if not isinstance(measure, ModalSSIM):
            residual, made = model.examine(seen)
            return torch.cat([residual, made, nothing, nothing], 1)
        if not model.encoder.takes_absent:
            residual, made = model.examine(seen)
            return torch.cat([residual, made, measure.each(seen, made), nothing], 1)
        found = modal_residuals(model, seen)
        crossed = found.crossed
        if self._hidden:
            # What was kept back is reconstructed from the others already, and there to compare with.
            crossed = crossed.clone()
            crossed[:, self._hidden] = measure.each(x, found.reconstruction)[:, self._hidden]
        return torch.cat([_mean(found.own), found.reconstruction, found.own, crossed], 1)

    def _split(self, image: NDArray[np.float32], values: NDArray[np.float32]) -> BlockMaps:
        channels, count = len(image), self._modalities
        residual, reconstruction, own, cross = np.split(values, [1, 1 + channels, 1 + channels + count])
        # Where the network saw nothing there is nothing to compare, and 0 would say that all is well.
        residual = np.where(np.isfinite(image[self._seen]).any(0), residual[0], np.nan)
        return BlockMaps(image, reconstruction.clip(0, 1), residual, own, cross)

    def scores(self, residual: NDArray[np.float32]) -> tuple[tuple[float | None, ...], ...]:
        """The scores of the squares of a block's residual (h, w), row by row.

        None stands for a square of which less than half is to be seen, be it absent or beyond the panel's edge.
        """
        (height, width), side = residual.shape, self.square
        return tuple(
            tuple(
                self._scored(residual[top : top + side, left : left + side]) for left in range(0, width, side)
            )
            for top in range(0, height, side)
        )

    def _scored(self, residual: NDArray[np.float32]) -> float | None:
        whole = min(self.square, self.panel.height) * min(self.square, self.panel.width)
        if np.isfinite(residual).sum() < LEAST_SHOWN * whole:
            return None
        rule, values = self._score, np.nan_to_num(np.maximum(residual, 0))
        return image_score(values, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)


def _mean(own: Tensor) -> Tensor:
    """The residual of the modalities (n, M, h, w) that are present, as :class:`ModalSSIM` has it: (n, 1, h, w)."""
    count = (~own.isnan()).sum(1, keepdim=True)
    return own.nansum(1, keepdim=True) / count.clamp_min(1)


def inspect_scenes(
    detector: Detector,
    source: str | Path,
    out: str | Path,
    *,
    hide: Sequence[str] = (),
    reconstruction: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> SceneInspection:
    """Inspect every scene in ``source`` and write maps, overviews, records and the report to ``out``.

    The maps of a scene are Zarr arrays in ``out/maps/SCENE.zarr``, float16 at the panel's own grid, NaN where
    there was nothing to compare: ``residual`` (H, W), which is scored; ``own`` and ``cross`` (M, H, W), 1 − SSIM
    of each modality's reconstruction from all that the network was shown, and from the other modalities alone;
    ``reconstruction`` (C, H, W) where it is wanted. They grow block by block. A scene whose file turns out to be
    damaged is told to the observer; its finished blocks stay, and the other scenes go on.

    Parameters
    ----------
    hide: names of modalities to keep from the network, to see how well the others tell what they show.
    reconstruction: whether to write reconstructions at full size too.
    resume: go on with an inspection that was stopped, at the block where it stopped.
    overwrite: replace what an earlier inspection wrote.
    observer: told of each block, and asked before each whether to stop.

    Raises
    ------
    Stopped
        When the observer asked to stop: finished blocks are on disk, finished scenes in the report.
    UsageError
        When the model was not fitted on scenes, or knows no modality of a name to hide.
    FileError
        When ``source`` holds no scene or ``out`` cannot be written.
    """
    observer = observer or Observer()
    modalities = detector.file.preparation.modalities
    if not modalities:
        raise UsageError("the model was fitted on single images, not on scenes; use inspect_folder")
    names = [one.name for one in modalities]
    for name in hide:
        if name not in names:
            raise UsageError(f"--hide {name}: the model knows no such modality; {nearest(name, names)}")
    if hide and not detector.autoencoder.encoder.takes_absent:
        raise UsageError(
            f"--hide: {detector.recipe.name} cannot do without a modality; fit fp-cae-concat or fp-cae-add"
        )
    if set(hide) == set(names):
        raise UsageError("--hide: nothing is left for the network to see; hide fewer modalities")
    folder = Path(out)
    scenes = find_scenes(Path(source), modalities)
    settings = _settings(detector, hide, reconstruction)
    claim(
        folder,
        SETTINGS_FILE,
        settings,
        below=MAPS,
        command="inspect",
        remove=(OVERVIEWS, REPORT_FILE, RECORDS_FILE),
        resume=resume,
        overwrite=overwrite,
    )
    done = SceneInspection(folder, settings, RecordsLog(folder / RECORDS_FILE, SceneRecord))
    work = [_Work(detector, scene, folder, hide, reconstruction) for scene in scenes]
    try:
        _inspect_all(work, done, observer)
    except BlemishError:
        with suppress(FileError):  # on a full disk the first failure is the one to tell
            _report(work, done, detector)
        raise
    _report(work, done, detector)
    return done


class _Work:
    """What is to be done for one scene, and where it is kept."""

    def __init__(
        self, detector: Detector, scene: Scene, folder: Path, hide: Sequence[str], reconstruction: bool
    ) -> None:
        self.detector, self.scene, self.folder = detector, scene, folder
        self.hide, self.reconstruction = tuple(hide), reconstruction

    def maps(self, panel: SceneReader) -> TiledFile[InspectedBlock]:
        """The file of the scene's maps, as far as they are finished.

        Raises
        ------
        FileError, UsageError
            When it cannot be written, or is of another panel.
        """
        size, channels, count = (panel.height, panel.width), panel.channels, len(panel.modalities)
        reduction = overview_reduction(size)
        layers = {
            "residual": Layer(),
            "own": Layer((count,)),
            "cross": Layer((count,)),
            **({"reconstruction": Layer((channels,))} if self.reconstruction else {}),
            # Blocks of an overview are small; a file for each plane of each would be a great many.
            "overview_image": Layer((channels,), reduction, together=True),
            "overview_reconstruction": Layer((channels,), reduction, together=True),
            "overview_residual": Layer((), reduction),
            "overview_own": Layer((count,), reduction, together=True),
            "overview_cross": Layer((count,), reduction, together=True),
        }
        attributes = {
            "scene": self.scene.name,
            "modalities": [one.name for one in panel.modalities],
            "channels": [one.channels for one in panel.modalities],
            "missing": list(panel.missing),
            "hidden": list(self.hide),
            "overview_reduction": reduction,
            "square": square_side(self.detector),
            "measure": self.detector.measure_name,
        }
        path = self.folder / MAPS / self.scene.name
        side = block_side(self.detector.recipe.patch.stride, reduction, square_side(self.detector))
        return TiledFile(path, InspectedBlock, layers, size=size, side=side, attributes=attributes)


def _inspect_all(work: Sequence[_Work], done: SceneInspection, observer: Observer) -> None:
    finished = {record.path for record in done.records}
    usable, total, before = [], 0, 0
    for one in work:
        if one.scene.name in finished:
            continue
        try:
            with open_useful(one.scene, observer) as panel:
                SceneScorer(one.detector, panel, one.hide)  # refuses what cannot be inspected
                maps = one.maps(panel)
        except ImageError as problem:
            observer.problem(problem)
            done.problems.append(problem)
        else:
            usable.append((one, panel))
            total, before = total + maps.count, before + len(maps.done)
    again = f", {before} of {total} blocks already done" if before else f", {counted(total, 'block')}"
    observer.stage(f"Inspecting {counted(len(usable), 'scene')}{again}")
    count = before
    for one, panel in usable:
        file: TiledFile[InspectedBlock] | None = None
        try:
            with panel:
                for notice in panel.notices:
                    observer.stage(f"{one.scene.name}: {notice}")
                file = one.maps(panel)
                examiner = SceneScorer(one.detector, panel, one.hide)
                for block in file.unfinished():
                    if observer.should_stop():
                        raise Stopped(f"stopped after {count} of {total} blocks, which are finished")
                    _inspect_block(examiner, file, block)
                    count += 1
                    observer.count(count, total)
                record = _record(one, panel, file)
            folder = done.folder / OVERVIEWS / one.scene.name
            write_overviews(folder, Inspected(record, one.scene, file.path), one.detector.level)
        except ImageError as problem:
            observer.problem(problem)
            done.problems.append(problem)
            if file is not None:
                total -= file.count - len(file.done)
        else:
            done.journal.append(record)


def _inspect_block(examiner: SceneScorer, file: TiledFile[InspectedBlock], block: Block) -> None:
    begun = time.perf_counter()
    window = examiner.read(block)
    read = time.perf_counter()
    maps = examiner.measure(block, window)
    scores = examiner.scores(maps.residual)
    reduction = file.attributes["overview_reduction"]
    layers = {
        "residual": maps.residual,
        "own": maps.own,
        "cross": maps.cross,
        "reconstruction": maps.reconstruction,
        "overview_image": means(maps.image, reduction),
        "overview_reconstruction": means(maps.reconstruction, reduction),
        # The brightest value, as in all images of a residual: a mean would hide a blemish of a few pixels.
        "overview_residual": maxima(maps.residual, reduction),
        "overview_own": means(maps.own, reduction),
        "overview_cross": means(maps.cross, reduction),
    }
    computed = time.perf_counter()
    for layer in file.layers:
        file.write(layer, block, layers[layer])
    file.finish(
        InspectedBlock(
            row=block.row,
            column=block.column,
            scores=scores,
            own=_sums(maps.own),
            cross=_sums(maps.cross),
            reading=read - begun,
            computing=computed - read,
            writing=time.perf_counter() - computed,
        )
    )


def _report(work: Sequence[_Work], done: SceneInspection, detector: Detector) -> None:
    """``report.html`` of the finished scenes, from what is on disk."""
    by_name = {record.path: record for record in done.records}
    recipe, training, rule = detector.recipe, detector.file.training, detector.rule
    settings = done.settings
    write_panel_report(
        done.folder / REPORT_FILE,
        model=ModelSummary(
            name=recipe.title,
            recipe=recipe.name,
            paper=recipe.paper,
            measure=detector.measure_name,
            trained=f"trained in {training.steps} steps, {training.seconds:.0f} s",
        ),
        found=[
            Inspected(by_name[one.scene.name], one.scene, tiled(done.folder / MAPS / one.scene.name))
            for one in work
            if one.scene.name in by_name
        ],
        level=detector.level,
        square=square_side(detector),
        false_reject_rate=rule.false_reject_rate if rule.rule == "conformal" else None,
        guarantee=detector.guarantee,
        settings={key.replace("_", " "): str(value) for key, value in settings.items()},
        problems=[str(problem) for problem in done.problems],
    )


def means(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """The mean of what is there in each ``factor`` × ``factor`` pixels of (K, h, w); NaN where nothing is."""
    if factor == 1:
        return values
    parts = _parts(values, factor)
    there = np.isfinite(parts)
    # Down first, along which memory lies in line: half the time of both axes at once.
    count = there.sum(axis=-3, dtype=np.float32).sum(axis=-1)
    total = np.where(there, parts, 0).sum(axis=-3).sum(axis=-1, dtype=np.float64)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return np.asarray(mean, np.float32)


def maxima(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """The largest value in each ``factor`` × ``factor`` pixels of (h, w); NaN where there is none."""
    if factor == 1:
        return values
    return np.asarray(np.fmax.reduce(_parts(values, factor), axis=(-3, -1)), np.float32)


def _parts(values: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """(…, h, w) as (…, h / factor, factor, w / factor, factor), filled up with NaN."""
    *before, height, width = values.shape
    below, right = -height % factor, -width % factor
    filled = np.pad(values, [(0, 0)] * len(before) + [(0, below), (0, right)], constant_values=np.nan)
    parts: NDArray[np.float32] = filled.reshape(
        *before, (height + below) // factor, factor, (width + right) // factor, factor
    )
    return parts


def _sums(values: NDArray[np.float32]) -> tuple[Sum, ...]:
    """Of each plane of (M, h, w)."""
    return tuple(
        Sum(float(plane.sum(where=there, dtype=np.float64)), int(there.sum()))
        for plane, there in zip(values, np.isfinite(values), strict=True)
    )


def _record(work: _Work, panel: SceneReader, file: TiledFile[InspectedBlock]) -> SceneRecord:
    """What the finished maps of a scene say."""
    detector, records = work.detector, file.records
    squares = [
        (score, *_square_at(file, record, row, column))
        for record in records
        for row, line in enumerate(record.scores)
        for column, score in enumerate(line)
        if score is not None
    ]
    scores = np.array([score for score, *_ in squares])
    p = p_values(np.array(detector.file.calibration.scores), scores)
    above = int((scores > detector.threshold).sum())
    rule = detector.rule
    promised = rule.rule == "conformal" and len(p) > 0
    called = int(benjamini_hochberg(p, rule.false_reject_rate).sum()) if promised else above
    strongest = [
        ScoredSquare(x=x, y=y, width=width, height=height, score=score, p_value=float(p[index]))
        for index, (score, x, y, width, height) in sorted(
            enumerate(squares), key=lambda item: (-item[1][0], item[0])
        )[:MOST_SQUARES]
    ]
    return SceneRecord(
        path=work.scene.name,
        size=(panel.width, panel.height),
        score=float(scores.max(initial=0)),
        threshold=detector.threshold,
        p_value=_simes(p),
        is_anomalous=called > 0,
        regions=_regions(file, detector.level),
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=sum(record.reading + record.computing + record.writing for record in records),
        squares=len(scores),
        above=above,
        called=called,
        strongest=tuple(strongest),
        modalities=_modalities(work, panel, records),
        notices=panel.notices,
    )


def _square_at(
    file: TiledFile[InspectedBlock], record: InspectedBlock, row: int, column: int
) -> tuple[int, int, int, int]:
    """x, y, width and height of the square at ``row`` and ``column`` of a block."""
    (height, width), side = file.size, file.attributes["square"]
    y, x = record.row * file.side + row * side, record.column * file.side + column * side
    return x, y, min(side, width - x), min(side, height - y)


def _simes(p: NDArray[np.float64]) -> float:
    """One p-value for all: min over i of m p₍ᵢ₎ / i (Simes, Biometrika 73(3), 1986)."""
    if not len(p):
        return 1.0
    return float(min(1.0, (np.sort(p) * len(p) / np.arange(1, len(p) + 1)).min()))


def _regions(file: TiledFile[InspectedBlock], level: float) -> tuple[Region, ...]:
    """The strongest regions of the overview, in pixels of the panel."""
    factor = file.attributes["overview_reduction"]
    overview = np.nan_to_num(file.read("overview_residual").astype(np.float32))
    height, width = file.size
    # A surface unlike all that was learned has millions of specks: only the strongest are described.
    labels, count = ndimage.label(overview > level, structure=EIGHT_CONNECTED)
    if count > MOST_REGIONS:
        peaks = ndimage.maximum(overview, labels, np.arange(1, count + 1))
        strongest = np.zeros(count + 1, np.bool_)
        strongest[1 + np.argsort(-peaks, kind="stable")[:MOST_REGIONS]] = True
        overview = np.where(strongest[labels], overview, 0)
    return tuple(
        region.model_copy(
            update={
                "x": region.x * factor,
                "y": region.y * factor,
                "width": min(region.width * factor, width - region.x * factor),
                "height": min(region.height * factor, height - region.y * factor),
                "area": region.area * factor**2,
            }
        )
        for region in find_regions(overview, level)
    )


def _modalities(
    work: _Work, panel: SceneReader, records: Sequence[InspectedBlock]
) -> tuple[ModalityRecord, ...]:
    def similarity(sums: Iterator[Sum]) -> float | None:
        totals, pixels = zip(*sums, strict=True)
        return 1 - sum(totals) / sum(pixels) if sum(pixels) else None

    def state(name: str) -> Literal["present", "missing", "hidden"]:
        if name in panel.missing:
            return "missing"
        return "hidden" if name in work.hide else "present"

    return tuple(
        ModalityRecord(
            name=one.name,
            state=state(one.name),
            similarity=similarity(record.own[index] for record in records),
            from_others=similarity(record.cross[index] for record in records),
        )
        for index, one in enumerate(panel.modalities)
    )


def _settings(detector: Detector, hide: Sequence[str], reconstruction: bool) -> dict[str, Any]:
    """What an inspection was made with; ``inspection.json``, and the report's last section."""
    recipe, file, rule = detector.recipe, detector.file, detector.rule
    return {
        "recipe": recipe.name,
        "modalities": [one.name for one in file.preparation.modalities],
        "hidden": list(hide),
        "reconstruction": reconstruction,
        "score": recipe.score.name,
        "threshold_rule": rule.rule,
        "false_reject_rate": rule.false_reject_rate if rule.rule == "conformal" else None,
        "threshold": detector.threshold,
        "level": detector.level,
        "patch": recipe.patch.size,
        "stride": recipe.patch.stride,
        "scored_squares": square_side(detector),
        "calibration_squares": len(file.calibration.scores),
        "training_steps": file.training.steps,
        "trained_on": file.training.machine_words,
        "images_sha256": file.fingerprint.sha256,
        "weights_sha256": file.weights_sha256,
        "fitted_by": f"blemish {file.blemish}",
    }
