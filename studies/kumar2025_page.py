"""Tables and text of Kumar et al. 2025, from the figures of a result alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blemish.recipes import load_recipe
from studies.baselines import WARNING, not_above
from studies.kumar2025_tables import PUBLISHED, RECIPES, TRAINING
from studies.protocol import (
    Request,
    beside_paper,
    missing_in_words,
    recipe_of_record,
    rises_in_words,
    spread,
    table,
)

TELLING = 0.9
"""Image AUROC of the mean grey level from which the page warns."""
FIGURES = {
    "good accepted": "good_accepted",
    "bad rejected": "bad_rejected",
    "accuracy": "accuracy",
    "F1": "f1",
    "image AUROC": "auroc",
}
PIXELS = {"pixel AUROC": "auroc", "AUPRO 0.3": "aupro_30"}
Rows = Sequence[Mapping[str, Any]]


def page(request: Request, figures: Mapping[str, Any]) -> str:
    """The whole page; of an MVTec root a part for each category, and Tables 1 and 2 over all."""
    title = request.dataset or "generated images (part)"
    text = f"# Kumar et al. 2025: denoising and contractive autoencoders on {title}\n\n"
    if figures.get("missing"):
        text += missing_in_words(figures["missing"], figures["planned"])
    machines = sorted({row["machine"] for row in figures["rows"]})
    recipes = [recipe_of_record(row, row["recipe"]) for row in figures["rows"]]
    if recipes:
        text += f"Trained on {'; '.join(machines)}. {beside_paper(request, recipes, TRAINING)}\n\n"
    if "refitted" in figures:
        again = figures["refitted"]
        text += f"Rows of {' and '.join(again['recipes'])} were fitted again since, by version {again['versions']['blemish']}.\n\n"
    networks = {
        _network(recipe)
        for recipe, start in figures["encoders"].items()
        if start == "scratch" and _network(recipe)
    }
    if networks:
        text += (
            f"No ImageNet weights were on this machine for {' and '.join(sorted(map(str, networks)))}: these encoders were "
            "trained from scratch, where the paper begins with ImageNet.\n\n"
        )
    categories = list(dict.fromkeys(row.get("category", request.dataset) for row in figures["rows"]))
    if len(categories) <= 1:
        return text + _category(figures, figures["rows"], figures["published"]["category"], None)
    text += _whole(figures, categories)
    for category in categories:
        rows = [row for row in figures["rows"] if row["category"] == category]
        text += f"\n## {category}\n\n" + _category(figures, rows, category, category)
    return text


def _network(recipe: str) -> str | None:
    encoder = load_recipe(recipe).encoder
    assert encoder is not None
    return encoder.name if encoder.name in ("vgg16", "resnet50") else None


def _own(found: Sequence[Mapping[str, Any]], category: str | None) -> list[Mapping[str, Any]]:
    return [one for one in found if category is None or one["category"] == category]


def _category(figures: Mapping[str, Any], rows: Rows, published: str | None, category: str | None) -> str:
    """Text and tables of one category, or of the only data set."""
    if not rows:
        return ""
    test = rows[0]["image"]["all"]
    text = (
        f"Mean over seeds (smallest to largest). Tested on {test['good']} good and {test['defective']} "
        f"defective images; rejecting every one would give accuracy "
        f"{test['defective'] / (test['good'] + test['defective']):.2f}. Threshold: mean score of the training images. "
        + (
            "The paper trains on all good images; here a fifth of them is kept for a calibration that this threshold does not "
            "need, and a tenth chooses the best step.\n\n"
            if rows[0]["settings"].get("threshold", {}).get("hold_out", True)
            else "All good images are trained on but a tenth, which chooses the best step.\n\n"
        )
    )
    brightness = figures["brightness_auroc"]
    brightness = brightness[category] if isinstance(brightness, Mapping) else brightness
    text += (
        f"The mean grey level of a test image, without any network, has an image AUROC of {brightness:.2f} in one "
        "direction or the other.\n\n"
    )
    if brightness > TELLING:
        text += (
            "So the good and the defective test images were lit differently, and the error of a whole image, "
            "which feels the light, tells them apart, or confuses them, by that: the image AUROC, and with it the "
            "shares accepted and rejected, say little of defects here.\n\n"
        )
    if figures["dataset"] == "generated":
        text += (
            "Generated defects are small and faint beside what differs between good images, so the mean over "
            "a whole image, the paper's score, tells little of them. They lie on the part, so even a map that "
            "shows no more than the part has a pixel AUROC near 0.9.\n\n"
        )
    text += rises_in_words([(row["recipe"], row) for row in rows])
    baselines = _own(figures.get("baselines", []), category)
    if baselines:
        residuals = {
            recipe: recipe.rsplit("-", 1)[1] for recipe in dict.fromkeys(row["recipe"] for row in rows)
        }
        text += f"{WARNING} {not_above(rows, baselines, residuals)}"
    return (
        text
        + _rows(rows, figures["encoders"], published, baselines)
        + _sensitivity(_own(figures["sensitivity"], category), "##" if category is None else "###")
        + _extensions(
            _own(figures.get("extensions", []), category), rows, "##" if category is None else "###"
        )
    )


def _rows(
    rows: Rows, starts: Mapping[str, str], category: str | None, baselines: Sequence[Mapping[str, Any]]
) -> str:
    columns = ["recipe", "encoder from", "seeds", "steps", "learning rate", *FIGURES, *PIXELS, "training s"]
    if category:
        columns += [f"paper: {name}" for name in ("good accepted", "bad rejected", "accuracy")]
    lines = []
    for recipe, start in starts.items():
        own = [row for row in rows if row["recipe"] == recipe]
        if not own:
            continue
        line = [
            recipe,
            start,
            str(len(own)),
            spread([row["steps"] for row in own], 0),
            f"{own[0]['settings']['training']['learning_rate']:g}",
            *_figures(own),
            spread([row["training_seconds"] for row in own], 0),
        ]
        if category:
            line += [f"{value:.2f}" for value in PUBLISHED[category][recipe]]
        lines.append(line)
    for one in baselines:
        # No threshold, so only the figures that need none.
        line = [f"{one['name']}, {one['residual']}", *["–"] * 4, *["–"] * (len(FIGURES) - 1)]
        line += [
            spread([one["image_auroc"]], 2),
            *(spread([one["pixel"][key]], 2) for key in PIXELS.values()),
        ]
        lines.append([*line, *["–"] * (len(columns) - len(line))])
    note = f"\nPaper: {category}, Tables 1 (dae) and 2 (cae).\n" if category else ""
    return table(columns, lines, left=2) + note


def _figures(rows: Rows) -> list[str]:
    """Cells of the columns ``FIGURES`` and ``PIXELS``."""
    images = [row["image"]["all"]["figures"] for row in rows]
    return [
        *(spread([image[key]["value"] for image in images], 2) for key in FIGURES.values()),
        *(spread([row["pixel"][key] for row in rows], 2) for key in PIXELS.values()),
    ]


def _whole(figures: Mapping[str, Any], categories: Sequence[str]) -> str:
    """Tables 1 and 2: accuracy of every recipe on every category, beside the published one."""
    lines = []
    for recipe in RECIPES:
        cells = []
        for category in categories:
            rows = [row for row in figures["rows"] if (row["recipe"], row["category"]) == (recipe, category)]
            values = [row["image"]["all"]["figures"]["accuracy"]["value"] for row in rows]
            cells += [spread(values, 2), f"{PUBLISHED[category][recipe].accuracy:.2f}"]
        lines.append([recipe, *cells])
    columns = [name for category in categories for name in (category, f"{category}, paper")]
    return "## Tables 1 and 2: overall accuracy\n\n" + table(["recipe", *columns], lines)


def _sensitivity(varied: Sequence[Mapping[str, Any]], heading: str) -> str:
    if not varied:
        return ""
    lines = []
    for row in varied:
        own = " (the recipe's)" if row["usual"] else ""
        lines.append([row["recipe"], f"{row['varied']} = {row['value']:g}{own}", *_figures([row])])
    head = (
        f"\n{heading} What the paper leaves open\n\n"
        f"Each value alone, the rest as above; one seed ({varied[0]['seed']}).\n\n"
    )
    return head + table(["recipe", "changed", *FIGURES, *PIXELS], lines, left=2)


def _extensions(extended: Sequence[Mapping[str, Any]], rows: Rows, heading: str) -> str:
    """What the paper names as future work, each beside the recipe that it extends, and other pretrained encoders."""
    if not extended:
        return ""
    lines = []
    for title in dict.fromkeys(row["extension"] for row in extended):
        own = [row for row in extended if row["extension"] == title]
        base = [row for row in rows if row["recipe"] == own[0]["beside"]]
        pairs = {row["seed"]: row["pixel"]["auroc"] for row in base}
        better = [
            row["pixel"]["auroc"] > pairs[row["seed"]]
            for row in own
            if pairs.get(row["seed"]) is not None and row["pixel"]["auroc"] is not None
        ]
        counts = f"{sum(better)} of {len(better)}" if better else "–"
        lines.append([title, own[0]["beside"], str(len(own)), *_figures(own), counts])
    head = (
        f"\n{heading} Future work of the paper, and another pretrained encoder\n\n"
        "The last column counts the seeds in which the pixel AUROC is above that of the recipe beside it.\n\n"
    )
    return head + table(["extension", "beside", "seeds", *FIGURES, *PIXELS, "above"], lines, left=2)
