"""Classification of every pixel of an image or scene from a few labelled strokes or polygons.

Features of a pixel are responses of classic filters at four scales, of each channel; a random forest or logistic
regression learns the classes from the labelled pixels. Figures come from regions that were left out in turn: pixels of
one stroke resemble each other, so that a random split of pixels would flatter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.modality import Modality
from blemish.data.region_labels import RegionLabels, read_region_labels
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import Scene, find_scenes
from blemish.data.windowed import open_windowed
from blemish.decision.metrics import average_precision
from blemish.errors import Stopped, UsageError
from blemish.observer import Observer
from blemish.storage.atomic import atomic_path, write_json
from blemish.storage.run_folder import refuse_unwritable

Learner = Literal["forest", "logistic"]
SIGMAS = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the filters, in pixels."""
FILTERS = 6
REACH = 40
"""Pixels beyond a block that its features depend on."""
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
        return "\n".join(lines)


def filter_features(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute filter responses of an image (C, H, W): (24 C, H, W).

    At each scale: the Gaussian mean, the gradient magnitude, the Laplacian, the two eigenvalues of the Hessian, and the
    larger one of the structure tensor; derivatives are multiplied by their scale. Absent values (NaN) are filled with
    the mean of the present ones.
    """
    features = []
    for plane in pixels:
        there = np.isfinite(plane)
        plane = plane if there.all() else np.where(there, plane, plane[there].mean() if there.any() else 0.5)
        for sigma in SIGMAS:

            def derived(*order: int, plane: NDArray[Any] = plane, sigma: float = sigma) -> NDArray[Any]:
                found: NDArray[Any] = ndimage.gaussian_filter(plane, sigma, order, mode="nearest", truncate=3)
                return found

            mean, dy, dx = derived(0, 0), derived(1, 0) * sigma, derived(0, 1) * sigma
            yy, xx, xy = (derived(*order) * sigma**2 for order in ((2, 0), (0, 2), (1, 1)))
            half, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
            tensor = [
                ndimage.gaussian_filter(one, sigma, mode="nearest", truncate=2)
                for one in (dy * dy, dx * dx, dy * dx)
            ]
            larger = (tensor[0] + tensor[1]) / 2 + np.hypot((tensor[0] - tensor[1]) / 2, tensor[2])
            features += [
                mean,
                np.hypot(dy, dx),
                yy + xx,
                half + spread,
                half - spread,
                np.sqrt(np.maximum(larger, 0)),
            ]
    return np.stack(features).astype(np.float32)


def classify(
    source: str | Path,
    labels: str | Path,
    out: str | Path,
    *,
    learner: Learner = "forest",
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
    dpi: pixels an inch, for areas in mm².
    seed: of the forest and of the draw of labelled pixels.

    Raises
    ------
    UsageError
        When ``source`` holds several scenes, or ``out`` holds a result already.
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
    with SceneReader(_scene(Path(source))) as reader:
        given = read_region_labels(labels, (reader.width, reader.height))
        observer.stage(
            f"Learning {len(given.classes)} classes from {int((given.labels > 0).sum())} labelled pixels"
        )
        x, y, regions = _labelled(reader, given, seed, observer)
        scores = _left_out_scores(x, y, regions, learner, seed)
        model = _learner(learner, seed).fit(x, y)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FIGURES).unlink(missing_ok=True)
        classes = _classify_blocks(reader, model, given, folder, observer)
    done = Classification(folder, _figures(given, scores, classes, dpi))
    write_json(folder / REGIONS, _outlines(classes, given.classes, dpi))
    write_json(folder / FIGURES, {"learner": learner, "classes": [asdict(one) for one in done.classes]})
    return done


def _scene(source: Path) -> Scene:
    if source.is_dir() or source.suffix.lower() in {".yaml", ".yml"}:
        scenes = find_scenes(source)
        if len(scenes) > 1:
            raise UsageError(f"{source}: holds {len(scenes)} scenes; name one, whose labels these are")
        return scenes[0]
    modality = Modality(name="image", channels=open_windowed(source).channels, file=source.name)
    return Scene(source.stem, source.parent, (modality,))


def _learner(name: Learner, seed: int) -> Any:
    if name == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(100, min_samples_leaf=2, class_weight="balanced", random_state=seed)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))


def _features(reader: SceneReader, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
    """Features (F, height, width) of a block, computed with its surroundings."""
    first_row, first_column = max(0, top - REACH), max(0, left - REACH)
    rows = min(reader.height, top + height + REACH) - first_row
    columns = min(reader.width, left + width + REACH) - first_column
    found = filter_features(reader.read(first_row, first_column, rows, columns))
    y, x = top - first_row, left - first_column
    return found[:, y : y + height, x : x + width]


def _blocks(reader: SceneReader) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, reader.height, BLOCK):
        for left in range(0, reader.width, BLOCK):
            yield top, left, min(BLOCK, reader.height - top), min(BLOCK, reader.width - left)


def _labelled(
    reader: SceneReader, given: RegionLabels, seed: int, observer: Observer
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
    for top, left, height, width in _blocks(reader):
        inside = chosen[top : top + height, left : left + width]
        if not inside.any():
            continue
        if observer.should_stop():
            raise Stopped("stopped while learning; nothing is written")
        x.append(_features(reader, top, left, height, width)[:, inside].T)
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
    reader: SceneReader, model: Any, given: RegionLabels, folder: Path, observer: Observer
) -> NDArray[np.uint8]:
    """Write the probabilities and the suggestions; the most probable class (H, W) of each pixel, 0 where nothing is."""
    classes = np.zeros((reader.height, reader.width), np.uint8)
    count = len(given.classes)
    unsure: list[tuple[float, int, int]] = []
    blocks = list(_blocks(reader))

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for done, (top, left, height, width) in enumerate(blocks):
            if observer.should_stop():
                raise Stopped(f"stopped after {done} of {len(blocks)} blocks; nothing is written")
            features = _features(reader, top, left, height, width)
            shown = np.isfinite(reader.read(top, left, height, width))
            there: NDArray[np.bool_] = np.asarray(shown.any(0))
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
    given: RegionLabels, scores: dict[int, float], classes: NDArray[np.uint8], dpi: float | None
) -> tuple[ClassFigures, ...]:
    total = max(1, int((classes > 0).sum()))
    found = []
    for number, name in enumerate(given.classes, start=1):
        own = classes == number
        pixels = int(own.sum())
        found.append(
            ClassFigures(
                name=name,
                labelled=int((given.labels == number).sum()),
                label_regions=int(ndimage.label(given.labels == number, structure=_EIGHT)[1]),
                average_precision=scores.get(number),
                share=pixels / total,
                pixels=pixels,
                regions=int(ndimage.label(own, structure=_EIGHT)[1]),
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
