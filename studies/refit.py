"""Fit rows of a result again, because their recipe has changed since, and leave the others as they are.

    python -m studies.refit studies/results/kumar2025-mvtec_screw.json --data DATA/mvtec_screw \\
        --recipes cae-resnet50-mse,cae-resnet50-ssim

The settings are those that the result was made with, the seeds those of the rows; the recipes are today's. Fits are kept in
``--work``, so that a stopped run goes on. The result names the recipes, the command and the commit, and a figure shows the
curves of the new fits.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blemish.cli.console import ConsoleObserver
from blemish.errors import BlemishError, UsageError
from blemish.evaluation.compare import Run
from blemish.inspection.document import versions
from blemish.interruption import interruptible
from blemish.observer import Observer
from blemish.storage.atomic import write_json, write_text
from studies.kumar2025 import scratch_settings
from studies.protocol import commit, comparison, draw_curves, histories, record
from studies.supplement import page_of, study_of


def refit(
    path: Path, figures: dict[str, Any], data: Path, recipes: Sequence[str], work: Path, observer: Observer
) -> tuple[dict[str, Any], Path]:
    """``figures`` of the result in ``path`` with new rows of ``recipes``, and the figure of their curves, which is written.

    Raises
    ------
    UsageError
        The result is of another study or data set, or has no row of a recipe.
    """
    if study_of(path) != "kumar2025":
        raise UsageError(f"{path}: rows of kumar2025 alone are fitted again; run the study itself")
    if data.resolve().name != figures["dataset"]:
        raise UsageError(f"{path}: is of the data set {figures['dataset']}; give its folder with --data")
    rows = list(figures["rows"])
    absent = set(recipes) - {row["recipe"] for row in rows}
    if absent:
        raise UsageError(f"{path}: has no row of {', '.join(sorted(absent))}; name others with --recipes")
    length = figures["length"]
    common = [*length["settings"], *figures["settings"]]
    runs: list[Run] = []
    for recipe in recipes:
        own = scratch_settings(recipe, figures["encoders"][recipe], length["encoders"])
        seeds = [row["seed"] for row in rows if row["recipe"] == recipe]
        runs += comparison(work, data, {recipe: own}, seeds, common, observer).runs
    again = {(run.recipe, run.seed): record(run) for run in runs}
    rows = [{**row, **again.get((row["recipe"], row["seed"]), {})} for row in rows]
    words = ["python", "-m", "studies.refit", f"studies/results/{path.name}", "--data", figures["dataset"]]
    words += ["--recipes", ",".join(recipes)]
    source = {
        "command": shlex.join(words),
        "commit": commit(),
        "versions": versions(),
        "recipes": list(recipes),
    }
    curves = draw_curves(path.with_name(f"{path.stem}-refitted-curves.png"), histories(runs))
    return {**figures, "rows": rows, "refitted": source}, curves


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, help=".json of a study")
    parser.add_argument("--data", type=Path, required=True, help="folder of its data set")
    parser.add_argument("--recipes", required=True, help="names, separated by commas")
    parser.add_argument("--work", type=Path, default=Path("runs/refit"), help="keeps fits")
    options = parser.parse_args()
    try:
        figures = json.loads(options.result.read_text(encoding="utf-8"))
        with interruptible() as pressed, ConsoleObserver(pressed, quiet=False) as observer:
            figures, curves = refit(
                options.result, figures, options.data, options.recipes.split(","), options.work, observer
            )
        write_json(options.result, figures)
        write_text(options.result.with_suffix(".md"), page_of(options.result, figures))
        print(f"Written: {options.result}, {options.result.with_suffix('.md')}, {curves}")
    except (OSError, ValueError) as error:
        raise SystemExit(f"studies: {options.result}: {error}") from None
    except BlemishError as error:
        raise SystemExit(f"studies: {error}") from None


if __name__ == "__main__":
    main()
