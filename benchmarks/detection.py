"""How good the detector is, what each of its parts brings, and whether its promises are kept.

    python benchmarks/detection.py table DATA/mvtec_screw DATA/magnetic_tile --recipes blemish,ssim-ae --seeds 0,1,2
    python benchmarks/detection.py ablation DATA/mvtec_screw
    python benchmarks/detection.py parts DATA/mvtec_screw
    python benchmarks/detection.py ensemble DATA/mvtec_screw --seeds 0,1,2
    python benchmarks/detection.py contamination DATA/mvtec_screw --shares 0,0.05,0.1 --trim
    python benchmarks/detection.py few DATA/mvtec_screw --counts 5,10,20,40,80,160
    python benchmarks/detection.py rates DATA/mvtec_screw --rates 0.01,0.05,0.1,0.2

Each names folders of data sets in the MVTec layout and writes JSON, Markdown and a plot to ``--out``. Fits and what
was measured with them are kept in ``--work``, from which a stopped run goes on; remove it when the detector has
changed. For curves there is ``--fast``: no network to speak of, only the memory.

A table that takes days, such as ``table DATA --recipes papers --budget 1h``, grows with ``--keep``: what the same table in
``--out`` has of other recipes and seeds stays, perhaps measured on another machine, and each recipe is added when it is
done. Every row in the JSON names its command and machine.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import joblib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy import ndimage
from scipy.stats import spearmanr

from blemish.data.datasets import Item, read_labelled, read_mask
from blemish.data.image import LoadedImage, image_info, read_image, resize
from blemish.decision import Guarantee, PixelMetrics, conformal_threshold, image_score, roc_auc, trimmed
from blemish.decision.conformal import Trim
from blemish.demo.generated import FAMILIES
from blemish.detectors.ensemble import Ensemble, combined
from blemish.evaluation.compare import Run
from blemish.inspection.detector import Detector, EnsembleCandidate, versions
from blemish.observer import Observer
from blemish.preprocessing import pose as posing
from blemish.preprocessing import transform as preparing
from blemish.recipes import load_recipe, override, recipe_names
from blemish.similarity import ssim_map
from blemish.similarity.msgms import msgms_map
from blemish.storage.atomic import atomic_path, write_json, write_text
from blemish.training import image_source
from blemish.training.device import choose_machine
from blemish.training.fit import fit
from studies.protocol import brightness_auroc, comparison, fitted, generated, spread, table

Floats = NDArray[np.float64]
RATE = 0.05
FAST = ("memory.share=1.0", "encoder.widths=[4]", "training.budget=null", "training.steps=1")
PEERS = Path(__file__).with_name("detection-peers.json")
STUDIES = Path(__file__).parents[1] / "studies" / "results"
VARIANTS: dict[str, list[str]] = {
    "all": [],
    "without pose": ["image.pose=never"],
    "memory anywhere": ["memory.by_place=false"],
    "structure alone": ["memory.contrast=false"],
    "memory only": ["memory.share=1.0"],
    "network only": ["memory.share=0.0"],
    "patch 8": ["memory.patch=8"],
    "patch 32": ["memory.patch=32"],
    "floor 0.5": ["memory.floor=0.5"],
    "floor 1": ["memory.floor=1.0"],
    "reach 0": ["memory.reach=0"],
    "reach 2": ["memory.reach=2"],
    "stride 8": ["memory.stride=8"],
    "every image": ["memory.nearest_images=100000"],
    "25 images alike": ["memory.nearest_images=25"],
    "200 images": ["memory.images=200"],
    "8 dimensions": ["memory.dimensions=8"],
    "32 dimensions": ["memory.dimensions=32"],
    "no reconstruction": ["loss=[{name: segmentation}]"],
    "no exposure": ["augmentation=[]"],
    "small blemishes": ["corruption=[{name: synthetic-anomalies, smallest: 0.03, largest: 0.1}]"],
}
UNSEEN = "unseen"
"""Label of good images of the training folder that a fit has not seen."""


# -- one fit and what it measures ----------------------------------------------------------------------


class Shown(BaseModel):
    """An image that a detector has not seen before."""

    label: str
    score: float
    peak: float
    """Maximum of its map, at its own size."""


class Trial(BaseModel):
    """A fit, and what it makes of other images."""

    identity: str
    """Changes with the settings, the images and their order."""
    fit_seconds: float
    test_seconds: float
    split: dict[str, int]
    """How many images trained, validated and calibrated."""
    calibration_scores: tuple[float, ...]
    calibration_peaks: tuple[float, ...]
    candidates: tuple[EnsembleCandidate, ...]
    notes: tuple[str, ...]
    shown: tuple[Shown, ...]
    pixel_auroc: float | None
    pixel_ap: float | None
    aupro_30: float | None

    def scores(self, *labels: str) -> Floats:
        return np.array([one.score for one in self.shown if one.label in labels])

    def peaks(self, *labels: str) -> Floats:
        return np.array([one.peak for one in self.shown if one.label in labels])

    @property
    def defects(self) -> tuple[str, ...]:
        return tuple({one.label for one in self.shown} - {"good", UNSEEN})

    def auroc(self) -> float:
        """Of the test images."""
        good, defective = self.scores("good"), self.scores(*self.defects)
        labels = np.repeat([False, True], [len(good), len(defective)])
        return roc_auc(labels, np.concatenate([good, defective]))

    def proxy(self) -> EnsembleCandidate | None:
        """The best candidate on synthetic blemishes; the one in use is as good but for chance."""
        return max(self.candidates, key=lambda one: one.image_auroc, default=None)


class Bench:
    """A data set, the settings that all fits on it share, and the folder that keeps them."""

    def __init__(self, options: argparse.Namespace, dataset: Path) -> None:
        self.dataset = dataset
        self.settings = [*(FAST if options.fast else ()), *options.set]
        self.recipe = load_recipe(options.recipe)
        self.work = options.work / options.task / dataset.resolve().stem
        labelled = read_labelled(dataset).items
        self.train = [item for item in labelled if item.split == "train" and item.is_good]
        self.tests = [item for item in labelled if item.split == "test"]
        self.seconds = 0.0
        """Of all fits and tests, kept ones included."""

    def trial(
        self, name: str, train: Sequence[Item], shown: Sequence[Item], seed: int, settings: Sequence[str] = ()
    ) -> Trial:
        """Fit on ``train``, whatever their labels say, and measure ``shown``, unless that has been done."""
        changes = [*self.settings, *settings, f"training.seed={seed}"]
        recipe = override(self.recipe, changes)
        names = [f"{item.name} of {item.group}" if item.group else item.name for item in train]
        told = [recipe.model_dump_json(), *names, "shown", *(item.name for item in shown)]
        identity = hashlib.sha256("\n".join(told).encode()).hexdigest()
        path = self.work / f"{name}-{seed}.json"
        kept = Trial.model_validate_json(path.read_bytes()) if path.exists() else None
        if kept is None or kept.identity != identity:
            images = self.work / f"{name}-{seed}.csv"
            images.parent.mkdir(parents=True, exist_ok=True)
            with images.open("w", encoding="utf-8", newline="") as file:
                rows = [(item.path.resolve(), item.group) for item in train]
                csv.writer(file).writerows([("path", "group"), *rows])
            begun = time.perf_counter()
            detector = fit(images, recipe)
            fitted = time.perf_counter()
            kept = measured(detector, shown, identity, fitted - begun)
            write_json(path, kept.model_dump(mode="json"))
        self.seconds += kept.fit_seconds + kept.test_seconds
        print(f"{name}, seed {seed}: AUROC {kept.auroc():.3f}, fit {kept.fit_seconds:.0f} s", flush=True)
        return kept


def measured(detector: Detector, items: Sequence[Item], identity: str, fit_seconds: float) -> Trial:
    """What ``detector`` makes of ``items``; those of the training split count for unseen good ones."""
    begun = time.perf_counter()
    pixels = PixelMetrics(resamples=0)
    shown = []
    for item in items:
        image = read_image(item.path)
        found = detector.measure(image)
        label = UNSEEN if item.split == "train" else str(item.label)
        shown.append(Shown(label=label, score=found.score, peak=float(found.map.max())))
        if label == "good":
            pixels.update(found.map)
        elif item.mask and (mask := read_mask(item.mask, size=image.size)).any():
            pixels.update(found.map, mask)
    file = detector.file
    result = pixels.result()
    return Trial(
        identity=identity,
        fit_seconds=fit_seconds,
        test_seconds=time.perf_counter() - begun,
        split={part: len(names) for part, names in file.split.items()},
        calibration_scores=file.calibration.scores,
        calibration_peaks=file.calibration.peaks,
        candidates=file.training.candidates,
        notes=file.training.notes,
        shown=tuple(shown),
        pixel_auroc=result.auroc,
        pixel_ap=result.ap,
        aupro_30=result.aupro_30,
    )


def keep_poses(work: Path) -> None:
    """Find the pose of each image once for all fits; it is what a fit without training mostly does."""
    found = joblib.Memory(work / "poses", verbose=0).cache(posing.find_pose)
    image_source.find_pose = preparing.find_pose = found  # type: ignore[attr-defined]


def above(values: Floats, calibration: Sequence[float], rate: float) -> float | None:
    """Share of ``values`` above the conformal threshold; None without any."""
    return float((values > conformal_threshold(calibration, rate)).mean()) if len(values) else None


# -- beside other methods ------------------------------------------------------------------------------

FIGURES = ("image_auroc", "pixel_auroc", "aupro_30")
WITHOUT_WEIGHTS = {"fm-ae": ("loss.1.network=gabor", "loss.1.weight=1")} | {
    f"{kind}-{network}-{loss}": ("encoder.weights=none",)
    for kind in ("cae", "dae")
    for network in ("vgg16", "resnet50")
    for loss in ("mse", "ssim")
}
"""What the papers' recipes are given for want of ImageNet weights."""
NOT_OF_IMAGES = ("our own", "Xie")
"""How the source of a recipe begins that is not one of the papers' for single images."""


def beside_others(
    benches: Sequence[Bench], recipes: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Every recipe on every data set, beside what looks at nothing, the papers' recipes, and other methods."""
    budget = [f"training.budget={options.budget}"] if options.budget else []
    peers = json.loads(PEERS.read_text(encoding="utf-8"))
    measured_before = before(options) if options.keep else []
    rows: list[dict[str, Any]] = []
    for bench in benches:
        name = bench.dataset.resolve().stem
        settings = [*options.set, *budget]
        chosen = {recipe: WITHOUT_WEIGHTS.get(recipe, ()) for recipe in recipes}
        runs = comparison(bench.work, bench.dataset, chosen, options.seeds, settings, Observer()).runs
        for recipe, some in grouped([{"recipe": run.recipe, "run": run} for run in runs], "recipe"):
            of_seeds = [one["run"] for one in some]
            evaluations = [run.evaluation for run in of_seeds]
            row = {
                "dataset": name,
                "name": recipe,
                "source": measured_here(options.budget),
                "seeds": [run.seed for run in of_seeds],
                "image_auroc": [one.image["all"].figures["auroc"].value for one in evaluations],
                "pixel_auroc": [one.pixel.auroc for one in evaluations],
                "aupro_30": [one.pixel.aupro_30 for one in evaluations],
                "seconds": [run.training_seconds for run in of_seeds],
                "steps": [run.training_steps for run in of_seeds],
                "machines": [one.training.machine_words for one in evaluations],
                "commands": [command(options)] * len(of_seeds),
            }
            bench.seconds += sum(row["seconds"]) + sum(one.seconds for one in evaluations)
            rows.append(with_seeds_before(row, measured_before))
        own = {row["name"] for row in rows if row["dataset"] == name}
        rows += [row for row in measured_before if row["dataset"] == name and row["name"] not in own]
        for statistic, auroc in (
            ("mean grey level alone", brightness_auroc(bench.dataset)),
            ("size of the image alone", size_auroc(bench.dataset)),
            ("likeness to one training image alone", twin_auroc(bench.dataset)),
        ):
            rows.append(
                {"dataset": name, "name": statistic, "source": "looks at nothing", "image_auroc": [auroc]}
            )
        rows += [*of_other_tables(options.out, name, options.budget), *of_studies(name)]
        rows += [
            {"dataset": name, **peer, "source": f"{peer['kind']}: {peer['source']}"}
            for peer in peers.get(name, [])
        ]
    parts = [
        f"## {name}\n\n"
        + table(
            [
                "method",
                "from",
                "computed in",
                "seeds",
                "image AUROC",
                "pixel AUROC",
                "AUPRO 30 %",
                "seconds of training",
                "steps",
            ],
            [
                [
                    row["name"],
                    row["source"],
                    ", ".join(dict.fromkeys(map(precision, row.get("machines", [])))) or "–",
                    str(len(row.get("seconds", []) or "–")),
                    *(spread(row.get(key, [None])) for key in FIGURES),
                    *(spread(row.get(key, [None]), 0) for key in ("seconds", "steps")),
                ]
                for row in some
            ],
            left=3,
        )
        for name, some in grouped(rows, "dataset")
    ]
    figure, panels = axes(len(benches))
    figure.set_figheight(1.2 + 0.24 * max(len(some) for _, some in grouped(rows, "dataset")))
    for axis, (name, some) in zip(panels, grouped(rows, "dataset"), strict=True):
        known = sorted(
            (row for row in some if row.get("image_auroc")), key=lambda row: fmean(row["image_auroc"])
        )
        for place, row in enumerate(known):
            kind = row["source"].partition(":")[0]
            values = row["image_auroc"]
            axis.barh(place, fmean(values), color=COLOURS[kind])
            axis.plot([min(values), max(values)], [place, place], color="black", linewidth=1.5)
        axis.set_yticks(range(len(known)), [labelled_by_length(row) for row in known], fontsize=8)
        axis.axvline(0.5, color="black", linestyle=":")
        axis.set_xlim(0, 1)
        axis.set_xlabel("image AUROC")
        axis.set_title(name, fontsize=10)
        for kind in dict.fromkeys(row["source"].partition(":")[0] for row in known):
            axis.barh(0, 0, color=COLOURS[kind], label=kind)
    finish_axes(panels, [""] * len(panels))
    return {"budget": options.budget, "rows": rows, "markdown": "\n".join(parts), "figure": figure}


COLOURS = {
    "measured here": "tab:blue",
    "a study here": "tab:cyan",
    "looks at nothing": "tab:gray",
    "measured": "tab:orange",
    "published": "tab:red",
}


def size_auroc(dataset: Path) -> float:
    """Image AUROC of the distance in (log width, log height) to the nearest training image alone."""
    labelled = read_labelled(dataset).items
    infos = [image_info(item.path) for item in labelled]
    sizes = np.log([(info.width, info.height) for info in infos])  # (K, 2)
    trained = np.array([item.split == "train" for item in labelled])
    distances = np.linalg.norm(sizes[~trained, None] - sizes[None, trained], axis=2).min(1)
    return roc_auc([not item.is_good for item in labelled if item.split != "train"], distances)


def twin_auroc(dataset: Path) -> float:
    """Image AUROC of the correlation with the most alike training image alone, at 64 × 64 and without shading.

    Far above that of the image's size, it says that parts of the training set were photographed again for the test's
    good images, as the tiles were under several lights; a method that remembers images profits.
    """
    labelled = read_labelled(dataset).items
    patterns = np.stack([pattern(read_image(item.path)) for item in labelled])  # (K, 64²)
    trained = np.array([item.split == "train" for item in labelled])
    likeness = (patterns[~trained] @ patterns[trained].T).max(1)
    return roc_auc([not item.is_good for item in labelled if item.split != "train"], -likeness)


def pattern(image: LoadedImage) -> Floats:
    """What is left of an image without shading and light, (64²,), of length 1."""
    light = np.log(resize(image.floats().mean(0, keepdims=True), (64, 64))[0] + 0.02)
    detail = light - ndimage.gaussian_filter(light, 4)
    detail = detail - detail.mean()
    return np.asarray(detail / np.linalg.norm(detail), dtype=np.float64).ravel()


def measured_here(budget: str | None) -> str:
    """The source of a row, as a table names it."""
    return "measured here" + (f": {budget} of training" if budget else "")


def labelled_by_length(row: dict[str, Any]) -> str:
    """The method of a row, with how long it was trained where a table set one length for all."""
    length = row["source"].removeprefix("measured here: ").removesuffix(" of training")
    return row["name"] if length == row["source"] else f"{row['name']}, {length}"


def precision(machine: str) -> str:
    """What a :class:`~blemish.training.device.Machine` in words computes in.

    >>> precision("CPU, 1 of 2 cores; bfloat16 (native here); channels_last; torch 2.13.0+cpu")
    'bfloat16'
    """
    return machine.split("; ")[1].partition(" ")[0]


def own_rows(path: Path) -> list[dict[str, Any]]:
    """What a table in ``path`` has measured itself, without what it took from others."""
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for row in document["rows"]:
        if row["source"] != measured_here(document["budget"]):
            continue
        if "machine" in row:  # of a table from before rows could be of several runs
            count = len(row["seconds"])
            machines, commands = [row.pop("machine")] * count, [document["command"]] * count
            row |= {"seeds": document["seeds"], "steps": [None] * count}
            row |= {"machines": machines, "commands": commands}
        rows.append(row)
    return rows


def of_other_tables(out: Path, dataset: str, budget: str | None) -> list[dict[str, Any]]:
    """What the tables in ``out`` with another budget of training have measured on ``dataset``."""
    rows = [row for path in sorted(out.glob(f"detection-table-{dataset}*.json")) for row in own_rows(path)]
    return [row for row in rows if row["dataset"] == dataset and row["source"] != measured_here(budget)]


def before(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the table that is about to be replaced has measured."""
    path = options.out / f"{stem_of(options)}.json"
    return own_rows(path) if path.exists() else []


def with_seeds_before(row: dict[str, Any], rows_before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``row`` with what ``rows_before`` have of the same recipe with other seeds."""
    for other in rows_before:
        if (other["dataset"], other["name"]) == (row["dataset"], row["name"]):
            stay = [place for place, seed in enumerate(other["seeds"]) if seed not in row["seeds"]]
            of_seeds = [key for key, values in row.items() if isinstance(values, list)]
            return row | {key: [other[key][place] for place in stay] + row[key] for key in of_seeds}
    return row


def of_studies(dataset: str) -> list[dict[str, Any]]:
    """The figures of recipes that the committed studies and evaluations hold for ``dataset``."""
    rows: list[dict[str, Any]] = []
    for path in sorted(STUDIES.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("dataset") != dataset:
            continue
        runs = [row for row in document.get("rows", [document]) if {"recipe", "image"} <= row.keys()]
        for recipe, some in grouped(runs, "recipe"):
            row = {
                "dataset": dataset,
                "name": recipe,
                "source": f"a study here: {path.name}",
                "image_auroc": [one["image"]["all"]["figures"]["auroc"]["value"] for one in some],
                "seconds": [
                    one["training_seconds"] if "training_seconds" in one else one["training"]["seconds"]
                    for one in some
                ],
            }
            for key, figure in (("pixel_auroc", "auroc"), ("aupro_30", "aupro_30")):
                row[key] = [one["pixel"][figure] for one in some]
            # The same fit at another threshold has the same figures.
            if not any({**row, "source": one["source"]} == one for one in rows):
                rows.append(row)
    return rows


# -- few good images ---------------------------------------------------------------------------------


def few(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Figures against the number of good images, and the promise they can carry beside what is realised."""
    rows = []
    for count in options.counts:
        # What calibrates is at most half of the images; they promise 1 / (n + 1) at best.
        rate = max(RATE, -(-1000 // (count // 2 + 1)) / 1000)
        for seed in options.seeds:
            order = np.random.default_rng(seed).permutation(len(bench.train))
            drawn = [bench.train[number] for number in order[:count]]
            unseen = [bench.train[number] for number in order[len(order) - options.unseen :]]
            trial = bench.trial(
                f"{count}", drawn, [*bench.tests, *unseen], seed, [f"threshold.false_reject_rate={rate}"]
            )
            promise = Guarantee(n=len(trial.calibration_scores), false_reject_rate=rate)
            proxy = trial.proxy()
            rows.append(
                {
                    "good": count,
                    "seed": seed,
                    "split": trial.split,
                    "auroc": trial.auroc(),
                    "pixel_auroc": trial.pixel_auroc,
                    "aupro_30": trial.aupro_30,
                    "by_place": proxy.by_place if proxy else None,
                    "rate": rate,
                    "promised": promise.bound,
                    "promised_95": promise.upper(),
                    **realised(trial, rate),
                    "fit_seconds": trial.fit_seconds,
                }
            )
    groups = grouped(rows, "good")
    columns = ["auroc", "pixel_auroc", "aupro_30", "promised", "promised_95", *REALISED]
    text = table(
        [
            "good images",
            "AUROC",
            "pixel AUROC",
            "AUPRO 30 %",
            "promised",
            "with 95 % confidence",
            "rejected, unseen",
            "rejected, test",
            "found",
            "with regions, unseen",
            "with regions, test",
        ],
        [[str(count), *(spread([row[c] for row in some]) for c in columns)] for count, some in groups],
    )
    figure, (left, right) = axes(2)
    counts = [count for count, _ in groups]
    for key, name in (("auroc", "image AUROC"), ("pixel_auroc", "pixel AUROC"), ("aupro_30", "AUPRO 30 %")):
        curve(left, counts, [[row[key] for row in some] for _, some in groups], name)
    for key, name in (
        ("rejected_unseen", "realised, unseen of the training folder"),
        ("rejected_test", "realised, test/good"),
    ):
        curve(right, counts, [[row[key] for row in some] for _, some in groups], name)
    for key, name, line in (
        ("promised", "promised on average", "--"),
        ("promised_95", "promised with 95 %", ":"),
    ):
        right.plot(
            counts, [fmean(row[key] for row in some) for _, some in groups], line, color="black", label=name
        )
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("good images")
    finish_axes([left, right], ["", "good images rejected"])
    return {"rows": rows, "markdown": text, "figure": figure}


REALISED = (
    "rejected_unseen",
    "rejected_test",
    "found",
    "with_regions_unseen",
    "with_regions_test",
)


def realised(trial: Trial, rate: float) -> dict[str, float | None]:
    """Shares of good images rejected or with regions, and of defective ones rejected, at ``rate``."""
    scores, peaks = trial.calibration_scores, trial.calibration_peaks
    return {
        "rejected_unseen": above(trial.scores(UNSEEN), scores, rate),
        "rejected_test": above(trial.scores("good"), scores, rate),
        "found": above(trial.scores(*trial.defects), scores, rate),
        "with_regions_unseen": above(trial.peaks(UNSEEN), peaks, rate),
        "with_regions_test": above(trial.peaks("good"), peaks, rate),
    }


# -- defective images among the good -----------------------------------------------------------------


def contamination(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Figures against the share of the training images that is defective, unnoticed.

    The defective ones come from the test; those that go into any fit of a seed are in no test of that seed.
    """
    rows = []
    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        defective = [item for item in bench.tests if not item.is_good]
        spoiling = [defective[number] for number in rng.permutation(len(defective))]
        order = [bench.train[number] for number in rng.permutation(len(bench.train))]
        most = round(max(options.shares) * len(order))
        tests = [item for item in bench.tests if item.is_good] + spoiling[most:]
        for share in options.shares:
            count = round(share * len(order))
            train = [*order[count:], *spoiling[:count]]
            for name, (training, threshold) in trims(share).items() if options.trim else UNTRIMMED.items():
                settings = [f"training.trim={training}", f"threshold.false_reject_rate={options.rate}"]
                trial = bench.trial(f"{share:g}-trim-{training}", train, tests, seed, settings)
                rows.append(contaminated(trial, seed, share, name, threshold, options.rate))
    clean = [row for row in rows if not row["share"] and row["trimmed"] == "nothing"]
    lines = {
        name: line if any(not row["share"] for row in line) else [*clean, *line]
        for name, line in grouped(rows, "trimmed")
    }
    text = table(
        [
            "trimmed",
            "defective",
            "AUROC",
            "pixel AUROC",
            "good rejected",
            "good with regions",
            "defective rejected",
        ],
        [
            [
                name,
                f"{100 * share:g} %",
                *(
                    spread([row[key] for row in some])
                    for key in ("auroc", "pixel_auroc", "rejected_test", "with_regions_test", "found")
                ),
            ]
            for name, line in grouped(rows, "trimmed")
            for share, some in grouped(line, "share")
        ],
        left=2,
    )
    figure, panels = axes(3)
    for name, line in lines.items():
        by_share = grouped(line, "share")
        shares = [100 * share for share, _ in by_share]
        for axis, key in zip(panels, ("auroc", "rejected_test", "found"), strict=True):
            values = [[row[key] for row in some] for _, some in by_share]
            curve(axis, shares, values, f"trimmed: {name}")
    panels[1].axhline(
        options.rate, color="black", linestyle="--", label="promised, were the test like the training"
    )
    for axis in panels:
        axis.set_xlabel("defective among the training images, %")
    finish_axes(panels, ["image AUROC", "good test images rejected", "defective test images rejected"])
    return {"rows": rows, "markdown": text, "figure": figure}


UNTRIMMED: dict[str, tuple[Trim, Trim]] = {"nothing": (0.0, 0.0)}


def trims(share: float) -> dict[str, tuple[Trim, Trim]]:
    """``training.trim`` and ``threshold.trim`` of each way to deal with a ``share`` of defective images."""
    told: dict[str, tuple[Trim, Trim]] = {
        "training, as many as there are": (share, 0.0),
        "both, as many as there are": (share, share),
    }
    return {
        **UNTRIMMED,
        **(told if share else {}),
        "threshold, auto": (0.0, "auto"),
        "both, auto": ("auto", "auto"),
    }


def contaminated(
    trial: Trial, seed: int, share: float, name: str, threshold_trim: Trim, rate: float
) -> dict[str, Any]:
    """A row of :func:`contamination`; leaving out calibration scores afterwards is what ``threshold.trim`` does."""
    out = trimmed(trial.calibration_scores, threshold_trim)
    stay = [number for number in range(len(trial.calibration_scores)) if number not in out]
    left = trial.model_copy(
        update={
            "calibration_scores": tuple(trial.calibration_scores[number] for number in stay),
            "calibration_peaks": tuple(trial.calibration_peaks[number] for number in stay),
        }
    )
    return {
        "seed": seed,
        "share": share,
        "trimmed": name,
        "left_out": len(out),
        "auroc": trial.auroc(),
        "pixel_auroc": trial.pixel_auroc,
        "aupro_30": trial.aupro_30,
        **realised(left, rate),
        "fit_seconds": trial.fit_seconds,
    }


# -- promised and realised rates -----------------------------------------------------------------------


def rates(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Promised against realised false-reject rates, over random splits of good images that no fit has seen.

    A fit is given half of the good training images. Those of them that calibrate, and the other half, are alike:
    they are split at random, many times, into some to calibrate on and others to count. Their mean must be what was
    promised, so it checks the arithmetic, and the spread shows what one calibration set is worth. On the good test
    images the same thresholds are counted, though nothing says that those are like the training folder's.
    """
    rows = []
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(bench.train))
        half = len(order) // 2
        train, unseen = ([bench.train[number] for number in part] for part in (order[:half], order[half:]))
        settings = [f"threshold.false_reject_rate={max(options.rates)}"]
        trial = bench.trial("half", train, [*bench.tests, *unseen], seed, settings)
        for kind, calibration, fresh, test in (
            ("images", trial.calibration_scores, trial.scores(UNSEEN), trial.scores("good")),
            ("regions", trial.calibration_peaks, trial.peaks(UNSEEN), trial.peaks("good")),
        ):
            pool = np.concatenate([calibration, fresh])
            for rate in options.rates:
                rng = np.random.default_rng(seed)
                splits = [rng.permutation(pool) for _ in range(options.splits)]
                n = options.calibration
                promise = Guarantee(n=n, false_reject_rate=rate)
                inside = np.array([above(mixed[n:], mixed[:n], rate) for mixed in splits], float)
                beyond = np.array([above(test, mixed[:n], rate) for mixed in splits], float)
                low, high = promise.interval(len(pool) - n, 0.9)
                rows.append(
                    {
                        "kind": kind,
                        "rate": rate,
                        "seed": seed,
                        "promised": promise.bound,
                        "promised_90": [low, high],
                        "realised": inside.mean(),
                        "realised_90": np.quantile(inside, [0.05, 0.95]).tolist(),
                        "in_promised_90": np.mean((low <= inside) & (inside <= high)),
                        "realised_test": beyond.mean(),
                        "realised_test_90": np.quantile(beyond, [0.05, 0.95]).tolist(),
                    }
                )
    kinds = {"images": "images rejected", "regions": "images with regions"}
    text = table(
        [
            "good",
            "asked for",
            "promised",
            "training folder",
            "90 % of splits",
            "promised for 90 %",
            "test/good",
        ],
        [
            [
                kinds[kind],
                f"{rate:g}",
                f"{some[0]['promised']:.3f}",
                spread([row["realised"] for row in some]),
                between([row["realised_90"] for row in some]),
                between([row["promised_90"] for row in some]),
                spread([row["realised_test"] for row in some]),
            ]
            for kind, line in grouped(rows, "kind")
            for rate, some in grouped(line, "rate")
        ],
    )
    figure, panels = axes(2)
    most = max(options.rates)
    for axis, (_, line) in zip(panels, grouped(rows, "kind"), strict=True):
        by_rate = grouped(line, "rate")
        promised = [some[0]["promised"] for _, some in by_rate]
        for key, name in (("realised", "training folder, not fitted on"), ("realised_test", "test/good")):
            curve(axis, promised, [[row[key] for row in some] for _, some in by_rate], name)
        low, high = np.mean([[row["realised_90"] for row in some] for _, some in by_rate], axis=1).T
        axis.fill_between(
            promised, low, high, color="grey", alpha=0.2, label="training folder, 90 % of splits"
        )
        axis.plot([0, most], [0, most], "--", color="black", label="as promised")
        axis.set_xlabel("promised")
    finish_axes(panels, [f"good {words}" for words in kinds.values()])
    return {
        "rows": rows,
        "splits": options.splits,
        "calibration": options.calibration,
        "markdown": text,
        "figure": figure,
    }


def between(ranges: Sequence[Sequence[float]]) -> str:
    """The mean of ranges, in words."""
    low, high = np.mean(ranges, axis=0)
    return f"{low:.3f} to {high:.3f}"


# -- what each part brings -----------------------------------------------------------------------------


def ablation(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of variants beside the first of them, and how the choice on synthetic blemishes ranks them all."""
    variants = json.loads(options.variants.read_text(encoding="utf-8")) if options.variants else VARIANTS
    chosen = {name: settings for name, settings in variants.items() if name not in options.leave_out}
    rows = []
    for name, settings in chosen.items():
        for seed in options.seeds:
            trial = bench.trial(name.replace(" ", "-"), bench.train, bench.tests, seed, settings)
            proxy = trial.proxy()
            rows.append(
                {
                    "variant": name,
                    "settings": settings,
                    "seed": seed,
                    "auroc": trial.auroc(),
                    "pixel_auroc": trial.pixel_auroc,
                    "pixel_ap": trial.pixel_ap,
                    "aupro_30": trial.aupro_30,
                    "best_candidate": proxy.model_dump() if proxy else None,
                    "synthetic_auroc": proxy.image_auroc if proxy else None,
                    "synthetic_pixel_ap": proxy.pixel_ap if proxy else None,
                    "fit_seconds": trial.fit_seconds,
                    "test_seconds": trial.test_seconds,
                }
            )
    first = {row["seed"]: row for row in rows if row["variant"] == next(iter(chosen))}
    figures = ("auroc", "pixel_auroc", "aupro_30")
    text = table(
        [
            "variant",
            "AUROC",
            "Δ",
            "pixel AUROC",
            "Δ",
            "AUPRO 30 %",
            "Δ",
            "synthetic AUROC",
            "synthetic pixel AP",
        ],
        [
            [
                name,
                *(
                    cell
                    for key in figures
                    for cell in (
                        spread([row[key] for row in some]),
                        f"{fmean(row[key] - first[row['seed']][key] for row in some):+.3f}",
                    )
                ),
                *(spread([row[key] for row in some]) for key in ("synthetic_auroc", "synthetic_pixel_ap")),
            ]
            for name, some in grouped(rows, "variant")
        ],
    )
    pairs = (
        ("synthetic_auroc", "auroc"),
        ("synthetic_pixel_ap", "pixel_ap"),
        ("synthetic_auroc", "aupro_30"),
    )
    known = [row for row in rows if row["best_candidate"]]
    ranks = {f"{proxy} against {real}": ranked(known, proxy, real) for proxy, real in pairs}
    text += (
        "\nSpearman's rank correlation over the variants and seeds, and over the means of the variants:\n\n"
    )
    text += table(
        ["on synthetic blemishes", "on the test", "all", "means"],
        [
            [
                *(key.removeprefix("synthetic_").replace("_", " ") for key in pair),
                *(f"{value:.2f}" for value in rank.values()),
            ]
            for pair, rank in zip(pairs, ranks.values(), strict=True)
        ],
        left=2,
    )
    figure, panels = axes(2)
    for axis, (proxy, real) in zip(panels, pairs, strict=False):
        for number, (name, some) in enumerate(grouped(known, "variant")):
            marker = "os^Dv<>PX*hp"[number % 12]
            axis.plot(
                [row[proxy] for row in some], [row[real] for row in some], marker, label=name, markersize=5
            )
        rank = ranks[f"{proxy} against {real}"]
        axis.set_title(f"Spearman {rank['all']:.2f}, of means {rank['means']:.2f}", fontsize=10)
    panels[0].set_xlabel("image AUROC on synthetic blemishes")
    panels[1].set_xlabel("pixel AP on synthetic blemishes")
    finish_axes(panels, ["image AUROC on the test", "pixel AP on the test"])
    panels[0].get_legend().remove()
    panels[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return {"rows": rows, "spearman": ranks, "markdown": text, "figure": figure}


def ranked(rows: Sequence[dict[str, Any]], proxy: str, real: str) -> dict[str, float]:
    """Spearman's rank correlation of two figures, over all ``rows`` and over the means of the variants."""
    pairs = [(row[proxy], row[real]) for row in rows]
    means = [
        np.mean([(row[proxy], row[real]) for row in some], axis=0) for _, some in grouped(rows, "variant")
    ]
    return {
        "all": float(spearmanr(*zip(*pairs, strict=True)).statistic),
        "means": float(spearmanr(*zip(*means, strict=True)).statistic),
    }


# -- what each map of one fit is worth ----------------------------------------------------------------

UNITS = 24
"""Calibration images that say how high a map goes on good images."""
DARK = 1e-3
"""Least such height: a head may show nothing at all on good images."""
WHOLE = "network and memory, as fitted"


def parts(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """The maps that one fit can give, alone and added: head, memory, residuals of the reconstruction, flips.

    Sums with anything but the memory give each map the weight that brings nine of ten good images below 1.
    """
    work, runs = fits(bench, options)
    name = work.name
    rows = []
    for run in runs:
        detector = fitted(work, run.recipe, run.seed)
        begun = time.perf_counter()
        held_out = {Path(name).name for name in detector.file.split["calibration"]}
        calibrating = [item for item in bench.train if item.path.name in held_out][:UNITS]
        good = [maps(detector, read_image(item.path)) for item in calibrating]
        units = {
            way: max(float(np.quantile([score_of(detector, one[way]) for one in good], 0.9)), DARK)
            for way in good[0]
        }
        rows += [
            {**row, "seed": run.seed} for row in tested(bench, partial(alone_and_added, detector, units))
        ]
        bench.seconds += run.training_seconds + time.perf_counter() - begun
        print(f"{name}, seed {run.seed}: {time.perf_counter() - begun:.0f} s", flush=True)
    return {"budget": options.budget, "rows": rows, **by_way(rows, "map", WHOLE)}


def alone_and_added(
    detector: Detector, units: dict[str, float], image: LoadedImage
) -> dict[str, tuple[float, NDArray[np.float32]]]:
    """Score and map (H, W) of ``image`` by each of :func:`maps`, and by the head with each of the reconstruction."""
    placed = detector.file.preparation.apply(image)
    alone = maps(detector, image)
    sums = {
        f"head and {way}": alone["head"] / units["head"] + alone[way] / units[way]
        for way in alone
        if way.endswith("reconstruction")
    }
    return {
        way: (score_of(detector, shown), placed.map_back(shown)) for way, shown in {**alone, **sums}.items()
    }


def ensemble(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """What the mean over fits with several seeds is worth, beside each alone: of scores, and of maps for pixels.

    The maps have one scale, so that no weights are needed. Its cost is that of inspecting with every fit.
    """
    work, runs = fits(bench, options)
    begun = time.perf_counter()
    detectors = {f"seed {run.seed}": fitted(work, run.recipe, run.seed) for run in runs}
    together = "mean of all"

    def judged(image: LoadedImage) -> dict[str, tuple[float, NDArray[np.float32]]]:
        measured = {way: detector.measure(image) for way, detector in detectors.items()}
        found = {way: (one.score, one.map) for way, one in measured.items()}
        scores, shown = zip(*found.values(), strict=True)
        return {**found, together: (fmean(scores), np.mean(shown, axis=0))}

    rows = tested(bench, judged)
    bench.seconds += sum(run.training_seconds for run in runs) + time.perf_counter() - begun
    return {"budget": options.budget, "rows": rows, **by_way(rows, "fit", together)}


def tested(
    bench: Bench, judged: Callable[[LoadedImage], dict[str, tuple[float, NDArray[np.float32]]]]
) -> list[dict[str, Any]]:
    """The figures of each way to judge the test images, which gives a score and a map (H, W) of an image."""
    scores: dict[str, list[float]] = {}
    pixels: dict[str, PixelMetrics] = {}
    for item in bench.tests:
        image = read_image(item.path)
        mask = read_mask(item.mask, size=image.size) if item.mask else None
        for way, (score, shown) in judged(image).items():
            scores.setdefault(way, []).append(score)
            if item.is_good or (mask is not None and mask.any()):
                pixels.setdefault(way, PixelMetrics(resamples=0)).update(shown, mask)
    defective = [not item.is_good for item in bench.tests]
    rows = []
    for way, values in scores.items():
        result = pixels[way].result()
        figures = (roc_auc(defective, values), result.auroc, result.aupro_30)
        rows.append({"way": way, **dict(zip(FIGURES, figures, strict=True))})
    return rows


def by_way(rows: Sequence[dict[str, Any]], title: str, highlighted: str) -> dict[str, Any]:
    """Table and bars of ``rows`` by their way, over seeds where a way has several rows."""
    ways = grouped(rows, "way")
    text = table(
        [title, "image AUROC", "pixel AUROC", "AUPRO 30 %"],
        [[way, *(spread([row[key] for row in some]) for key in FIGURES)] for way, some in ways],
    )
    figure, panels = axes(2)
    for axis, (key, label) in zip(
        panels, (("image_auroc", "image AUROC"), ("aupro_30", "AUPRO 30 %")), strict=True
    ):
        for place, (way, some) in enumerate(reversed(ways)):
            values = [row[key] for row in some]
            axis.barh(place, fmean(values), color="tab:blue" if way == highlighted else "tab:cyan")
            axis.plot([min(values), max(values)], [place, place], color="black", linewidth=1.5)
        axis.set_yticks(range(len(ways)), [way for way, _ in reversed(ways)])
        axis.set_xlim(0, 1)
        axis.set_xlabel(label)
    figure.set_figwidth(13)
    return {"markdown": text, "figure": figure}


def fits(bench: Bench, options: argparse.Namespace) -> tuple[Path, tuple[Run, ...]]:
    """Where the fits of ``options.recipe`` on the whole of ``bench`` lie that the table has too, and what they are."""
    settings = [*options.set, *([f"training.budget={options.budget}"] if options.budget else [])]
    work = options.work / "table" / bench.dataset.resolve().stem
    return work, comparison(work, bench.dataset, [options.recipe], options.seeds, settings, Observer()).runs


def maps(detector: Detector, image: LoadedImage) -> dict[str, NDArray[np.float32]]:
    """Every map that the network and the memory of ``detector`` can give of a prepared image, (h, w) each."""
    x = detector.file.preparation.apply(image).pixels
    network = detector.model.models[0] if isinstance(detector.model, Ensemble) else detector.model
    head, reconstruction, *_ = network.maps(x)
    both = [torch.from_numpy(one)[None] for one in (x, reconstruction.clip(0, 1))]
    flipped = [
        np.flip(network.maps(np.ascontiguousarray(np.flip(x, axis))).anomaly, axis - 1) for axis in (1, 2)
    ]
    found = {
        "head": head,
        "head, flipped both ways": np.mean([head, *flipped], axis=0),
        "SSIM of the reconstruction": 1 - ssim_map(*both, data_range=1.0).mean(1)[0].numpy(),
        "MSGMS of the reconstruction": 1 - msgms_map(*both, data_range=1.0).mean((0, 1)).numpy(),
    }
    if isinstance(detector.model, Ensemble) and not detector.model.banks[1].is_empty:
        ensemble = detector.model
        beyond = ensemble.normalised(0, torch.from_numpy(head))
        scales = ensemble.scales.tolist()
        alone = combined([beyond, None], ensemble.is_compressed, scales, [1.0, 0.0])
        found["head, as it counts beside the memory"] = alone.detach().numpy()
        found["memory"] = ensemble.models[1].maps(x).anomaly
        found[WHOLE] = detector.examine(x)[0]
    return found


def score_of(detector: Detector, shown: NDArray[np.float32]) -> float:
    rule = detector.recipe.score
    return image_score(shown, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)


# -- what all tasks share ------------------------------------------------------------------------------


def grouped(rows: Iterable[dict[str, Any]], key: str) -> list[tuple[Any, list[dict[str, Any]]]]:
    """``rows`` by their value of ``key``, in the order of the first of each."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return list(found.items())


def axes(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2 * count, 3.8), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def curve(
    axis: Axes, x: Sequence[float], values: Sequence[Sequence[float]], name: str, colour: str | None = None
) -> None:
    """The mean of ``values`` at each of ``x``, with their range."""
    means = [fmean(some) for some in values]
    (line,) = axis.plot(x, means, marker="o", markersize=4, color=colour, label=name)
    low, high = [min(some) for some in values], [max(some) for some in values]
    axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def finish_axes(all_axes: Sequence[Axes], labels: Sequence[str]) -> None:
    for axis, label in zip(all_axes, labels, strict=True):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)


def drawn(dataset: Path, work: Path) -> Path:
    """``dataset``, or the folder of a generated one where it only names a family."""
    if dataset.exists() or str(dataset) not in FAMILIES:
        return dataset
    return generated(
        work, str(dataset), good=120, test_good=40, per_blemish=12, size=256, observer=Observer()
    )


def command(options: argparse.Namespace) -> str:
    """The line that repeats this, but for where data sets, work and results lie."""
    words: list[str] = ["python", "benchmarks/detection.py"]
    given = iter(sys.argv[1:])
    folders = {str(path) for path in options.datasets}
    for word in given:
        if word in ("--work", "--out"):
            next(given)
        elif not word.startswith(("--work=", "--out=")):
            words.append(Path(word).resolve().name if str(Path(word)) in folders else word)
    return shlex.join(words)


def stem_of(options: argparse.Namespace) -> str:
    """The name of what is written, without its ending."""
    names = [dataset.resolve().stem for dataset in options.datasets]
    return "-".join(["detection", options.task, *names, *filter(None, [getattr(options, "budget", None)])])


CURVES: dict[str, Callable[[Bench, argparse.Namespace], dict[str, Any]]] = {
    "ablation": ablation,
    "contamination": contamination,
    "ensemble": ensemble,
    "few": few,
    "parts": parts,
    "rates": rates,
}


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(word) for word in text.split(",")]


def recipes_listed(text: str) -> list[str]:
    if text != "papers":
        return text.split(",")
    return [name for name in recipe_names() if not load_recipe(name).paper.startswith(NOT_OF_IMAGES)]


def main() -> None:
    options = parsed()
    datasets = [drawn(dataset, options.work) for dataset in options.datasets]
    benches = [Bench(options, dataset) for dataset in datasets]
    keep_poses(options.work)
    if options.task == "table":
        # One that grows is written after each recipe, so that a stop costs nothing that is done.
        for recipes in [[recipe] for recipe in options.recipes] if options.keep else [options.recipes]:
            write(beside_others(benches, recipes, options), beside_others.__doc__, benches, options)
    else:
        task = CURVES[options.task]
        write(task(benches[0], options), task.__doc__, benches, options)


def write(
    found: dict[str, Any], asked: str | None, benches: Sequence[Bench], options: argparse.Namespace
) -> None:
    """JSON, Markdown and plot of what was ``found`` when it was ``asked``."""
    names = [bench.dataset.resolve().stem for bench in benches]
    stem = stem_of(options)
    text, figure = found.pop("markdown"), found.pop("figure")
    document = {
        "command": command(options),
        "datasets": names,
        "seeds": options.seeds,
        "settings": benches[0].settings,
        "machine": str(choose_machine()),
        "versions": versions(),
        "seconds": round(sum(bench.seconds for bench in benches)),
        **found,
    }
    write_json(options.out / f"{stem}.json", document)
    words = " ".join(str(asked).split())
    how = f"Means of {len(options.seeds)} seeds, with their range." if len(options.seeds) > 1 else "One seed."
    if getattr(options, "keep", False):
        how = "Means over the seeds of each row, with their range."
    text = f"# {options.task}: {', '.join(names)}\n\n{words} {how}\n\n    {document['command']}\n\n{text}"
    write_text(options.out / f"{stem}.md", text)
    with atomic_path(options.out / f"{stem}.png") as path:
        figure.savefig(path, dpi=90, format="png")
    print(text)


def parsed() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seeds", type=listed(int), default=[0, 1, 2])
    common.add_argument("--set", action="append", default=[], help="setting of every fit")
    common.add_argument("--work", type=Path, default=Path("runs/detection"), help="keeps fits")
    common.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    single = argparse.ArgumentParser(add_help=False, parents=[common])
    single.add_argument("datasets", metavar="dataset", type=Path, nargs=1, help="folder in the MVTec layout")
    single.add_argument("--recipe", default="blemish")
    single.add_argument("--fast", action="store_true", help=f"first of all, {' '.join(FAST)}")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    task = tasks.add_parser("table", parents=[common], help="beside other methods")
    task.add_argument("datasets", type=Path, nargs="+", help="folders in the MVTec layout")
    task.add_argument(
        "--recipes", type=recipes_listed, default=["blemish"], help="names; papers for all of the papers'"
    )
    task.add_argument("--budget", help="of every training, such as 5m, instead of the recipes' lengths")
    task.add_argument("--keep", action="store_true", help="what this table had of other recipes and seeds")
    task.set_defaults(recipe="blemish", fast=False)
    task = tasks.add_parser("ablation", parents=[single], help="what each part brings")
    task.add_argument(
        "--variants", type=Path, help="JSON, a list of settings by name; the first is compared with"
    )
    task.add_argument("--leave-out", type=listed(str), default=[], help="variants")
    for name, asked in (("parts", "what each map of one fit is worth"), ("ensemble", "the mean over seeds")):
        task = tasks.add_parser(name, parents=[common], help=asked)
        task.add_argument(
            "datasets", metavar="dataset", type=Path, nargs=1, help="as above, or a generated family"
        )
        task.add_argument("--budget", help="of every training, such as 2m, instead of the recipe's length")
        task.set_defaults(recipe="blemish", fast=False)
    task = tasks.add_parser("contamination", parents=[single], help="against defective training images")
    task.add_argument("--shares", type=listed(float), default=[0.0, 0.05, 0.1], help="of the training images")
    task.add_argument("--trim", action="store_true", help="also with training.trim and threshold.trim")
    task.add_argument("--rate", type=float, default=RATE, help="of false rejects that is asked for")
    task = tasks.add_parser("rates", parents=[single], help="promised and realised false-reject rates")
    task.add_argument("--rates", type=listed(float), default=[0.01, 0.05, 0.1, 0.2])
    task.add_argument("--splits", type=int, default=1000)
    task.add_argument("--calibration", type=int, default=100, help="images that calibrate in each split")
    task = tasks.add_parser("few", parents=[single], help="against the number of good images")
    task.add_argument("--counts", type=listed(int), default=[5, 10, 20, 40, 80, 160])
    task.add_argument("--unseen", type=int, default=80, help="good training images to keep for the test")
    return parser.parse_args()


if __name__ == "__main__":
    main()
