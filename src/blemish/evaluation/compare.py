"""Comparison of recipes on the same images, split and seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from blemish.data.datasets import find_images
from blemish.data.layouts import good_folder, read_labelled
from blemish.data.scenes import find_scenes, holds_scenes
from blemish.errors import UsageError
from blemish.evaluation.evaluate import Evaluation, evaluate, items_sha256
from blemish.evaluation.reconstruction_baselines import ReconstructionBaseline, reconstruction_baselines
from blemish.inspection.detector import Detector, load
from blemish.inspection.document import versions
from blemish.inspection.folder import EVALUATION_FILE
from blemish.observer import Observer
from blemish.recipes import Recipe, load_recipe, override
from blemish.report import Prose, Section, SettingsSection, TableSection, write_page
from blemish.storage.atomic import write_json
from blemish.storage.run_lock import owned

if TYPE_CHECKING:
    from blemish.models.contracts import Alignment

COMPARISON_FILE, REPORT_FILE, BASELINES_FILE = "comparison.json", "report.html", "baselines.json"
COLUMNS: dict[str, Callable[[Evaluation], float | None]] = {
    "image AUROC": lambda e: e.image["all"].figures["auroc"].value,
    "defective rejected": lambda e: e.image["all"].figures["bad_rejected"].value,
    "good accepted": lambda e: e.image["all"].figures["good_accepted"].value,
    "pixel AUROC": lambda e: e.pixel.auroc,
    "pixel AP": lambda e: e.pixel.ap,
    "AUPRO 0.3": lambda e: e.pixel.aupro_30,
    "ms an image": lambda e: e.milliseconds_per_image,
}
BASELINE_COLUMNS: tuple[Callable[[ReconstructionBaseline], float | None], ...] = (
    lambda row: row.image_auroc,
    lambda row: None,
    lambda row: None,
    lambda row: row.pixel.auroc,
    lambda row: row.pixel.ap,
    lambda row: row.pixel.aupro_30,
    lambda row: None,
)
"""The figures of ``COLUMNS`` of a reconstruction without learning, which has no threshold and no network."""


class Run(BaseModel):
    """One recipe fitted with one seed."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    seed: int
    training_seconds: float
    training_steps: int
    evaluation: Evaluation


class BaselineRows(BaseModel):
    """Reconstructions without learning, of images that are preprocessed as for ``recipes``."""

    model_config = ConfigDict(frozen=True)

    recipes: tuple[str, ...]
    sha256: str
    """Of everything that the figures depend on."""
    rows: tuple[ReconstructionBaseline, ...]


class Comparison(BaseModel):
    """Comparison of recipes, the content of ``comparison.json``."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    settings: tuple[str, ...]
    runs: tuple[Run, ...]
    versions: dict[str, str]
    baselines: tuple[BaselineRows, ...] = ()
    """One entry for each preprocessing; none in comparisons of earlier versions."""

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of the recipes, each once."""
        return tuple(dict.fromkeys(run.recipe for run in self.runs))

    def rows(self) -> list[list[str | float | None]]:
        """One row a recipe: mean over seeds, with ± the standard deviation where there are several.

        The rows of reconstructions without learning come last.
        """
        rows: list[list[str | float | None]] = []
        for recipe in dict.fromkeys(run.recipe for run in self.runs):
            runs = [run for run in self.runs if run.recipe == recipe]
            figures = [_mean([column(run.evaluation) for run in runs]) for column in COLUMNS.values()]
            rows.append([recipe, len(runs), *figures, _mean([run.training_seconds for run in runs])])
        for of_one in self.baselines:
            where = "" if len(self.baselines) == 1 else f" (images as for {', '.join(of_one.recipes)})"
            for row in of_one.rows:
                figures = [_mean([column(row)]) for column in BASELINE_COLUMNS]
                rows.append([f"{row.name}, {row.residual}{where}", "–", *figures, "–"])
        return rows

    def in_words(self) -> str:
        """The rows as a plain table."""
        head = ["recipe", "seeds", *COLUMNS, "training s"]
        cells = [head, *([str(cell) for cell in row] for row in self.rows())]
        widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        )


def compare(
    dataset: str | Path,
    recipes: Sequence[str] | Mapping[str, Sequence[str]],
    out: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    settings: Sequence[str] = (),
    good_label: str | None = None,
    pages: bool = True,
    baselines: bool = True,
    observer: Observer | None = None,
) -> Comparison:
    """Fit and evaluate every recipe with every seed; what is finished in ``out`` is not done again.

    Parameters
    ----------
    dataset: an MVTec layout, of which only good training images are fitted on; or scenes in ``train``, and scenes with
        masks in ``test`` (:mod:`blemish.evaluation.scenes`).
    recipes: names or ``.yaml`` paths, or a mapping from each to ``key=value`` overrides of its own.
    settings: ``key=value`` overrides for all recipes, after their own.
    good_label: the label that says good, where it is none of the usual words.
    pages: whether records, maps, reports and ``comparison.json`` are written, or only what saves doing a run
        again.
    baselines: whether reconstructions without learning are evaluated too
        (:mod:`blemish.evaluation.reconstruction_baselines`).

    Raises
    ------
    UsageError, RecipeError, FileError
        In one line, before anything is fitted where that can be known.
    """
    with owned(out):
        return _compare(
            Path(dataset),
            recipes,
            Path(out),
            seeds,
            list(settings),
            good_label,
            pages,
            baselines,
            observer or Observer(),
        )


def _compare(
    dataset: Path,
    recipes: Sequence[str] | Mapping[str, Sequence[str]],
    out: Path,
    seeds: Sequence[int],
    settings: list[str],
    good_label: str | None,
    pages: bool,
    baselines: bool,
    observer: Observer,
) -> Comparison:
    from blemish.training.try_recipe import check_recipe

    if not recipes:
        raise UsageError("--recipes is empty; name at least one, such as l2-ae,ssim-ae")
    own = recipes if isinstance(recipes, Mapping) else dict.fromkeys(recipes, ())
    chosen = {name: override(load_recipe(name), [*changes, *settings]) for name, changes in own.items()}
    _refuse_same_name(chosen)
    planned = [
        (name, seed, override(recipe, [f"training.seed={seed}"]))
        for name, recipe in chosen.items()
        for seed in dict.fromkeys(seeds)
    ]
    scenes = _scenes_of(dataset, [*chosen.values()])
    if scenes is None:
        for recipe in chosen.values():
            check_recipe(recipe)
        tests = items_sha256(
            [item for item in read_labelled(dataset, good_label).items if item.split != "train"]
        )
        good = good_images(dataset, good_label)
    else:
        good, tests = scenes[0], ""
    runs = []
    firsts: dict[str, Detector] = {}
    for name, seed, recipe in planned:
        folder = out / f"{recipe.name}-{seed}"
        detector = fit_once(
            good,
            recipe,
            folder / "model",
            title=f"{name}, seed {seed}",
            observer=observer,
            good_label=good_label,
        )
        found = folder / "found"
        if scenes is not None:
            tests = _sha256_of_scenes(scenes[1], detector)
        evaluation = _finished(found / EVALUATION_FILE, detector, tests)
        if evaluation is None:
            evaluation = evaluate(
                detector,
                dataset,
                out=found if pages else None,
                overwrite=pages,
                good_label=good_label,
                observer=observer,
            )
            if not pages:
                write_json(found / EVALUATION_FILE, evaluation.model_dump(mode="json"))
        firsts.setdefault(name, detector)
        training = detector.file.training
        runs.append(
            Run(
                recipe=name,
                seed=seed,
                training_seconds=training.seconds,
                training_steps=training.steps,
                evaluation=evaluation,
            )
        )
    comparison = Comparison(
        dataset=dataset.resolve().name,
        settings=tuple(settings),
        runs=tuple(runs),
        versions=versions(),
        baselines=evaluate_baselines(firsts, good, dataset, out, good_label, observer)
        if baselines and scenes is None
        else (),
    )
    if pages:
        write_json(out / COMPARISON_FILE, comparison.model_dump(mode="json"))
        _write_report(out / REPORT_FILE, comparison)
    return comparison


def _scenes_of(dataset: Path, recipes: Sequence[Recipe]) -> tuple[Path, Path] | None:
    """Folders of the scenes to fit on and to test on; None of a data set of images."""
    from blemish.detectors.factory import is_for_modalities
    from blemish.training.sources import describes_scenes

    if not (dataset / "test").is_dir():
        return None
    train, test = dataset / "train", dataset / "test"
    if describes_scenes(train) or (
        all(map(is_for_modalities, recipes)) and holds_scenes(train) and holds_scenes(test)
    ):
        return train, test
    return None


def _sha256_of_scenes(test: Path, detector: Detector) -> str:
    from blemish.evaluation.scenes import scenes_sha256  # needs the extra [large], which images do without

    return scenes_sha256(find_scenes(test, detector.file.preprocessing.modalities))


def evaluate_baselines(
    detectors: Mapping[str, Detector],
    good: Path,
    dataset: Path,
    work: Path,
    good_label: str | None,
    observer: Observer,
) -> tuple[BaselineRows, ...]:
    """Evaluate reconstructions without learning once for each preprocessing of ``detectors``, by the recipes' names.

    What is finished in ``work`` is not done again. Detectors of scenes have none.
    """
    by_preprocessing: dict[str, dict[str, Detector]] = {}
    for name, detector in detectors.items():
        if detector.file.subject == "images":
            key = detector.file.preprocessing.model_dump_json()
            by_preprocessing.setdefault(key, {})[name] = detector
    kept = _kept_baselines(work / BASELINES_FILE)
    items = {item.name: item for item in find_images(good, good_label)}
    tests = items_sha256([item for item in read_labelled(dataset, good_label).items if item.split != "train"])
    found = []
    for key, some in by_preprocessing.items():
        first = next(iter(some.values()))
        train = [items[name] for name in first.file.names("train")]
        alignments = {name: alignment for name, one in some.items() if (alignment := _alignment(one))}
        facts = [key, tests, [item.name for item in train], first.recipe.score.model_dump(mode="json")]
        facts += [[name, one.file.weights_sha256] for name, one in some.items() if name in alignments]
        sha256 = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        rows = kept.get(sha256) or reconstruction_baselines(
            first.file.preprocessing,
            train,
            dataset,
            score=first.recipe.score,
            alignments=alignments,
            good_label=good_label,
            observer=observer,
        )
        found.append(BaselineRows(recipes=tuple(some), sha256=sha256, rows=rows))
    write_json(work / BASELINES_FILE, [one.model_dump(mode="json") for one in found])
    return tuple(found)


def _kept_baselines(path: Path) -> dict[str, tuple[ReconstructionBaseline, ...]]:
    try:
        kept = [BaselineRows.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    return {one.sha256: one.rows for one in kept}


def _alignment(detector: Detector) -> Alignment | None:
    """The alignment of a network that sees whole images, if it turns any."""
    recipe = detector.recipe
    if recipe.alignment is None or recipe.alignment.settings.get("strategy") == "unaligned":
        return None
    return detector.autoencoder.alignment if recipe.image.size == recipe.patch.size else None


def good_images(dataset: Path, good_label: str | None = None) -> Path:
    """Images of ``dataset`` to fit on: the folder of good ones for training, a CSV list as it is."""
    return good_folder(dataset, good_label) if dataset.is_dir() else dataset


def fit_once(
    good: Path,
    recipe: Recipe,
    model: Path,
    *,
    title: str,
    observer: Observer,
    good_label: str | None = None,
) -> Detector:
    """Fit ``recipe`` into ``model``; a finished fit is loaded, a stopped one is resumed.

    Parameters
    ----------
    good: a folder of good images, or a CSV list.
    title: of the stage that the observer hears before anything is fitted.

    Raises
    ------
    UsageError
        When the finished fit has other settings, or is of other images.
    """
    from blemish.training.fit import fit
    from blemish.training.runs import fitted_once
    from blemish.training.sources import images_sha256

    return fitted_once(
        model,
        recipe,
        title=title,
        observer=observer,
        load=load,
        fit=lambda resume: fit(
            good, recipe, out=model, resume=resume, good_label=good_label, observer=observer
        ),
        sha256=lambda: images_sha256(good, recipe, good_label),
    )


def _refuse_same_name(chosen: Mapping[str, Recipe]) -> None:
    """Refuse two recipes of the same name, because the name is also that of the folder."""
    seen: dict[str, str] = {}
    for given, recipe in chosen.items():
        other = seen.setdefault(recipe.name, given)
        if other != given:
            raise UsageError(f"{other} and {given} both have the name '{recipe.name}'; rename one")


def _finished(path: Path, detector: Detector, tests: str) -> Evaluation | None:
    """The evaluation in ``path``, if it is of this detector and of the present test images."""
    try:
        evaluation = Evaluation.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
    found = (evaluation.threshold, evaluation.training, evaluation.items_sha256)
    return evaluation if found == (detector.threshold, detector.file.training, tests) else None


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    digits = 3 if max(map(abs, known)) <= 1 else 1
    spread = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{fmean(known):.{digits}f}{spread}"


def _write_report(path: Path, comparison: Comparison) -> None:
    sections: list[Section] = [
        Prose(
            "Every recipe was fitted on the same good images with the same split for each seed, and "
            "evaluated on the same test images. Each run's own figures lie in its folder beside this page."
        ),
        TableSection(
            "Recipes",
            ["recipe", "seeds", *COLUMNS, "training s"],
            comparison.rows(),
            "Mean over seeds, ± standard deviation. "
            "Last, reconstructions without learning, each by two residuals: a network whose map is not above them has "
            "shown nothing of what it learned.",
        ),
        TableSection(
            "Runs",
            ["recipe", "seed", *COLUMNS, "training s"],
            [
                [
                    run.recipe,
                    run.seed,
                    *(column(run.evaluation) for column in COLUMNS.values()),
                    run.training_seconds,
                ]
                for run in comparison.runs
            ],
        ),
        SettingsSection(
            "Settings",
            {
                "dataset": comparison.dataset,
                "set": ", ".join(comparison.settings) or "–",
                **comparison.versions,
            },
        ),
    ]
    write_page(
        path,
        title=f"{len(comparison.recipes)} recipes on {comparison.dataset}",
        subtitle="Fitted on good images alone, compared on labelled test images",
        sections=sections,
        footer="Written by Blemish. This file is complete: it opens without a network.",
    )
