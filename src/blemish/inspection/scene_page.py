"""The report of an inspection of scenes, and the overviews that lie beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish._version import __version__
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import Scene
from blemish.errors import BlemishError
from blemish.inspection.scene_records import ModalityRecord, SceneRecord, ScoredSquare
from blemish.report import FigurePanel as Shown
from blemish.report import (
    Figures,
    Gallery,
    ImageRow,
    ModelSummary,
    Prose,
    Scale,
    Section,
    SettingsSection,
    TableSection,
    displayable,
    heat,
    overlay,
    write_page,
)
from blemish.report.colours import fit_map, size_within
from blemish.report.numbers import counted, number
from blemish.report.page import Tone
from blemish.storage.atomic import atomic_path
from blemish.storage.tiled_array import open_tiled, reading

PLACES = 6
"""How many of the strongest squares are shown at full size."""
_MARGIN = 32  # pixels around a square that is shown
_SIDE = 420  # longer side of an overview in the page
_GLOWING = 0.95  # of the values of a scene's maps of one kind, the share that stays below mid-scale


@dataclass(frozen=True)
class FinishedScene:
    """A finished scene: its record, its files, and the tiled file of its maps."""

    record: SceneRecord
    scene: Scene
    maps: Path

    def window(self, name: str, *index: object) -> NDArray[np.float32]:
        """Window of a layer at ``index``; the whole layer without an index."""
        with reading(self.maps):
            values: NDArray[np.float32] = open_tiled(self.maps)[name][index or ...].astype(np.float32)
        return values

    def planes(self, name: str) -> Iterator[tuple[ModalityRecord, NDArray[np.float32]]]:
        """Yield each modality with its part of a layer of overviews: (c, h, w) of images, (h, w) of residuals."""
        if name in ("overview_own", "overview_cross"):
            for place, modality in enumerate(self.record.modalities):
                yield modality, self.window(name, place)
            return
        first = 0
        for modality, one in zip(self.record.modalities, self.scene.modalities, strict=True):
            yield modality, self.window(name, slice(first, first + one.channels))
            first += one.channels

    def scale(self, kind: str) -> float:
        """Mid-scale of the heat maps of ``own`` or ``cross``, which have no pixel threshold."""
        planes = [plane for _, plane in self.planes(f"overview_{kind}")]
        thin = max(1, max(planes[0].shape) // _SIDE)
        sample = np.stack([plane[::thin, ::thin] for plane in planes])
        there = sample[np.isfinite(sample)]
        return float(np.quantile(there, _GLOWING)) if there.size else 0.0


def write_overviews(folder: Path, found: FinishedScene, pixel_threshold: float) -> None:
    """Write the overviews of a :class:`FinishedScene` as PNG, each at most 2,000 pixels a side, in ``folder``.

    Raises
    ------
    FileError
        When one cannot be written.
    """
    _write_png(folder / "residual.png", heat(_filled(found.window("overview_residual")), pixel_threshold))
    for layer, name in (("overview_picture", "picture"), ("overview_reconstruction", "reconstruction")):
        for modality, pixels in found.planes(layer):
            if np.isfinite(pixels).any():
                drawn = displayable(_filled(pixels))
                # Sensors of one channel are grey: a third of the bytes.
                shown = drawn[..., 0] if len(pixels) == 1 else drawn
                _write_png(folder / f"{name}-{modality.name}.png", shown)
    for layer in ("own", "cross"):
        scale = found.scale(layer)
        for modality, residual in found.planes(f"overview_{layer}"):
            if np.isfinite(residual).any():
                _write_png(folder / f"{layer}-{modality.name}.png", heat(_filled(residual), scale))


def _write_png(path: Path, drawn: NDArray[np.uint8]) -> None:
    with atomic_path(path) as temporary:
        # Scans are noisy: more effort takes five times as long and saves little.
        Image.fromarray(drawn).save(temporary, format="PNG", compress_level=1)


def write_scene_report(
    path: Path,
    *,
    model: ModelSummary,
    found: Sequence[FinishedScene],
    pixel_threshold: float,
    square: int,
    false_reject_rate: float | None,
    guarantee: str,
    settings: Mapping[str, str],
    problems: Sequence[str] = (),
) -> None:
    """Write ``report.html``: images, anomaly maps and strongest places of each scene, and the decisions.

    Raises ``FileError`` when the page cannot be written.
    """
    sections: list[Section] = [_figures(found, square, false_reject_rate)]
    sections.append(Prose(guarantee, "Guarantee of the threshold"))
    for one in found:
        sections += [
            _overview(one, pixel_threshold),
            _similarities(one.record),
            _places(one, pixel_threshold),
        ]
    if problems:
        rows = [[line] for line in problems]
        sections.append(TableSection("Not finished", ["file, problem and remedy"], rows))
    if found:
        sections.append(_decisions([one.record for one in found]))
    named = {"model": model.name, "recipe": model.recipe, "paper": model.paper, "map": model.measure}
    sections.append(SettingsSection("Settings", {**named, **settings}))
    called = sum(one.record.is_anomalous for one in found)
    write_page(
        path,
        title=f"{counted(len(found), 'scene')} inspected, {called} with more anomalies than chance"
        if found
        else "No scene was inspected",
        subtitle=f"{model.name}, {model.trained}",
        sections=sections,
        footer=f"Written by Blemish {__version__} on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC. "
        "This file is complete: it opens without a network. The maps at full size lie beside it.",
    )


def _figures(found: Sequence[FinishedScene], square: int, rate: float | None) -> Figures:
    squares = sum(one.record.squares for one in found)
    above = sum(one.record.above for one in found)
    share = f"{100 * above / squares:.1f} %" if squares else "–"
    expected = f"{100 * rate:.3g} % expected on good surfaces" if rate is not None else "no rate is promised"
    return Figures(
        [
            ("Scenes", len(found), "finished"),
            ("Scored squares", squares, f"of {square} × {square} pixels"),
            ("Above the threshold", share, expected),
            (
                "Anomalous squares",
                sum(one.record.called for one in found),
                "corrected for their number, see Decisions",
            ),
        ]
    )


# -- one scene -----------------------------------------------------------------------------------------


def _overview(found: FinishedScene, pixel_threshold: float) -> Gallery:
    record = found.record
    width, height = record.size
    note = f"{width} × {height} pixels. " + " ".join(
        f"{line}." for line in (*record.notices, *_unseen(record))
    )
    measure = f"1 − {_measure(record)}, mean over the modalities: values above the pixel threshold are bright"
    return Gallery(
        record.path,
        _overview_rows(found, pixel_threshold),
        note.strip(),
        Scale(pixel_threshold, measure),
        _SIDE,
    )


def _unseen(record: SceneRecord) -> Iterator[str]:
    """Lines on the modalities that the model was not shown."""
    for one in record.modalities:
        if one.state == "missing":
            yield f"{one.name} is missing: reconstructed from the others, without an image to compare with"
        elif one.state == "hidden":
            yield (
                f"{one.name} was hidden: reconstructed from the others, {one.measure} {_number(one.from_others)}"
            )
        if not one.is_learned:
            yield (
                f"{one.name} was not learned: its reconstruction is as good as a constant, so that it is left out of "
                "score and maps"
            )


def _overview_rows(found: FinishedScene, pixel_threshold: float) -> Iterator[ImageRow]:
    record = found.record
    residual = _filled(found.window("overview_residual"))
    images = [
        Shown(_labelled(modality), displayable(_filled(pixels)))
        for modality, pixels in found.planes("overview_picture")
        if np.isfinite(pixels).any()
    ]
    badges: list[tuple[str, Tone]] = [
        ("✕ more anomalies than chance", "bad")
        if record.is_anomalous
        else ("✓ no more anomalies than chance", "good"),
        (f"{record.above} of {counted(record.squares, 'square')} above the threshold", "plain"),
        (f"p = {number(record.p_value)}", "plain"),
    ]
    yield ImageRow("images of the modalities", "", badges, images)
    yield ImageRow(
        "anomaly map",
        "The anomaly map, and its overlay on the first modality." if images else "",
        (),
        [
            Shown("heat map", _small_heat(residual, pixel_threshold), "map"),
            *([Shown("overlay", _over(found, residual, pixel_threshold))] if images else []),
        ],
    )
    yield ImageRow(
        "reconstructions",
        "Absent modalities are predicted from the others." + _colourless(found.scene),
        (),
        [
            Shown(
                f"{modality.name}, {modality.measure} {_number(modality.similarity or modality.from_others)}",
                displayable(_filled(pixels)),
            )
            for modality, pixels in found.planes("overview_reconstruction")
        ],
    )
    yield from _modal_row(
        found,
        "own",
        "residual of each modality",
        f"1 − {_measure(record)} of each reconstruction from all modalities.",
    )
    yield from _modal_row(
        found,
        "cross",
        "cross-modal residual of each modality",
        f"1 − {_measure(record)} of each modality's reconstruction from the others alone.",
    )


def _measure(record: SceneRecord) -> str:
    return record.modalities[0].measure if record.modalities else "SSIM"


def _colourless(scene: Scene) -> str:
    names = [one.name for one in scene.modalities if one.is_grey]
    return (
        f" Compared in grey, so their reconstructed colours are not reliable: {', '.join(names)}."
        if names
        else ""
    )


def _over(found: FinishedScene, residual: NDArray[np.float32], pixel_threshold: float) -> NDArray[np.uint8]:
    pixels = next(p for _, p in found.planes("overview_picture") if np.isfinite(p).any())
    return overlay(_filled(pixels), residual, pixel_threshold, side=_SIDE)


def _modal_row(found: FinishedScene, kind: str, name: str, what: str) -> Iterator[ImageRow]:
    scale = found.scale(kind)
    panels = [
        Shown(modality.name, _small_heat(values, scale), "map")
        for modality, values in found.planes(f"overview_{kind}")
        if np.isfinite(values).any()
    ]
    if panels:
        caption = f"{what} One scale for these: {_GLOWING:.0%} of their values lie below mid-scale, {number(scale)}."
        yield ImageRow(name, caption, (), panels)


def _similarities(record: SceneRecord) -> TableSection:
    measure = _measure(record)
    rows = [
        [one.name, one.state, one.similarity, one.from_others, one.linear, one.constant]
        for one in record.modalities
    ]
    note = (
        f"Mean {measure} of the reconstruction; from the others: with that modality hidden from the network. A low value "
        "means that the modality shows something that the others do not predict. The last two columns are the SSIM of "
        "baselines on the held-out patches of the fit: linear regression on the pixels of the others, and a constant."
        + (
            " Similarity is 1 − the residual, which compares grey level and structure."
            if measure == "similarity"
            else ""
        )
    )
    columns = ["modality", "state", measure, f"{measure} from the others", "linear regression", "constant"]
    return TableSection(f"{record.path}: reconstruction of each modality", columns, rows, note)


def _places(found: FinishedScene, pixel_threshold: float) -> Gallery:
    note = (
        "The highest scores, and for each modality the place that the others predict worst, at full size with "
        f"{_MARGIN} pixels around."
    )
    return Gallery(
        f"{found.record.path}: strongest places", _place_rows(found, pixel_threshold), note, max_side=_SIDE
    )


def _place_rows(found: FinishedScene, pixel_threshold: float) -> Iterator[ImageRow]:
    record = found.record
    try:
        missing = [one.name for one in record.modalities if one.state == "missing"]
        with SceneReader(found.scene, without=missing) as opened:
            for place in _apart(record.strongest):
                box = (place.x, place.y, place.width, place.height)
                badges: list[tuple[str, Tone]] = [
                    (f"score {number(place.score)}", "bad" if place.score > record.threshold else "plain"),
                    (f"p = {number(place.p_value)}", "plain"),
                ]
                yield ImageRow(
                    f"({place.x}, {place.y})", "", badges, _crops(found, opened, box, pixel_threshold)
                )
            scale = found.scale("cross")
            for index, (modality, cross) in enumerate(found.planes("overview_cross")):
                if np.isfinite(cross).any():
                    box = _worst(cross, record.size)
                    title = f"{modality.name} at ({box[0]}, {box[1]})"
                    crops = _crops(found, opened, box, pixel_threshold, cross=(index, scale))
                    yield ImageRow(title, "least predicted by the others", (), crops)
    except BlemishError as error:
        yield ImageRow("places", f"Cannot be shown: {error}")


def _apart(squares: Sequence[ScoredSquare]) -> list[ScoredSquare]:
    """The strongest squares of which none touches a stronger one."""
    chosen: list[ScoredSquare] = []
    for square in squares:
        if all(abs(square.x - c.x) > c.width or abs(square.y - c.y) > c.height for c in chosen):
            chosen.append(square)
    return chosen[:PLACES]


def _worst(cross: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """x, y, width, height of the square of a scene (width, height) whose overview (h, w) is brightest."""
    width, height = size
    reduction = -(-max(size) // max(cross.shape))
    side = max(1, 128 // reduction)
    rows, columns = (range(0, length, side) for length in cross.shape)
    filled = _filled(cross)
    _, top, left = max(
        (float(filled[row : row + side, column : column + side].mean()), row, column)
        for row in rows
        for column in columns
    )
    x, y = left * reduction, top * reduction
    return x, y, min(side * reduction, width - x), min(side * reduction, height - y)


def _crops(
    found: FinishedScene,
    opened: SceneReader,
    box: tuple[int, int, int, int],
    pixel_threshold: float,
    cross: tuple[int, float] | None = None,
) -> list[Shown]:
    """The place in every modality, and in the residual or in one cross-modal map with its scale."""
    x, y, width, height = box
    left, top = max(0, x - _MARGIN), max(0, y - _MARGIN)
    right, bottom = min(opened.width, x + width + _MARGIN), min(opened.height, y + height + _MARGIN)
    pixels = opened.read(top, left, bottom - top, right - left)
    shown, first = [], 0
    for modality, one in zip(found.record.modalities, opened.modalities, strict=True):
        part = pixels[first : first + one.channels]
        first += one.channels
        if np.isfinite(part).any():
            shown.append(Shown(_labelled(modality), displayable(_filled(part))))
    window = (slice(top, bottom), slice(left, right))
    if cross is None:
        residual = _filled(found.window("residual", *window))
        return [*shown, Shown("heat map", heat(residual, pixel_threshold), "map")]
    index, scale = cross
    return [
        *shown,
        Shown("cross-modal residual", heat(_filled(found.window("cross", index, *window)), scale), "map"),
    ]


# -- all scenes ----------------------------------------------------------------------------------------


def _decisions(records: Sequence[SceneRecord]) -> TableSection:
    rows: list[list[str | float | None]] = [
        [r.path, r.squares, r.above, r.called, r.score, r.threshold, r.p_value, len(r.regions), r.seconds]
        for r in sorted(records, key=lambda r: (r.p_value, -r.score, r.path))
    ]
    columns = ["scene", "squares", "above", "anomalous", "highest score", "threshold", "p-value", "regions"]
    note = (
        "Anomalous squares are significant after correction for the number of squares (false-discovery rate, "
        "Benjamini and Hochberg 1995); the p-value is of the whole scene (Simes 1986)."
    )
    return TableSection("Decisions", [*columns, "seconds"], rows, note)


def _small_heat(values: NDArray[np.float32], pixel_threshold: float) -> NDArray[np.uint8]:
    """Heat map at the size of the page; drawn larger and then reduced, a defect of a few pixels would fade."""
    side = min(_SIDE, max(values.shape))
    return heat(
        fit_map(_filled(values), size_within((values.shape[0], values.shape[1]), side)), pixel_threshold
    )


def _labelled(modality: ModalityRecord) -> str:
    return f"{modality.name} (hidden)" if modality.state == "hidden" else modality.name


def _number(value: float | None) -> str:
    return "n/a" if value is None else number(value)


def _filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Absent becomes 0: black in images, dark in maps."""
    return np.nan_to_num(values, nan=0.0)
