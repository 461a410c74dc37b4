"""Classification of every pixel of an image or scene from a few labelled strokes or polygons.

Features of a pixel are responses of classic filters at four scales, of each channel, and on request the latents of a fitted
model; a random forest or logistic regression learns the classes from the labelled pixels. Figures come from regions that were left out in turn: pixels of
one stroke resemble each other, so that a random split of pixels would flatter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.open_scenes import named_scene
from blemish.data.region_labels import RegionLabels, read_region_labels
from blemish.data.scene_reader import SceneReader
from blemish.decision.metrics import average_precision
from blemish.errors import Stopped, UsageError
from blemish.inspection.latent_pixels import LatentPixels, latents_of
from blemish.inspection.pixel_features import PixelFeatures
from blemish.observer import Observer
from blemish.storage.atomic import atomic_path, write_json
from blemish.storage.run_folder import refuse_unwritable

Learner = Literal["forest", "logistic"]
FeatureSet = Literal["filters", "latents", "both"]
BLOCK = 512
MOST_PIXELS = 20_000
"""Labelled pixels of a class that are learned from; of more, as many are drawn."""
MOST_FOLDS = 8
SUGGESTED, SUGGESTED_SIDE = 10, 64
PROBABILITY, REGIONS, SUGGESTIONS, FIGURES = (
    "probability.tif",
    "regions.geojson",
    "suggestions.geojson",
    "classes.json",
)
_EIGHT = np.ones((3, 3))


@dataclass(frozen=True)
class ClassFigures:
    """One class on one image."""

    name: str
    labelled: int
    """Pixels."""
    label_regions: int
    """Connected groups of labelled pixels."""
    average_precision: float | None
    """On regions that were left out of the training; None where a class has one region alone."""
    share: float
    """Share of the pixels whose most probable class it is."""
    pixels: int
    regions: int
    """Connected regions of the class."""
    square_millimetres: float | None
    by_features: dict[str, float] = field(default_factory=dict)
    """Average precision on regions left out, by the features that it is learned from."""


@dataclass(frozen=True)
class Classification:
    """Result of :func:`classify`."""

    folder: Path
    classes: tuple[ClassFigures, ...]

    def in_words(self) -> str:
        """One line a class."""
        lines = []
        for one in self.classes:
            figure = (
                "no figure: label a second region"
                if one.average_precision is None
                else f"average precision {one.average_precision:.3f} on regions left out"
            )
            area = "" if one.square_millimetres is None else f", {one.square_millimetres:.1f} mm²"
            lines.append(f"{one.name}: {100 * one.share:.2f} % of the image{area}; {figure}")
            if len(one.by_features) > 1:
                each = ", ".join(f"{name} {value:.3f}" for name, value in one.by_features.items())
                lines.append(f"{one.name}, average precision by features: {each}")
        return "\n".join(lines)


def classify(
    source: str | Path,
    labels: str | Path,
    out: str | Path,
    *,
    learner: Learner = "forest",
    model: str | Path | None = None,
    features: FeatureSet = "filters",
    dpi: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Classification:
    """Classify every pixel of an image or of a scene, and write probabilities, regions and figures to ``out``.

    ``probability.tif`` has a channel of 8 bits for each class, tiled; ``regions.geojson`` the outlines of the classes with
    their area; ``suggestions.geojson`` ten places whose class is least sure, to label next; ``classes.json`` the figures.

    Parameters
    ----------
    source: an image, or a folder or description of one scene.
    labels: as :func:`blemish.data.region_labels.read_region_labels` takes them.
    learner: random forest, or logistic regression.
    model: folder of a fitted model, whose latents are compared with the filters.
    features: what the classes are learned from; with ``model`` the figures of all three are given.
    dpi: pixels an inch, for areas in mm².
    seed: of the forest and of the draw of labelled pixels.

    Raises
    ------
    UsageError
        When ``source`` holds several scenes, ``out`` holds a result already, or latents are asked for without a model.
    FileError, ImageError
        When a file cannot be read or written, or the labels do not fit.
    Stopped
        When the observer asked to stop; nothing is written then.
    """
    observer, folder = observer or Observer(), Path(out)
    if (folder / FIGURES).exists() and not overwrite:
        raise UsageError(f"{folder}: holds a classification; pass --overwrite, or choose another --out")
    refuse_unwritable(folder)
    if dpi is not None and not 0 < dpi < 1e6:
        raise UsageError(f"--dpi {dpi:g}: give the pixels of an inch")
    if model is None and features != "filters":
        raise UsageError(f"--features {features}: needs a fitted model; name its folder by --model")
    with SceneReader(named_scene(Path(source))) as reader:
        given = read_region_labels(labels, (reader.width, reader.height))
        size = reader.height, reader.width
        opened = nullcontext(None) if model is None else latents_of(Path(model), Path(source), size, observer)
        with opened as latents:
            return _classify(reader, latents, given, folder, learner, features, dpi, seed, observer)


def _classify(
    reader: SceneReader,
    latents: LatentPixels | None,
    given: RegionLabels,
    folder: Path,
    learner: Learner,
    features: FeatureSet,
    dpi: float | None,
    seed: int,
    observer: Observer,
) -> Classification:
    observer.stage(
        f"Learning {len(given.classes)} classes from {int((given.labels > 0).sum())} labelled pixels"
    )
    pixels = PixelFeatures(reader, latents)
    x, y, regions = _labelled(pixels, given, seed, observer)
    scores = {
        name: _left_out_scores(x[:, columns], y, regions, learner, seed)
        for name, columns in pixels.sets.items()
    }
    columns = pixels.sets[features]
    model = _learner(learner, seed).fit(x[:, columns], y)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FIGURES).unlink(missing_ok=True)
    classes = _classify_blocks(pixels, columns, model, given, folder, observer)
    done = Classification(folder, _figures(given, scores, features, classes, dpi))
    write_json(folder / REGIONS, _outlines(classes, given.classes, dpi))
    facts: dict[str, str] = {"learner": learner, "features": features}
    if latents is not None:
        facts["weights_sha256"] = latents.weights_sha256
    write_json(folder / FIGURES, {**facts, "classes": [asdict(one) for one in done.classes]})
    return done


def _learner(name: Learner, seed: int) -> Any:
    if name == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(100, min_samples_leaf=2, class_weight="balanced", random_state=seed)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))


def _blocks(reader: SceneReader) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, reader.height, BLOCK):
        for left in range(0, reader.width, BLOCK):
            yield top, left, min(BLOCK, reader.height - top), min(BLOCK, reader.width - left)


def _labelled(
    pixels: PixelFeatures, given: RegionLabels, seed: int, observer: Observer
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]]:
    """Features (n, F) of labelled pixels, their classes, and the number of the region of each."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(given.labels.shape, np.bool_)
    regions = np.zeros(given.labels.shape, np.int32)
    for number in range(1, len(given.classes) + 1):
        own = given.labels == number
        labelled, _ = ndimage.label(own, structure=_EIGHT)
        regions[own] = labelled[own] + regions.max()
        places = np.flatnonzero(own)
        if len(places) > MOST_PIXELS:
            places = rng.choice(places, MOST_PIXELS, replace=False)
        chosen.flat[places] = True
    x, y, groups = [], [], []
    for top, left, height, width in _blocks(pixels.reader):
        inside = chosen[top : top + height, left : left + width]
        if not inside.any():
            continue
        if observer.should_stop():
            raise Stopped("stopped while learning; nothing is written")
        x.append(pixels.read(top, left, height, width)[:, inside].T)
        y.append(given.labels[top : top + height, left : left + width][inside])
        groups.append(regions[top : top + height, left : left + width][inside])
    return np.concatenate(x), np.concatenate(y), np.concatenate(groups).astype(np.int64)


def _left_out_scores(
    x: NDArray[np.float32], y: NDArray[np.uint8], regions: NDArray[np.int64], learner: Learner, seed: int
) -> dict[int, float]:
    """Average precision of each class, over pixels of regions that were left out; only of classes of two regions."""
    several = {int(number) for number in np.unique(y) if len(np.unique(regions[y == number])) > 1}
    if not several:
        return {}
    folds = np.zeros(len(y), np.int64)
    for number in np.unique(y):  # each fold leaves out regions of every class that has several
        for place, region in enumerate(np.unique(regions[y == number])):
            folds[regions == region] = place % MOST_FOLDS if int(number) in several else -1
    probabilities = np.full((len(y), int(y.max()) + 1), np.nan)
    for fold in np.unique(folds[folds >= 0]):
        test = folds == fold
        if len(np.unique(y[~test])) < 2:
            continue
        model = _learner(learner, seed).fit(x[~test], y[~test])
        probabilities[np.ix_(test, model.classes_)] = model.predict_proba(x[test])
    found = {}
    for number in several:
        judged = np.isfinite(probabilities[:, number])
        if len(np.unique(y[judged] == number)) == 2:
            found[number] = average_precision(y[judged] == number, probabilities[judged, number])
    return found


def _classify_blocks(
    pixels: PixelFeatures,
    columns: slice,
    model: Any,
    given: RegionLabels,
    folder: Path,
    observer: Observer,
) -> NDArray[np.uint8]:
    """Write the probabilities and the suggestions; the most probable class (H, W) of each pixel, 0 where nothing is, or
    nothing is judged.
    """
    reader = pixels.reader
    classes = np.zeros((reader.height, reader.width), np.uint8)
    count = len(given.classes)
    unsure: list[tuple[float, int, int]] = []
    blocks = list(_blocks(reader))

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for done, (top, left, height, width) in enumerate(blocks):
            if observer.should_stop():
                raise Stopped(f"stopped after {done} of {len(blocks)} blocks; nothing is written")
            features = pixels.read(top, left, height, width)[columns]
            shown = np.isfinite(reader.read(top, left, height, width))
            there: NDArray[np.bool_] = np.asarray(shown.any(0))
            judged = reader.judged(top, left, height, width)
            if judged is not None:
                there &= judged
            found = model.predict_proba(features.reshape(len(features), -1).T)
            probabilities = np.zeros((height * width, count))
            probabilities[:, np.asarray(model.classes_) - 1] = found
            probabilities = probabilities.reshape(height, width, count) * there[..., None]
            window = (slice(top, top + height), slice(left, left + width))
            classes[window] = np.where(there, probabilities.argmax(2) + 1, 0)
            _note_unsure(unsure, probabilities, given.labels[window], there, top, left)
            tile = np.zeros((BLOCK, BLOCK, count), np.uint8)
            tile[:height, :width] = np.round(255 * probabilities)
            observer.count(done + 1, len(blocks))
            yield tile

    with atomic_path(folder / PROBABILITY) as partial:
        tifffile.imwrite(
            partial,
            tiles(),
            shape=(reader.height, reader.width, count),
            dtype=np.uint8,
            tile=(BLOCK, BLOCK),
            photometric="minisblack",
            planarconfig="contig",
            compression="deflate",
            bigtiff=reader.height * reader.width * count > 2**31,
            description=", ".join(given.classes).encode("ascii", "replace").decode(),
        )
    strongest = sorted(unsure, key=lambda one: -one[0])[:SUGGESTED]
    features = [
        {
            "type": "Feature",
            "properties": {"name": "label next", "uncertainty": round(value, 4)},
            "geometry": {"type": "Polygon", "coordinates": [_box(left, top)]},
        }
        for value, top, left in strongest
    ]
    write_json(folder / SUGGESTIONS, {"type": "FeatureCollection", "features": features})
    return classes


def _box(left: int, top: int) -> list[list[int]]:
    right, bottom = left + SUGGESTED_SIDE, top + SUGGESTED_SIDE
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def _note_unsure(
    unsure: list[tuple[float, int, int]],
    probabilities: NDArray[np.float64],
    labels: NDArray[np.uint8],
    there: NDArray[np.bool_],
    top: int,
    left: int,
) -> None:
    """Add the mean entropy of each square of a block that has no label, in shares of the largest possible."""
    safe = np.clip(probabilities, 1e-9, 1)
    entropy = -(safe * np.log(safe)).sum(2) / math.log(max(2, probabilities.shape[2])) * there
    for y in range(0, labels.shape[0] - SUGGESTED_SIDE + 1, SUGGESTED_SIDE):
        for x in range(0, labels.shape[1] - SUGGESTED_SIDE + 1, SUGGESTED_SIDE):
            square = (slice(y, y + SUGGESTED_SIDE), slice(x, x + SUGGESTED_SIDE))
            if not labels[square].any():
                unsure.append((float(entropy[square].mean()), top + y, left + x))


def _figures(
    given: RegionLabels,
    scores: dict[str, dict[int, float]],
    features: FeatureSet,
    classes: NDArray[np.uint8],
    dpi: float | None,
) -> tuple[ClassFigures, ...]:
    total = max(1, int((classes > 0).sum()))
    found = []
    for number, name in enumerate(given.classes, start=1):
        is_own = classes == number
        pixels = int(is_own.sum())
        found.append(
            ClassFigures(
                name=name,
                labelled=int((given.labels == number).sum()),
                label_regions=int(ndimage.label(given.labels == number, structure=_EIGHT)[1]),
                average_precision=scores[features].get(number),
                by_features={name: own[number] for name, own in scores.items() if number in own},
                share=pixels / total,
                pixels=pixels,
                regions=int(ndimage.label(is_own, structure=_EIGHT)[1]),
                square_millimetres=None if dpi is None else pixels * (25.4 / dpi) ** 2,
            )
        )
    return tuple(found)


def _outlines(classes: NDArray[np.uint8], names: tuple[str, ...], dpi: float | None) -> dict[str, Any]:
    """Outlines of the regions of each class as GeoJSON, in pixels; single pixels are left out."""
    from skimage.measure import find_contours

    features = []
    for number, name in enumerate(names, start=1):
        labelled, _ = ndimage.label(classes == number, structure=_EIGHT)
        for region, box in enumerate(ndimage.find_objects(labelled), start=1):
            own = labelled[box] == region
            area = int(own.sum())
            if area < 2:
                continue
            top, left = box[0].start, box[1].start
            rings = find_contours(np.pad(own, 1).astype(float), 0.5)
            outer = max(rings, key=len)
            ring = [[round(float(x) + left - 0.5, 1), round(float(y) + top - 0.5, 1)] for y, x in outer]
            properties: dict[str, Any] = {"class": name, "pixels": area}
            if dpi is not None:
                properties["square_millimetres"] = area * (25.4 / dpi) ** 2
            geometry = {"type": "Polygon", "coordinates": [ring]}
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}
