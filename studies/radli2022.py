"""Rádli & Czúni 2022: an autoencoder behind a spatial transformer that normalises orientation, Tables 3 to 8.

Four columns: the plain autoencoder, and with a transformer that is pretrained and frozen, trained jointly from
random weights, or pretrained and fine-tuned. The first part is the paper's: patches of a data set, how well good
ones are reconstructed, and how well the residual shows where bad ones are bad. The second part asks the same of
one generated cloth that lies at every angle, where it is known what alignment should do.

Unlike the paper, which also turns its training patches at random, ours are only cropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from blemish.data.maps import write_image
from blemish.errors import Stopped
from blemish.evaluation.compare import fit_once, good_images
from blemish.inspection.detector import Detector
from blemish.observer import Observer
from studies.protocol import (
    Request,
    document,
    finish,
)
from studies.radli2022_cloth import CLOTH_DEFECTS, draw_cloth
from studies.radli2022_columns import (
    COLUMNS,
    DEFECTS,
    FULL,
    PAPER,
    PRINTED,
    PUBLISHED,
    QUICK,
    WITHOUT_GPU,
    Part,
    published_category,
    recipe_of,
)
from studies.radli2022_figures import draw
from studies.radli2022_measures import Tests, dataset_tests, measure
from studies.radli2022_page import claim_counts, page
from studies.result import StudyResult


def run(
    out: Path,
    *,
    data: Path | None,
    quick: bool,
    seeds: tuple[int, ...] | None,
    settings: tuple[str, ...],
    observer: Observer,
) -> StudyResult:
    """Write ``radli2022[-DATASET][-quick]`` ``.json``, ``.md`` and images to ``out``.

    The cloth is always run. ``settings`` of images and patches are of the data set alone, others of both.
    """
    request = Request("radli2022", out, data, quick, seeds, settings)
    length = request.length(QUICK, FULL, WITHOUT_GPU)
    chosen = seeds or length.seeds
    parts: dict[str, Part] = {}
    if data is not None:
        parts["dataset"] = Part(
            str(request.dataset),
            good_images(data),
            request.work / "dataset",
            (*length.settings, *settings),
            length.pretraining,
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
            *(one for one in settings if not one.startswith(("image.", "patch."))),
        ),
        length.cloth_pretraining,
    )

    rows: list[dict[str, Any]] = []
    drawn: list[Path] = []
    tested: dict[str, tuple[Part, Tests]] = {}
    for name, part in parts.items():
        detectors = {
            (column, seed): _fitted(part, column, seed, observer) for seed in chosen for column in COLUMNS
        }
        if data is not None and name == "dataset":
            tests = dataset_tests(detectors["plain", chosen[0]], data, DEFECTS.get(part.title))
        else:
            tests = _cloth_tests(length.cloth_tests, side)
        tested[name] = (part, tests)
        observer.stage(f"Measuring {len(detectors)} networks on {part.title}")
        for done, ((column, seed), detector) in enumerate(detectors.items(), start=1):
            if observer.should_stop():
                raise Stopped("stopped while measuring; finished fits are kept")
            rows.append({"part": name, "column": column, "seed": seed, **measure(detector, tests)})
            observer.count(done, len(detectors))
        shown = {column: detectors[column, chosen[0]] for column in COLUMNS}
        ending = "" if name == "dataset" else "-cloth"
        drawn += draw(request, ending, shown, detectors, tests)
    category = published_category(request.dataset)
    figures = document(
        request,
        paper=PAPER,
        seeds=chosen,
        length=length._asdict(),
        rows=rows,
        claims=[claim_counts(rows, name) for name in parts],
        published={
            "source": "Tables 3 to 8",
            "columns": list(COLUMNS)[:PRINTED],
            "category": category,
            "tables": {name: published._asdict() for name, published in PUBLISHED.items()},
        },
    )
    return finish(request, figures, page(request, rows, tested, chosen, category), drawn)


# -- the cloth -----------------------------------------------------------------------------------------


def _write_cloths(work: Path, count: int, size: int, observer: Observer) -> Path:
    folder = work / f"cloths-{count}-{size}"
    observer.stage("Drawing the cloths")
    for seed in range(count):
        path = folder / f"{seed:04}.png"
        if not path.exists():
            write_image(path, draw_cloth(seed, size).image[None])
    return folder


def _cloth_tests(count: int, size: int) -> Tests:
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
        title=f"{part.title}: {COLUMNS[column].title}, seed {seed}",
        observer=observer,
    )
