"""Tables and text of Bergmann et al. 2018, from the figures of a result alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from studies.baselines import WARNING
from studies.protocol import (
    PublishedTraining,
    Request,
    beside_paper,
    missing_in_words,
    recipe_of_record,
    rises_in_words,
    spread,
    table,
    training_in_words,
)

TRAINING = PublishedTraining(
    side=128,
    learning_rate=2e-4,
    steps=62_500,
    words="patches of 128 × 128 pixels; 200 epochs of 10,000 patches, which are 62500 steps of batch 32; Adam with "
    "a learning rate of 0.0002",
)
RECIPES = ("l2-ae", "vae", "fm-ae", "ssim-ae")
PUBLISHED = (
    "The paper puts SSIM far ahead of the three other autoencoders (section 3.1.4); the pages that were at hand "
    "give no figures, so none stand beside ours."
)
GABOR_WORDS = "Gabor bank instead of a pretrained CNN"
FIGURE_3 = "l2-ae"  # as in the figure: residuals are compared on one reconstruction
# The text prints c1 = 0.01 and c2 = 0.03; Wang et al. 2004, whom it cites, square them.
PRINTED = "SSIM, printed constants"
RESIDUALS = ("L2", "SSIM", "luminance", "contrast", "structure", PRINTED)
PIXELS = ("auroc", "ap", "aupro_30")
Rows = Sequence[Mapping[str, Any]]


def page(request: Request, figures: Mapping[str, Any]) -> str:
    rows = figures["rows"]
    title = request.dataset or "generated textures (weave)"
    text = f"# Bergmann et al. 2018: four autoencoders on {title}\n\n"
    if figures.get("missing"):
        text += missing_in_words(figures["missing"], figures["planned"])
    if rows:
        text += _textures(request, figures)
    return text + _figure_3(figures)


def _textures(request: Request, figures: Mapping[str, Any]) -> str:
    rows, baselines = figures["rows"], figures.get("baselines", [])
    test = rows[0]["image"]["all"]
    machines = "; ".join(sorted({row["machine"] for row in rows}))
    recipes = [recipe_of_record(row, row["recipe"]) for row in rows]
    text = (
        f"{len({row['seed'] for row in rows})} seed(s): mean (smallest to largest). Tested on {test['good']} good and "
        f"{test['defective']} defective images. Trained on {machines}. {PUBLISHED}\n\n"
        f"{beside_paper(request, recipes, TRAINING)}\n\n"
        f"{rises_in_words([(row['recipe'], row) for row in rows])}"
    )
    lines = []
    for name in RECIPES:
        own = [row for row in rows if row["recipe"] == name]
        if not own:
            continue
        instead = f" ({GABOR_WORDS})" if name == "fm-ae" and figures["features"] == GABOR_WORDS else ""
        residual = own[0]["settings"]["residual"]
        lines.append(
            [
                f"{name}{instead}",
                residual["name"] if residual else "",
                *(spread([row["pixel"][key] for row in own]) for key in PIXELS),
                spread([row["image"]["all"]["figures"]["auroc"]["value"] for row in own]),
                spread([row["training_seconds"] for row in own], 0),
                spread([row["milliseconds_per_image"] for row in own], 0),
            ]
        )
    for one in baselines:
        cells = [*(one["pixel"][key] for key in PIXELS), one["image_auroc"]]
        lines.append([one["name"], one["residual"], *(spread([cell]) for cell in cells), "–", "–"])
    columns = ["recipe", "map", "pixel AUROC", "pixel AP", "AUPRO 0.3", "image AUROC"]
    text += table([*columns, "training s", "ms an image"], lines, left=2)
    text += f"\n{lead(rows)}\n"
    if baselines:
        text += f"\n{WARNING}\n"
    if request.quick:
        text += "\nA short training: squared error learns the detail of a texture later than SSIM does, so part of the lead may be speed.\n"
    return text


def lead(rows: Rows) -> str:
    """Lead of ssim-ae over the best of the others, in words."""
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        if row["pixel"]["auroc"] is not None:
            found.setdefault(row["seed"], {})[row["recipe"]] = row["pixel"]["auroc"]
    whole = [row for row in found.values() if len(row) == len(RECIPES)]
    if not found:
        return "No test image has a mask, so there are no pixel figures."
    if not whole:
        return "No seed has been fitted with all four recipes yet."
    means = {recipe: fmean(row[recipe] for row in whole) for recipe in RECIPES}
    rival = max((recipe for recipe in RECIPES if recipe != "ssim-ae"), key=means.__getitem__)
    ahead = sum(
        row["ssim-ae"] > max(row[recipe] for recipe in RECIPES if recipe != "ssim-ae") for row in whole
    )
    return (
        f"Pixel AUROC of ssim-ae less that of {rival}, the best of the others: "
        f"{means['ssim-ae'] - means[rival]:+.3f}; ssim-ae is ahead of all three in {ahead} of {len(whole)} seed(s)."
    )


def _figure_3(figures: Mapping[str, Any]) -> str:
    measured = figures["figure_3"]
    if not measured:
        return ""
    lines = []
    for residual in RESIDUALS:
        chosen = [row for row in measured if row["residual"] == residual]
        lines.append([residual, *(spread([row[key] for row in chosen]) for key in PIXELS)])
    kept = figures.get("figure_3_settings") or []
    trained = [recipe_of_record({"settings": one}, FIGURE_3) for one in kept]
    words = f" {training_in_words(trained)}" if trained else ""
    return (
        f"\n## Figure 3: residuals on checkerboards\n\nPixel figures of the strokes and dots, on the "
        f"reconstructions of one {FIGURE_3} a seed. The paper shows the maps and gives no figures.{words}\n\n"
    ) + table(["residual", "pixel AUROC", "pixel AP", "AUPRO 0.3"], lines)
