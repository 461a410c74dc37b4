"""Rádli & Czúni 2022: an autoencoder behind a spatial transformer that normalises orientation, Tables 3 to 9.

Four columns: the plain autoencoder, and with a transformer that is pretrained and frozen, trained jointly from
random weights, or pretrained and fine-tuned. The first part is the paper's: patches of a data set, turned at random, how
well held-out good ones are reconstructed, and how well the residual shows where bad ones are bad. Two more columns ask
what a transformer of rotation alone is worth where patches are moved, scaled and sheared as well, which the paper leaves
to future work. The second part asks the same of one generated cloth that lies at every angle, where it is known what
alignment should do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from blemish.data.datasets import find_images
from blemish.data.maps import write_image
from blemish.errors import Stopped
from blemish.evaluation.compare import fit_once, good_images
from blemish.inspection.detector import Detector
from blemish.layers.affine import AffineRange
from blemish.observer import Observer
from studies.protocol import Allowance, Request, document, finish
from studies.radli2022_cloth import CLOTH_DEFECTS, Floats, draw_cloth
from studies.radli2022_columns import (
    ALL_COLUMNS,
    COLUMNS,
    DEFECTS,
    FULL,
    PAPER,
    PRINTED,
    PUBLISHED,
    QUICK,
    RANKINGS,
    WITHOUT_GPU,
    Part,
    published_category,
    recipe_of,
)
from studies.radli2022_figures import draw
from studies.radli2022_measures import (
    Patches,
    Tests,
    bad_items,
    held_out_items,
    measure,
    measure_baselines,
)
from studies.radli2022_page import claim_counts, page, ranking
from studies.result import StudyResult

MEAN_OF = 200
"""Training images, at most, that the mean patch is computed from."""
UNTRANSFORMED = AffineRange(degrees=0)


def check(data: Path) -> None:
    """Refuse a data set that cannot be measured, before anything is fitted."""
    bad_items(data, DEFECTS.get(data.resolve().name))


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
    rows: int | None = None,
) -> StudyResult:
    """Write ``radli2022[-DATASET][-quick]`` ``.json``, ``.md`` and images to ``out``.

    The cloth is always run. ``settings`` of images, patches and augmentation are of the data set alone, others of both.
    """
    request = Request("radli2022", out, data, quick, seeds, settings, rows)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    chosen = seeds or length.seeds
    allowance = Allowance(rows)
    parts: dict[str, Part] = {}
    if data is not None:
        parts["dataset"] = Part(
            str(request.dataset),
            good_images(data),
            request.work / "dataset",
            (*length.settings, *settings),
            length.pretraining,
            is_transformed=not any(one.startswith("augmentation") for one in settings),
        )
    side = length.cloth_size
    parts["cloth"] = Part(
        "Cloth at every angle",
        _write_cloths(request.work, length.cloth_good, side, observer),
        request.work / "cloth",
        (
            f"patch.size={side}",
            f"patch.stride={side}",
            *length.cloth_settings,
            *(one for one in settings if not one.startswith(("image.", "patch.", "augmentation"))),
        ),
        length.cloth_pretraining,
    )

    found: list[dict[str, Any]] = []
    baselines: list[dict[str, Any]] = []
    facts: dict[str, dict[str, Any]] = {}
    drawn: list[Path] = []
    for name, part in parts.items():
        # The first seed of every column comes first, so that a table that is not whole has all columns.
        detectors = {
            (column, seed): _fitted(part, column, seed, observer)
            for seed in chosen
            for column in part.columns
            if allowance.take(
                f"{part.title}, {column}, seed {seed}",
                is_finished=(part.work / f"{column}-{seed}" / "model.json").is_file(),
            )
        }
        if not detectors:
            continue
        if data is not None and name == "dataset":
            measured: _DatasetTests | _ClothTests = _DatasetTests(part, data)
        else:
            measured = _ClothTests(length.cloth_tests, side)
        observer.stage(f"Measuring {len(detectors)} networks on {part.title}")
        for done, ((column, seed), detector) in enumerate(detectors.items(), start=1):
            if observer.should_stop():
                raise Stopped("stopped while measuring; finished fits are kept")
            figures_of = measure(detector, measured.tests(detector, column))
            found.append({"part": name, "column": column, "seed": seed, **figures_of})
            observer.count(done, len(detectors))
        first = next(iter(detectors))
        tests = measured.tests(detectors[first], "plain")
        facts[name] = {**tests.facts(), **measured.facts}
        training = measured.training(detectors[first])
        baselines += [{"part": name, **row} for row in measure_baselines(tests, training)]
        shown = {column: detectors[column, seed] for column, seed in detectors if seed == first[1]}
        ending = "" if name == "dataset" else "-cloth"
        paper = {column: shown[column] for column in COLUMNS if column in shown}
        drawn += draw(request, ending, paper, detectors, tests)
    category = published_category(request.dataset)
    found.sort(
        key=lambda row: (list(parts).index(row["part"]), row["seed"], list(ALL_COLUMNS).index(row["column"]))
    )
    figures = document(
        request,
        paper=PAPER,
        seeds=chosen,
        length=length._asdict(),
        titles={name: part.title for name, part in parts.items()},
        rows=found,
        baselines=baselines,
        tests=facts,
        claims=[claim_counts(found, name) for name in facts],
        ranking={name: ranking(found, name) for name in facts},
        planned=allowance.planned,
        missing=allowance.missing,
        published={
            "source": "Tables 3 to 9",
            "columns": list(COLUMNS)[:PRINTED],
            "category": category,
            "tables": {name: published._asdict() for name, published in PUBLISHED.items()},
            "rankings": RANKINGS,
        },
    )
    return finish(request, figures, page(request, figures), drawn)


# -- what is measured ----------------------------------------------------------------------------------


class _DatasetTests:
    """Patches of a data set, transformed as those that a column was trained on."""

    def __init__(self, part: Part, data: Path) -> None:
        self._part = part
        self._bad_items = bad_items(data, DEFECTS.get(part.title))
        self._bad: dict[AffineRange, Any] = {}
        self.facts = {
            "good_from": "held-out good images",
            "transformed": part.is_transformed,
        }

    def _patches(self, detector: Detector, column: str) -> Patches:
        transforms = ALL_COLUMNS[column].transforms if self._part.is_transformed else UNTRANSFORMED
        return Patches(detector.file.preprocessing, detector.recipe.patch.size, transforms)

    def tests(self, detector: Detector, column: str) -> Tests:
        patches = self._patches(detector, column)
        if patches.transforms not in self._bad:
            self._bad[patches.transforms] = patches.of(self._bad_items)
        bad, masks = self._bad[patches.transforms]
        good, _ = patches.of(held_out_items(detector, self._part.good))
        return Tests(good, bad, masks, None)

    def training(self, detector: Detector) -> Floats:
        items = {item.name: item for item in find_images(self._part.good)}
        names = list(detector.file.names("train"))[:MEAN_OF]
        return self._patches(detector, "plain").of([items[name] for name in names])[0]


class _ClothTests:
    """Generated cloths, the same ones for every column."""

    def __init__(self, count: int, side: int) -> None:
        self._tests = cloth_tests(count, side)
        self._side = side
        self.facts = {"good_from": "further good cloths", "transformed": False}

    def tests(self, detector: Detector, column: str) -> Tests:
        return self._tests

    def training(self, detector: Detector) -> Floats:
        return cloth_training(self._side)


# -- the cloth -----------------------------------------------------------------------------------------


def _write_cloths(work: Path, count: int, size: int, observer: Observer) -> Path:
    folder = work / f"cloths-{count}-{size}"
    observer.stage("Drawing the cloths")
    for seed in range(count):
        path = folder / f"{seed:04}.png"
        if not path.exists():
            write_image(path, draw_cloth(seed, size).image[None])
    return folder


def cloth_training(size: int) -> Floats:
    """Good cloths (N, 1, size, size), those that networks are fitted on."""
    return np.stack([draw_cloth(seed, size).image[None] for seed in range(MEAN_OF)])


def cloth_tests(count: int, size: int) -> Tests:
    """Good and bad cloths that no training has seen, with the true angles."""
    good = [draw_cloth(10**6 + index, size) for index in range(count)]
    bad = [
        draw_cloth(2 * 10**6 + index, size, defect=CLOTH_DEFECTS[index % len(CLOTH_DEFECTS)])
        for index in range(count)
    ]
    return Tests(
        good=np.stack([one.image[None] for one in good]),
        bad=np.stack([one.image[None] for one in bad]),
        masks=np.stack([one.mask for one in bad]),
        angles=np.array([one.angle for one in good], np.float32),
    )


# -- fits ---------------------------------------------------------------------------------------------


def _fitted(part: Part, column: str, seed: int, observer: Observer) -> Detector:
    return fit_once(
        part.good,
        recipe_of(part, column, seed),
        part.work / f"{column}-{seed}",
        title=f"{part.title}: {ALL_COLUMNS[column].title}, seed {seed}",
        observer=observer,
    )
