"""Comparison of recipes on the same images, split and seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from pydantic import BaseModel, ConfigDict

from blemish.data.layouts import good_folder, read_labelled
from blemish.errors import UsageError
from blemish.evaluation.evaluate import Evaluation, evaluate, items_sha256
from blemish.inspection.detector import Detector, load
from blemish.inspection.document import versions
from blemish.inspection.folder import EVALUATION_FILE
from blemish.observer import Observer
from blemish.recipes import Recipe, load_recipe, override
from blemish.report import Prose, Section, SettingsSection, TableSection, write_page
from blemish.storage.atomic import write_json
from blemish.storage.run_lock import owned

COMPARISON_FILE, REPORT_FILE = "comparison.json", "report.html"
COLUMNS: dict[str, Callable[[Evaluation], float | None]] = {
    "image AUROC": lambda e: e.image["all"].figures["auroc"].value,
    "defective rejected": lambda e: e.image["all"].figures["bad_rejected"].value,
    "good accepted": lambda e: e.image["all"].figures["good_accepted"].value,
    "pixel AUROC": lambda e: e.pixel.auroc,
    "pixel AP": lambda e: e.pixel.ap,
    "AUPRO 0.3": lambda e: e.pixel.aupro_30,
    "ms an image": lambda e: e.milliseconds_per_image,
}


class Run(BaseModel):
    """One recipe fitted with one seed."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    seed: int
    training_seconds: float
    training_steps: int
    evaluation: Evaluation


class Comparison(BaseModel):
    """Comparison of recipes, the content of ``comparison.json``."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    settings: tuple[str, ...]
    runs: tuple[Run, ...]
    versions: dict[str, str]

    def rows(self) -> list[list[str | float | None]]:
        """One row a recipe: mean over seeds, with ± the standard deviation where there are several."""
        rows: list[list[str | float | None]] = []
        for recipe in dict.fromkeys(run.recipe for run in self.runs):
            runs = [run for run in self.runs if run.recipe == recipe]
            figures = [_mean([column(run.evaluation) for run in runs]) for column in COLUMNS.values()]
            rows.append([recipe, len(runs), *figures, _mean([run.training_seconds for run in runs])])
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
    observer: Observer | None = None,
) -> Comparison:
    """Fit and evaluate every recipe with every seed; what is finished in ``out`` is not done again.

    Parameters
    ----------
    dataset: an MVTec layout; only its good training images are fitted on.
    recipes: names or ``.yaml`` paths, or a mapping from each to ``key=value`` overrides of its own.
    settings: ``key=value`` overrides for all recipes, after their own.
    good_label: the label that says good, where it is none of the usual words.
    pages: whether records, maps, reports and ``comparison.json`` are written, or only what saves doing a run
        again.

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
    for recipe in chosen.values():
        check_recipe(recipe)
    tests = items_sha256([item for item in read_labelled(dataset, good_label).items if item.split != "train"])
    good = good_images(dataset, good_label)
    runs = []
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
        dataset=dataset.resolve().name, settings=tuple(settings), runs=tuple(runs), versions=versions()
    )
    if pages:
        write_json(out / COMPARISON_FILE, comparison.model_dump(mode="json"))
        _write_report(out / REPORT_FILE, comparison)
    return comparison


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
            "Mean over seeds, ± standard deviation.",
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
        title=f"{len(comparison.rows())} recipes on {comparison.dataset}",
        subtitle="Fitted on good images alone, compared on labelled test images",
        sections=sections,
        footer="Written by Blemish. This file is complete: it opens without a network.",
    )
