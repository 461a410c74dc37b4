"""Changes of one scene between two dates: registration, maps block by block, files and a page.

The scene of the later date is registered on that of the earlier one. Blocks of both give maps of structure, of grey level and
of the absolute difference, and these the regions, files and page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blemish.data.modality import Modality
from blemish.data.open_scenes import named_scene, scene_sha256
from blemish.data.scene_reader import SceneReader
from blemish.decision.outlines import region_collection
from blemish.errors import Stopped
from blemish.inspection.change_maps import (
    REACH,
    STRUCTURE,
    ChangeMaps,
    change_maps,
    combined,
    match_levels,
    usual_size,
)
from blemish.inspection.date_registration import DateMotion, RegisteredDates, register_dates
from blemish.inspection.reductions import maxima, sums
from blemish.inspection.scene_layers import channel_names
from blemish.inspection.scene_records import Sum
from blemish.inspection.scene_scorer import overview_reduction
from blemish.observer import Observer
from blemish.report.layer_files import LayerFiles
from blemish.report.layers import DataFile, LayerStack, ViewLayer, draw_image, draw_map
from blemish.report.numbers import counted, number
from blemish.report.save_settings import SAVED, SaveSettings
from blemish.storage.atomic import write_json
from blemish.storage.blocks import Block
from blemish.storage.pyramid import Raster
from blemish.storage.run_lock import owned
from blemish.storage.tiled_array import BlockRecord, Layer, TiledFile, claim

SETTINGS_FILE, FIGURES_FILE, MAPS = "comparison.json", "changes.json", "maps"
BLOCK = 512
_SAMPLES, _SAMPLE_SIDE = 5, 128
_DEVIATIONS = 6.0
"""Robust standard deviations above the median from which a place is outlined."""


class ComparedBlock(BlockRecord):
    """Line of a finished block: for each modality the sum of each map and the number of its pixels."""

    difference: tuple[Sum, ...]
    grey: tuple[Sum, ...]
    structure: tuple[Sum, ...]


class ModalityChange(NamedTuple):
    """Means of one modality's maps."""

    name: str
    similarity: float | None
    """SSIM; None where the two dates share no pixel."""
    grey: float | None
    difference: float | None
    """The baseline: absolute difference of the values as they are."""


@dataclass(frozen=True)
class SceneChanges:
    """Result of :func:`compare_dates`."""

    folder: Path
    dates: RegisteredDates
    modalities: tuple[ModalityChange, ...]
    threshold: float
    """Change above which a place is outlined."""
    regions: int

    @property
    def registration(self) -> str:
        """Registration in words, a sentence."""
        words = self.dates.words
        return f"{words[:1].upper()}{words[1:]}."

    def as_json(self) -> dict[str, Any]:
        """Figures for ``changes.json``."""
        dates = self.dates
        return {
            "registration": {
                "words": dates.words,
                "matrix": dates.matrix[:2].tolist(),
                "by": dates.by,
                "confidence": dates.confidence,
                "error": dates.error,
            },
            "modalities": [one._asdict() for one in self.modalities],
            "threshold": self.threshold,
            "regions": self.regions,
        }

    def in_words(self) -> str:
        """Lines for the user."""
        lines = [self.registration]
        lines += [
            f"{one.name}: no pixel in common"
            if one.similarity is None
            else f"{one.name}: SSIM {number(one.similarity)}, grey level {number(one.grey or 0)}, absolute difference "
            f"{number(one.difference or 0)}"
            for one in self.modalities
        ]
        return "\n".join([*lines, f"{counted(self.regions, 'region')} changed more than is usual."])


def compare_dates(
    before: str | Path,
    after: str | Path,
    out: str | Path,
    *,
    motion: DateMotion = "affine",
    save: SaveSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> SceneChanges:
    """Compare two dates of one scene, modality by modality, and write maps, figures, files and a page to ``out``.

    The second date is registered on the first. ``out/maps/NAME.zarr`` holds ``structure`` (1 − SSIM), ``grey`` and
    ``difference`` (M, H, W), and ``change`` (H, W), the mean over the modalities of structure and grey level.
    ``changes.json`` holds means, registration and threshold. Nothing here is calibrated: no rate is promised.

    Parameters
    ----------
    before, after: an image, or a folder or description of one scene; modalities are matched by name.
    motion: kind of the map between the dates; ``none`` takes them as registered.
    save: files for other programs; a page without it.
    resume: go on with a comparison that was stopped.
    overwrite: replace an earlier comparison.

    Raises
    ------
    ImageError
        When an image cannot be read, or the two cannot be registered.
    UsageError
        When one of the two holds several scenes, or ``out`` holds a comparison of others.
    FileError
        When ``out`` cannot be written.
    Stopped
        When the observer asked to stop; finished blocks stay.
    """
    observer, folder = observer or Observer(), Path(out)
    with (
        owned(folder),
        SceneReader(named_scene(Path(before))) as first,
        SceneReader(named_scene(Path(after))) as second,
    ):
        content = f"{scene_sha256(first)} {scene_sha256(second)}"
        claim(
            folder,
            SETTINGS_FILE,
            {"motion": motion, "content": content},
            below=MAPS,
            command="changes",
            remove=(FIGURES_FILE, *SAVED),
            resume=resume,
            overwrite=overwrite,
        )
        observer.stage("Registering the two dates")
        dates = register_dates(first, second, motion)
        comparison = _DateComparison(dates, folder / MAPS / first.name, content)
        comparison.compute(observer)
        done = comparison.result(folder)
        write_json(folder / FIGURES_FILE, done.as_json())
        settings = save or SaveSettings(("page",))
        LayerFiles(folder, settings, observer).save(
            comparison.stack(done, settings.dpi), f"{content} {motion}"
        )
    return done


class _DateComparison:
    """Maps of two registered dates, and what is made of them."""

    def __init__(self, dates: RegisteredDates, path: Path, content: str) -> None:
        self.dates = dates
        self.size = size = (dates.before.height, dates.before.width)
        self.reduction = reduction = overview_reduction(size)
        count = len(dates.modalities)
        self.levels, self.usual = self._calibrated()
        self.file = TiledFile(
            path,
            ComparedBlock,
            {
                "change": Layer(),
                **{name: Layer((count,)) for name in ChangeMaps._fields},
                "overview_change": Layer((), reduction),
            },
            size=size,
            side=math.ceil(BLOCK / reduction) * reduction,
            attributes={
                "modalities": [one.name for one in dates.modalities],
                "overview_reduction": reduction,
                "levels": self.levels,
                "usual": self.usual,
            },
            content=content,
        )

    def _calibrated(self) -> tuple[list[tuple[tuple[float, float], ...]], list[float]]:
        """Gain and offset of each channel, and the usual grey residual of each modality, from windows all over."""
        tops, lefts = (
            sorted({round(max(0, side - _SAMPLE_SIDE) * step / (_SAMPLES - 1)) for step in range(_SAMPLES)})
            for side in self.size
        )
        height, width = (min(_SAMPLE_SIDE, side) for side in self.size)
        levels, usual = [], []
        for one in self.dates.modalities:
            windows = [(top, left, height, width) for top in tops for left in lefts]
            before = [self.dates.read_before(one.name, *window) for window in windows]
            after = [self.dates.read_after(one.name, *window) for window in windows]
            own = match_levels(np.concatenate(before, 1), np.concatenate(after, 1))
            levels.append(own)
            pairs = zip(before, after, strict=True)
            usual.append(usual_size(np.stack([change_maps(*pair, own).grey for pair in pairs])))
        return levels, usual

    def compute(self, observer: Observer) -> None:
        """Write the maps of all unfinished blocks."""
        file = self.file
        observer.stage(f"Comparing {counted(len(self.dates.modalities), 'image')} of each date")
        for block in file.unfinished():
            if observer.should_stop():
                raise Stopped(f"stopped after {len(file.done)} of {file.count} blocks, which are finished")
            maps = self._maps(block)
            change = _present_mean(
                np.stack([combined(one, u) for one, u in zip(maps, self.usual, strict=True)])
            )
            rows, columns = block.within(*self._window(block))
            whole = {
                name: np.stack([getattr(one, name) for one in maps])[:, rows, columns]
                for name in ChangeMaps._fields
            }
            change = change[rows, columns]
            for name, values in whole.items():
                file.write(name, block, values)
            file.write("change", block, change)
            file.write("overview_change", block, maxima(change, self.reduction))
            file.finish(
                ComparedBlock(
                    row=block.row,
                    column=block.column,
                    **{name: sums(values) for name, values in whole.items()},
                )
            )
            observer.count(len(file.done), file.count)

    def _window(self, block: Block) -> tuple[slice, slice]:
        """Rows and columns of a block with what its values depend on."""
        rows, columns = (
            slice(max(0, at.start - REACH), min(side, at.stop + REACH))
            for at, side in zip((block.rows, block.columns), self.size, strict=True)
        )
        return rows, columns

    def _maps(self, block: Block) -> list[ChangeMaps]:
        rows, columns = self._window(block)
        window = (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        return [
            change_maps(
                self.dates.read_before(one.name, *window), self.dates.read_after(one.name, *window), own
            )
            for one, own in zip(self.dates.modalities, self.levels, strict=True)
        ]

    def result(self, folder: Path) -> SceneChanges:
        """Figures of the finished maps."""

        def mean(name: str, index: int) -> float | None:
            own = [getattr(record, name)[index] for record in self.file.records]
            pixels = sum(one.pixels for one in own)
            return sum(one.total for one in own) / pixels if pixels else None

        found = []
        for index, one in enumerate(self.dates.modalities):
            structure = mean("structure", index)
            similarity = None if structure is None else 1 - structure
            found.append(ModalityChange(one.name, similarity, mean("grey", index), mean("difference", index)))
        overview = self.file.read("overview_change").astype(np.float32)
        threshold = _threshold(overview)
        regions = len(
            region_collection(overview, threshold, size=self.size, factor=self.reduction)["features"]
        )
        return SceneChanges(folder, self.dates, tuple(found), threshold, regions)

    def stack(self, done: SceneChanges, dpi: float | None) -> LayerStack:
        """Layers, files and regions of the finished maps."""
        names = tuple(one.name for one in self.dates.modalities)
        overview = self.file.read("overview_change").astype(np.float32)
        words = {"difference": "absolute difference", "grey": "grey level", "structure": "structure"}
        layers = [*self._images(), self._change_layer(done.threshold)]
        for kind in ("structure", "grey", "difference"):
            for index, name in enumerate(names):
                middle = _middle(self.file.read(kind, (index, *self._thinned())))
                note = "1 − SSIM" if kind == "structure" else "|before − after|"
                layers.append(
                    ViewLayer(
                        f"{kind}-{name}",
                        f"{name}, {words[kind]}",
                        "Maps" if kind != "difference" else "Baseline",
                        self._raster(kind, slice(index, index + 1)),
                        draw_map(middle),
                        scale_note=f"{note}; mid-scale is {number(middle)}.",
                        is_map=True,
                    )
                )
        files = [DataFile("change", ("change",), self._raster("change"))]
        files += [DataFile(kind, names, self._raster(kind)) for kind in words]
        files += [
            DataFile(f"after-{one.name}", channel_names(one), self._image(one, "after"))
            for one in self.dates.modalities
        ]
        facts = [
            (f"{one.name}: {name}", "–" if value is None else number(value))
            for one in done.modalities
            for name, value in (
                ("SSIM", one.similarity),
                ("grey level", one.grey),
                ("absolute difference", one.difference),
            )
        ]
        return LayerStack(
            name=self.dates.before.name,
            title=f"{self.dates.before.name}: changes",
            size=self.size,
            files=files,
            layers=layers,
            regions=region_collection(
                overview, done.threshold, size=self.size, factor=self.reduction, dpi=dpi
            ),
            start=(f"before-{names[0]}", f"after-{names[0]}"),
            dpi=dpi,
            facts=facts,
            notes=(
                done.registration,
                f"Change is {100 * STRUCTURE:.0f} % structure (1 − SSIM) and otherwise grey level, mean over the modalities.",
                f"Outlined is what lies {_DEVIATIONS:g} robust standard deviations above the median; no rate is promised.",
            ),
        )

    def _images(self) -> Iterator[ViewLayer]:
        for date in ("before", "after"):
            for one in self.dates.modalities:
                yield ViewLayer(
                    f"{date}-{one.name}",
                    f"{one.name}, {date}",
                    date.capitalize(),
                    self._image(one, date),
                    draw_image(),
                )

    def _image(self, one: Modality, date: str) -> Raster:
        read = self.dates.read_before if date == "before" else self.dates.read_after
        return Raster(one.channels, *self.size, lambda *window: read(one.name, *window))

    def _change_layer(self, threshold: float) -> ViewLayer:
        note = f"Mid-scale is {number(threshold)}, above which places are outlined."
        return ViewLayer(
            "change",
            "change",
            "Maps",
            self._raster("change"),
            draw_map(threshold),
            "max",
            scale_note=note,
            is_map=True,
        )

    def _raster(self, layer: str, planes: slice = slice(None)) -> Raster:
        is_plane = layer == "change"

        def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
            window = (slice(top, top + height), slice(left, left + width))
            values: NDArray[Any] = self.file.read(layer, window if is_plane else (planes, *window))
            return (values[None] if is_plane else values).astype(np.float32)

        count = 1 if is_plane else len(range(len(self.dates.modalities))[planes])
        return Raster(count, *self.size, read)

    def _thinned(self) -> tuple[slice, slice]:
        step = max(1, max(self.size) // 500)
        return slice(None, None, step), slice(None, None, step)


def _present_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over the first axis of the values that are present."""
    there = np.isfinite(values)
    count = there.sum(0)
    mean = np.where(there, values, 0).sum(0) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan).astype(np.float32)


def _threshold(overview: NDArray[np.float32]) -> float:
    """Median of a map and six times its robust standard deviation (1.4826 × the median absolute deviation)."""
    present = overview[np.isfinite(overview)]
    if not present.size:
        return 1.0
    median = float(np.median(present))
    return median + _DEVIATIONS * 1.4826 * float(np.median(np.abs(present - median)))


def _middle(sample: NDArray[Any]) -> float:
    """Mid-scale of a map: 95 % of a sample of its values lie below it."""
    present = sample[np.isfinite(sample)]
    return float(np.quantile(present, 0.95)) if present.size else 0.0
