"""Add to a result what needs no training, and write its page again.

    python -m studies.supplement studies/results/kumar2025-mvtec_screw.json --data DATA/mvtec_screw
    python -m studies.supplement studies/results/bergmann2018.json
    python -m studies.supplement studies/results/*.json --pages

The first two compute reconstructions without learning, and facts about the test images; ``--pages`` only writes the page
of each study that makes it from its figures alone. The networks' figures stay as they are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blemish.data.datasets import find_images
from blemish.data.layouts import read_labelled
from blemish.errors import BlemishError, UsageError
from blemish.evaluation.compare import good_images
from blemish.inspection.document import versions
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.storage.atomic import write_json, write_text
from studies import bergmann2018_page, kumar2025_page, radli2022_page, xie2019_page
from studies.baselines import baseline_rows, preprocessing_of
from studies.bergmann2018 import FAMILY
from studies.protocol import Request, commit, generated, grey_levels, recipe_of_record
from studies.radli2022 import MEAN_OF, UNTRANSFORMED, cloth_tests, cloth_training
from studies.radli2022_columns import DEFECTS
from studies.radli2022_measures import Patches, Tests, bad_items, measure_baselines
from studies.xie2019 import opened_scenes, tested_patches, training_patches
from studies.xie2019_measures import crossed_baselines
from studies.xie2019_measures import measure_baselines as measure_baselines_of_scenes

APPENDED = ("xie2019",)
"""Studies whose page is not made from their figures alone: the section without a network is written to its end."""
PAGES: dict[str, Callable[[Request, Mapping[str, Any]], str]] = {
    "bergmann2018": bergmann2018_page.page,
    "kumar2025": kumar2025_page.page,
    "radli2022": radli2022_page.page,
}
"""Studies whose page is made from their figures alone."""


def study_of(path: Path) -> str | None:
    """The study of a result by the name of its file; None of another's."""
    name = path.stem.partition("-")[0]
    return name if name in PAGES else None


def _written(path: Path, figures: Mapping[str, Any]) -> str:
    """The page of the result in ``path`` with what was added."""
    if study_of(path) is not None:
        return page_of(path, figures)
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    section = xie2019_page.baselines_section(figures)
    return text.partition(section.partition("\n\n")[0] + "\n")[0].rstrip("\n") + "\n" + section


def page_of(path: Path, figures: Mapping[str, Any]) -> str:
    """The page of the result in ``path``."""
    name = study_of(path)
    if name is None:
        raise UsageError(f"{path}: is no result of {', '.join(PAGES)}; leave it out")
    return PAGES[name](Request.of_result(name, figures, path.parent), figures)


def supplement(path: Path, figures: dict[str, Any], data: Path | None, observer: Observer) -> dict[str, Any]:
    """``figures`` of the result in ``path`` with its baselines and the facts about its test images.

    Raises
    ------
    UsageError
        When the result is of a data set, and ``data`` has not its name.
    """
    name = study_of(path) or path.stem.partition("-")[0]
    dataset = figures["dataset"]
    if dataset != "generated" and (data is None or data.resolve().name != dataset):
        raise UsageError(f"{path}: is of the data set {dataset}; give its folder with --data")
    added: dict[str, Any]
    if name == "kumar2025":
        assert data is not None
        recipe = recipe_of_record(figures["rows"][0], figures["rows"][0]["recipe"])
        added = {"baselines": baseline_rows(data, recipe, observer), "grey_levels": grey_levels(data)}
    elif name == "bergmann2018":
        added = _bergmann(figures, data, observer)
    elif name == "xie2019":
        added = _xie(figures, data, observer)
    else:
        added = _radli(figures, data, observer)
    words = ["python -m studies.supplement", f"studies/results/{path.name}"]
    words += ["--data", dataset] if dataset != "generated" else []
    source = {"command": " ".join(words), "commit": commit(), "versions": versions(), "added": sorted(added)}
    return {**figures, **added, "supplement": source}


def _bergmann(figures: Mapping[str, Any], data: Path | None, observer: Observer) -> dict[str, Any]:
    row, length = figures["rows"][0], figures["length"]
    recipe = recipe_of_record(row, row["recipe"])
    with tempfile.TemporaryDirectory() as work:
        amounts = {key: value for key, value in (length["images"] or {}).items() if key != "family"}
        images = data or generated(Path(work), FAMILY, **amounts, observer=observer)
        added: dict[str, Any] = {"baselines": baseline_rows(images, recipe, observer)}
    if figures["figure_3"] and "figure_3_settings" not in figures:
        settings = [*length["figure 3"], f"training.steps={length['board_steps']}"]
        board = override(load_recipe(bergmann2018_page.FIGURE_3), settings)
        kept = board.model_dump(mode="json", include={"image", "patch", "alignment", "training"})
        added["figure_3_settings"] = [kept]
    return added


def _xie(figures: Mapping[str, Any], data: Path | None, observer: Observer) -> dict[str, Any]:
    if data is None:
        raise UsageError("generated paintings are not kept; run the study itself")
    patch, most = figures["patch"], figures["length"]["patches"]
    readers, modalities, _ = opened_scenes(data, patch, observer)
    tested = tested_patches(data, readers, modalities, patch, most, observer)
    training = training_patches(readers, patch, most)
    return {
        "baselines": measure_baselines_of_scenes(tested, training, modalities),
        "baselines_from_others": crossed_baselines(tested, training, modalities),
    }


def _radli(figures: Mapping[str, Any], data: Path | None, observer: Observer) -> dict[str, Any]:
    """Facts and baselines of a result whose patches lie as they are, with good ones of the test images."""
    facts: dict[str, Any] = {}
    baselines: list[dict[str, Any]] = []
    for part in dict.fromkeys(row["part"] for row in figures["rows"]):
        row = next(row for row in figures["rows"] if row["part"] == part)
        if part == "dataset":
            assert data is not None
            if row["settings"].get("augmentation"):
                raise UsageError("the patches of this result were turned; run the study itself")
            good = good_images(data)
            recipe = recipe_of_record(row, "stn-ae-unaligned")
            patches = Patches(preprocessing_of(good, recipe, observer), recipe.patch.size, UNTRANSFORMED)
            bad, masks = patches.of(bad_items(data, DEFECTS.get(figures["dataset"])))
            held_out = [item for item in read_labelled(data).items if item.split == "test" and item.is_good]
            tests = Tests(patches.of(held_out)[0], bad, masks, None)
            training = patches.of(find_images(good)[:MEAN_OF])[0]
            source = "good test images"
        else:
            length = figures["length"]
            tests = cloth_tests(length["cloth_tests"], length["cloth_size"])
            training = cloth_training(length["cloth_size"])
            source = "further good cloths"
        facts[part] = {**tests.facts(), "good_from": source, "transformed": False}
        baselines += [
            {"part": part, **one} for one in measure_baselines(tests, np.ascontiguousarray(training))
        ]
    rows = figures["rows"]
    ranking = {part: radli2022_page.ranking(rows, part) for part in facts}
    return {"tests": facts, "baselines": baselines, "ranking": ranking}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+", help=".json of studies")
    parser.add_argument("--data", type=Path, help="folder of the data set that a result is of")
    parser.add_argument("--pages", action="store_true", help="write the pages again, and nothing else")
    options = parser.parse_args()
    try:
        for path in options.results:
            if study_of(path) is None and (options.pages or path.stem.partition("-")[0] not in APPENDED):
                continue
            figures = json.loads(path.read_text(encoding="utf-8"))
            if not options.pages:
                figures = supplement(path, figures, options.data, Observer())
                write_json(path, figures)
            write_text(path.with_suffix(".md"), _written(path, figures))
            print(f"Written: {path.with_suffix('.md')}")
    except BlemishError as error:
        raise SystemExit(f"studies: {error}") from None


if __name__ == "__main__":
    main()
