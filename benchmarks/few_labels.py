"""Accuracy with few labels: a small classifier on latent features, on filter responses, on both, and on raw pixels.

Cracks are marked by hand in some images, and there are many more places without a mark. An autoencoder is fitted
on images without labels (``fp-cae``, the image as its one modality), and its latent variables, one vector for
every eight pixels, are the features of a classifier that is given n places with a crack and n without. Beside it
stands the same classifier on the largest, smallest and mean response of the filters of ``blemish classify`` in the
eight by eight pixels, on latents and responses together, on the pixels themselves that one latent vector sees, and on
the features of the same network before training, which shows what is learned and what is merely the shape of the network.

    python benchmarks/few_labels.py --data craquelure --truth skeletons --held-out 1 --steps 600 --draws 3 \\
        --labels 5 20 100 500 --places 5000 --out benchmarks/results/few_labels-craquelure.json
    python benchmarks/few_labels.py --data crackforest --truth masks --images 24 --held-out 8 --steps 600 --draws 3 \\
        --labels 5 20 100 500 --places 5000 --out benchmarks/results/few_labels-crackforest.json

``--data`` is a folder with ``images/`` and the truth in a folder beside it, of the same names: a pixel above 0 is
crack. A place counts as crack where its eight by eight pixels hold one. The last images are held out: neither the
autoencoder nor a classifier sees them. Every n is drawn several times with each of three seeds of the autoencoder and of the
draws; ``means`` are those of all, ``spread`` is the standard deviation of the means of the seeds. A plot stands beside
the JSON.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import sklearn
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blemish import __version__
from blemish.data.datasets import find_images
from blemish.data.image import read_image
from blemish.data.maps import write_image
from blemish.data.masks import read_mask
from blemish.inspection.detector import Detector
from blemish.inspection.extract_features import extract_features
from blemish.inspection.features import Features, read_features
from blemish.inspection.pixel_features import filter_features
from blemish.training.device import choose_machine
from blemish.training.fit import fit

Floats = NDArray[np.float32]
LABELS = (5, 10, 20, 50, 100, 200, 500)
AROUND = 1  # latent places on each side of the middle one
SEEN = 19 + 2 * 8 * AROUND  # pixels across that these see; one place of fp-cae sees 19
CROP = 160
CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "logistic regression": lambda seed: make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=300)
    ),
    "random forest": lambda seed: RandomForestClassifier(
        100, min_samples_leaf=2, random_state=seed, n_jobs=1
    ),
}


class Places(NamedTuple):
    """Places of several images, and what is known of each."""

    latent: Floats
    """(K, 9 d), of the fitted network."""
    untrained: Floats
    """(K, 9 d), of the same network before training."""
    filters: Floats
    """(K, 72 · C), largest, smallest and mean response of each filter."""
    raw: Floats
    """(K, SEEN² · C), the pixels around it."""
    crack: NDArray[np.bool_]
    """(K,)"""


def fit_without_labels(images: list[Path], work: Path, settings: list[str]) -> Detector:
    """The autoencoder of ``images``, cut into squares so that some can be held out to stop the training."""
    for path in images:
        pixels = read_image(path).floats()
        for top in range(0, pixels.shape[1] - CROP + 1, CROP):
            for left in range(0, pixels.shape[2] - CROP + 1, CROP):
                crop = pixels[:, top : top + CROP, left : left + CROP]
                write_image(work / "crops" / f"{path.stem}-{top}-{left}.png", crop)
    undecided = ["threshold.rule=fixed", "threshold.value=1"]  # nothing is to be rejected here
    return fit(work / "crops", "fp-cae", settings=[*undecided, *settings])


def features_of(detector: Detector, images: Path, out: Path) -> dict[str, Features]:
    """The features of every image, by the stem of its name."""
    extract_features(detector, images, out)
    found = [read_features(path) for path in out.rglob("*.zarr")]
    return {Path(features.name).stem: features for features in found}


def places_of(
    path: Path, truth: Path, latent: Features, untrained: Features, most: int, rng: np.random.Generator
) -> Places:
    """At most ``most`` places of one image, of those around which all pixels are."""
    image = read_image(path)
    pixels = image.floats()
    marked = read_mask(truth, size=image.size)
    half = SEEN // 2
    # The middle of each latent place, in whole pixels.
    rows, columns = (
        np.rint(latent.offset[axis] + latent.stride * np.arange(latent.shape[1 + axis])).astype(int)
        for axis in (0, 1)
    )
    cell = latent.stride // 2
    counts = np.pad(marked, cell).cumsum(0).cumsum(1)
    counts = np.pad(counts, ((1, 0), (1, 0)))
    i, j = np.meshgrid(np.arange(len(rows)), np.arange(len(columns)), indexing="ij")
    inside = [
        (at[index] >= half) & (at[index] < length - half)
        for at, index, length in ((rows, i, image.height), (columns, j, image.width))
    ]
    i, j = i[inside[0] & inside[1]], j[inside[0] & inside[1]]
    if len(i) > most:
        chosen = rng.choice(len(i), most, replace=False)
        i, j = i[chosen], j[chosen]
    top, left = rows[i], columns[j]  # of the cell, in the padded sums
    stride = latent.stride
    crack = (
        counts[top + stride, left + stride]
        - counts[top, left + stride]
        - counts[top + stride, left]
        + counts[top, left]
    )
    windows = sliding_window_view(
        pixels, (SEEN, SEEN), axis=(1, 2)
    )  # (C, H − SEEN + 1, W − SEEN + 1, SEEN, SEEN)
    raw = windows[:, rows[i] - half, columns[j] - half].swapaxes(0, 1).reshape(len(i), -1)
    return Places(
        vectors(latent, i, j),
        vectors(untrained, i, j),
        responses(pixels, top - cell, left - cell, stride),
        raw.astype(np.float32),
        crack > 0,
    )


def vectors(features: Features, i: NDArray[np.intp], j: NDArray[np.intp]) -> Floats:
    """The features of places and of those around them: (K, 9 d)."""
    whole = np.asarray(features.array[:], np.float32)  # (d, h, w)
    steps = range(-AROUND, AROUND + 1)
    near = [whole[:, i + down, j + right] for down in steps for right in steps]
    return np.concatenate(near).T  # (9 d, K) to (K, 9 d)


def responses(pixels: Floats, top: NDArray[Any], left: NDArray[Any], side: int) -> Floats:
    """Largest, smallest and mean response of the filters in squares of ``side`` pixels: (K, 72 C)."""
    found = []
    for plane in filter_features(pixels):
        squares = sliding_window_view(plane, (side, side))[
            np.clip(top, 0, plane.shape[0] - side), np.clip(left, 0, plane.shape[1] - side)
        ]
        found += [squares.max((1, 2)), squares.min((1, 2)), squares.mean((1, 2))]
    return np.stack(found, 1).astype(np.float32)


def together(parts: list[Places]) -> Places:
    return Places(*(np.concatenate(values) for values in zip(*parts, strict=True)))


FEATURES = {
    "latent": "latent features",
    "filters": "filter responses",
    "both": "latents and filters",
    "untrained": "latents before training",
    "raw": "raw pixels",
}


def columns(places: Places, features: str) -> Floats:
    if features == "both":
        return np.concatenate([places.latent, places.filters], 1)
    found: Floats = getattr(places, features)
    return found


def learned(known: Places, held_out: Places, n: int, seed: int, draw: int) -> dict[str, dict[str, float]]:
    """Average precision on ``held_out``, by classifier and features, with n labels of each kind."""
    rng = np.random.default_rng([n, seed, draw])
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(known.crack == kind), n, replace=False) for kind in (True, False)]
    )
    found: dict[str, dict[str, float]] = {}
    for name, make in CLASSIFIERS.items():
        found[name] = {}
        for features in FEATURES:
            seen, new = columns(known, features)[chosen], columns(held_out, features)
            classifier = make(draw).fit(seen, known.crack[chosen])
            scores = classifier.predict_proba(new)[:, 1]
            found[name][features] = float(average_precision_score(held_out.crack, scores))
    return found


def draw_plot(path: Path, labels: list[int], curves: dict[str, dict[str, Any]], chance: float) -> None:
    """A panel a classifier: average precision against labels, the mean of the draws and their quartiles."""
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(curves), 3.6), layout="constrained")
    for axis, (name, by_features) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        for features, label in FEATURES.items():
            draws = np.array(by_features[features])  # (labels, draws)
            (line,) = axis.plot(labels, draws.mean(axis=1), marker="o", markersize=3, label=label)
            low, high = np.quantile(draws, [0.25, 0.75], axis=1)
            axis.fill_between(labels, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axis.axhline(chance, color="grey", linestyle=":", label="chance")
        axis.set_xscale("log")
        axis.set_xticks(labels, [str(n) for n in labels], minor=False)
        axis.minorticks_off()
        axis.set_ylim(0, None)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("labelled places of each kind", fontsize=9)
        axis.set_ylabel("average precision, held-out images", fontsize=9)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=90)


def places_of_all(
    images: list[Path], unlabelled: list[Path], options: argparse.Namespace, seed: int
) -> tuple[Places, Places, Detector]:
    """Places to label, held-out places, and the network, of one seed."""
    settings = [
        f"training.seed={seed}",
        "training.batch=16",
        f"training.validate_every={max(1, options.steps // 10)}",
    ]
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        trained = fit_without_labels(
            unlabelled, work / "fitted", [*settings, f"training.steps={options.steps}"]
        )
        # One step of next to no length is the network as it was initialised.
        still = [*settings, "training.steps=1", "training.learning_rate=1.0e-12"]
        untrained = fit_without_labels(unlabelled, work / "untrained", still)
        (work / "images").mkdir()
        for path in images:
            (work / "images" / path.name).symlink_to(path.resolve())
        latent, before = (
            features_of(one, work / "images", work / name)
            for one, name in ((trained, "latent"), (untrained, "before"))
        )
        parts = [
            places_of(
                path,
                options.data / options.truth / f"{path.stem}.png",
                latent[path.stem],
                before[path.stem],
                options.places // options.held_out if path not in unlabelled else options.places,
                rng,
            )
            for path in images
        ]
    return together(parts[: len(unlabelled)]), together(parts[len(unlabelled) :]), trained


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and the truth")
    parser.add_argument("--truth", default="masks", help="folder of the truth in it")
    parser.add_argument("--held-out", type=int, default=1, help="images to measure on, the last by name")
    parser.add_argument("--images", type=int, help="use so many, evenly taken, instead of all")
    parser.add_argument("--steps", type=int, default=1500, help="of the autoencoder")
    parser.add_argument("--draws", type=int, default=10, help="of the labels, for each n")
    parser.add_argument("--labels", type=int, nargs="+", default=list(LABELS))
    parser.add_argument("--places", type=int, default=20_000, help="held-out places, at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    images = [item.path for item in find_images(options.data / "images")]
    if options.images:
        places = np.linspace(0, len(images) - 1, options.images).round().astype(int)
        images = [images[place] for place in places]
    unlabelled = images[: -options.held_out]
    draws: dict[int, list[dict[str, dict[str, float]]]] = {n: [] for n in options.labels}
    for seed in options.seeds:
        known, held_out, trained = places_of_all(images, unlabelled, options, seed)
        for n in options.labels:
            draws[n] += [learned(known, held_out, n, seed, draw) for draw in range(options.draws)]
        print(f"seed {seed} is done", flush=True)
    curves = {
        name: {
            features: [[one[name][features] for one in draws[n]] for n in options.labels]
            for features in FEATURES
        }
        for name in CLASSIFIERS
    }
    chance = float(held_out.crack.mean())

    def by_seed(values: list[float]) -> NDArray[np.float64]:
        return np.reshape(values, (len(options.seeds), options.draws)).mean(1)

    def ahead(one: str, other: str) -> dict[str, list[str]]:
        return {
            name: [
                f"{sum(a > b for a, b in zip(mine, others, strict=True))} of {len(mine)}"
                for mine, others in zip(by[one], by[other], strict=True)
            ]
            for name, by in curves.items()
        }

    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": str(choose_machine()),
        "versions": {"blemish": __version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__},
        "dataset": options.data.resolve().name,
        "images": {"unlabelled": len(unlabelled), "held_out": options.held_out},
        "training": {
            "recipe": trained.recipe.name,
            "steps": trained.file.training.steps,
            "seeds": options.seeds,
        },
        "places": {"to label": len(known.crack), "held_out": len(held_out.crack), "crack": chance},
        "features": {name: columns(held_out, name).shape[1] for name in FEATURES},
        "labels": options.labels,
        "means": {
            name: {features: [float(np.mean(values)) for values in rows] for features, rows in by.items()}
            for name, by in curves.items()
        },
        "spread": {
            name: {
                features: [
                    float(by_seed(values).std(ddof=1)) if len(options.seeds) > 1 else None for values in rows
                ]
                for features, rows in by.items()
            }
            for name, by in curves.items()
        },
        "average_precision": curves,
        "ahead": {
            "latent of raw": ahead("latent", "raw"),
            "filters of latent": ahead("filters", "latent"),
            "both of filters": ahead("both", "filters"),
        },
    }
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draw_plot(options.out.with_suffix(".png"), options.labels, curves, chance)
    for name, by in curves.items():
        for place, n in enumerate(options.labels):
            means = ", ".join(f"{features} {np.mean(by[features][place]):.3f}" for features in by)
            print(f"{name}, {n} labels of each kind: {means}")


if __name__ == "__main__":
    main()
