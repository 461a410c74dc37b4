"""Tables and text of Rádli & Czúni 2022, from the figures of a result alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blemish.recipes import Recipe
from studies.protocol import (
    Request,
    beside_paper,
    missing_in_words,
    recipe_of_record,
    rises_in_words,
    spread,
    table,
    training_in_words,
)
from studies.radli2022_columns import (
    ALL_COLUMNS,
    COLUMNS,
    CURVES,
    PRINTED,
    PUBLISHED,
    RANKINGS,
    RESIDUALS,
    TRAINING,
    Published,
)

TITLES = {"cloth": "Cloth at every angle"}
READINGS = {"areas": "all bad patches", "areas_defective": "only patches with a defect pixel"}
"""What the paper's "bad" patches may be; it does not say."""
Rows = Sequence[Mapping[str, Any]]


def _values(rows: Rows, part: str, column: str, *keys: str) -> list[float]:
    """One figure of every seed; those of results that lack it are left out."""
    found = []
    for row in rows:
        if (row["part"], row["column"]) == (part, column):
            value: Any = row
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                found.append(value)
    return found


def _columns(rows: Rows, part: str) -> list[str]:
    there = {row["column"] for row in rows if row["part"] == part}
    return [column for column in ALL_COLUMNS if column in there]


def claim_counts(rows: Rows, part: str) -> dict[str, Any]:
    """Seeds of all in which a column has the higher SSIM, and the higher pixel AUROC, than the plain AE."""
    plain = "plain"
    keys = {"SSIM": ("ssim",)} | {f"AUROC of {name}": ("areas", name, "auroc") for name in RESIDUALS}
    seeds = [row["seed"] for row in rows if (row["part"], row["column"]) == (part, plain)]

    def better(column: str, key: tuple[str, ...]) -> int:
        theirs = dict(zip(seeds, _values(rows, part, plain, *key), strict=True))
        own = [row["seed"] for row in rows if (row["part"], row["column"]) == (part, column)]
        ours = zip(own, _values(rows, part, column, *key), strict=True)
        return sum(value > theirs[seed] for seed, value in ours if seed in theirs)

    return {
        "part": part,
        "seeds": len(seeds),
        "better_than_plain": {
            column: {name: better(column, key) for name, key in keys.items()}
            for column in _columns(rows, part)
            if column != plain and column in COLUMNS
        },
    }


def _figures() -> dict[str, tuple[tuple[str, ...], bool]]:
    """Keys of every figure that columns are compared by, and whether more is better."""
    areas = {
        f"{curve} of {residual} map": (("areas", residual, key), True)
        for residual in RESIDUALS
        for key, curve in CURVES.items()
    }
    return {"MSE": (("mse",), False), "SSIM": (("ssim",), True), **areas}


def separated(rows: Rows, part: str) -> dict[str, dict[str, list[str]]]:
    """Figures in which a column is better, or worse, than the plain AE with every pair of seeds, by column."""
    found: dict[str, dict[str, list[str]]] = {}
    for column in _columns(rows, part):
        if column == "plain" or column not in COLUMNS:
            continue
        found[column] = {"better": [], "worse": []}
        for name, (keys, more_is_better) in _figures().items():
            ours, theirs = _values(rows, part, column, *keys), _values(rows, part, "plain", *keys)
            if not ours or not theirs:
                continue
            if min(ours) > max(theirs):
                found[column]["better" if more_is_better else "worse"].append(name)
            elif max(ours) < min(theirs):
                found[column]["worse" if more_is_better else "better"].append(name)
    return found


def ranking(rows: Rows, part: str) -> list[list[int]]:
    """Table 9: for each of the places first to fourth, how often each of the first columns has it among the six areas.

    Columns of equal mean share the better place.
    """
    columns = list(COLUMNS)[:PRINTED]
    places = [[0] * PRINTED for _ in columns]
    for residual in RESIDUALS:
        for key in CURVES:
            means = []
            for column in columns:
                values = _values(rows, part, column, "areas", residual, key)
                means.append(sum(values) / len(values) if values else float("-inf"))
            for number, mean in enumerate(means):
                places[sum(other > mean for other in means)][number] += 1
    return places


def page(request: Request, figures: Mapping[str, Any]) -> str:
    rows = figures["rows"]
    seeds = sorted({row["seed"] for row in rows})
    is_transformed = any(facts.get("transformed") for facts in figures.get("tests", {}).values())
    blocks = [
        "# Rádli & Czúni 2022: orientation normalised before the autoencoder\n",
        *(
            [missing_in_words(figures["missing"], figures["planned"]).rstrip() + "\n"]
            if figures.get("missing")
            else []
        ),
        f"Mean over {len(seeds)} seed{'s' * (len(seeds) > 1)}"
        + (" (smallest to largest). " if len(seeds) > 1 else ". ")
        + "MSE is of 0 to 255, over held-out good patches, as is SSIM; ROC, PRC and IoU are areas under the "
        "curves of the pixels of bad patches, IoU over thresholds as shares of the largest residual. All is "
        "measured on the image itself, without the canvas around it. Spread is the circular standard "
        "deviation of the pose after alignment, up to half turns, against "
        "the angle of least gradient loss, or the true angle where it is known. "
        + (
            "As in the paper, training, held-out and test patches of the data set are turned at random, cut from "
            "larger windows and the masks with them.\n"
            if is_transformed
            else "The paper also turns its training patches at random; here they are only cropped.\n"
        ),
    ]
    for part in dict.fromkeys(row["part"] for row in rows):
        blocks += _part(request, figures, part)
    return "\n".join(blocks) + "\n"


def _part(request: Request, figures: Mapping[str, Any], part: str) -> list[str]:
    rows = figures["rows"]
    category = figures["published"]["category"] if part == "dataset" else None
    own = [row for row in rows if row["part"] == part]
    title = figures.get("titles", {}).get(part) or TITLES.get(part, str(request.dataset))
    columns = _columns(rows, part)
    recipes: list[Recipe] = [recipe_of_record(row, ALL_COLUMNS[row["column"]].recipe) for row in own]
    training = (
        beside_paper(request, recipes, TRAINING)
        if part == "dataset"
        else f"Not in the paper. {training_in_words(recipes)}"
    )
    blocks = [f"## {title}\n"]
    facts = figures.get("tests", {}).get(part)
    if facts:
        blocks.append(
            f"{facts['good']} good patches ({facts['good_from']}) and {facts['bad']} bad patches of {facts['side']} pixels; "
            f"{own[0]['machine']}.\n"
        )
    blocks.append(f"{training}\n")
    if facts and facts["empty"]:
        blocks.append(
            f"{facts['empty']} of the {facts['bad']} bad patches hold no defect pixel, and defect pixels are "
            f"{100 * facts['defect_share']:.2f} % of all: PRC and IoU depend on this share. The paper does not say which "
            "patches of its bad images it tested, so its areas may be of another share"
            + ("; both readings are below.\n" if "areas_defective" in own[0] else ".\n")
        )
    published = PUBLISHED[category] if category else None
    blocks += [
        *(
            [rises.rstrip() + "\n"]
            if (rises := rises_in_words([(ALL_COLUMNS[row["column"]].title, row) for row in own]))
            else []
        ),
        table(
            ["", *(ALL_COLUMNS[column].title for column in columns)], _lines(rows, part, columns, published)
        ),
    ]
    claim = claim_counts(rows, part)
    for column, better in claim["better_than_plain"].items():
        counts = ", ".join(f"{figure} {count}" for figure, count in better.items())
        blocks.append(f"- {COLUMNS[column].title} above AE, of {claim['seeds']} seeds: {counts}.")
    blocks.append("")
    if claim["seeds"] > 1:
        blocks += _separated_in_words(rows, part)
    blocks += _baselines(figures, part) + _ranking(rows, part, category)
    return blocks


def _separated_in_words(rows: Rows, part: str) -> list[str]:
    lines = ["Beyond the spread of the seeds (every seed of the one against every seed of the other):", ""]
    for column, found in separated(rows, part).items():
        words = [f"{kind} than AE in {', '.join(names)}" for kind, names in found.items() if names]
        lines.append(f"- {COLUMNS[column].title}: {'; '.join(words) or 'no figure differs from AE'}.")
    return [*lines, ""]


def _baselines(figures: Mapping[str, Any], part: str) -> list[str]:
    found = [row for row in figures.get("baselines", []) if row["part"] == part]
    if not found:
        return []
    heads = [f"{curve} of {residual} map" for residual in RESIDUALS for curve in CURVES.values()]
    lines = []
    for row in found:
        areas = [
            f"{row['areas'][residual][key]:.{4 if key == 'iou_auc' else 3}f}"
            for residual in RESIDUALS
            for key in CURVES
        ]
        lines.append([row["name"], f"{row['mse']:.1f}", f"{row['ssim']:.4f}", *areas])
    text = [
        "### Without a network\n",
        "The same figures where the reconstruction is the patch's median grey level, the patch blurred by 4 pixels, or the "
        "mean of training patches, as they lie or each aligned by the angle of its least gradient loss.\n",
        table(["reconstruction", "MSE", "SSIM", *heads], lines),
    ]
    for residual in RESIDUALS:
        best = max(found, key=lambda row: row["areas"][residual]["auroc"])
        limit = best["areas"][residual]["auroc"]
        behind = [
            ALL_COLUMNS[column].title
            for column in _columns(figures["rows"], part)
            if (values := _values(figures["rows"], part, column, "areas", residual, "auroc"))
            and sum(values) / len(values) <= limit
        ]
        names = ", ".join(behind) if behind else "none"
        text.append(
            f"- ROC of the {residual} map no higher than without a network ({best['name']}, {limit:.3f}): {names}."
        )
    return [*text, ""]


def _ranking(rows: Rows, part: str, category: str | None) -> list[str]:
    columns = list(COLUMNS)[:PRINTED]
    if not set(columns) <= set(_columns(rows, part)):
        return []
    places = ranking(rows, part)
    names = ("1st", "2nd", "3rd", "4th")
    lines = []
    for name, counts, printed in zip(
        names, places, RANKINGS[category] if category else [None] * PRINTED, strict=True
    ):
        lines.append([name, *map(str, counts)])
        if printed:
            lines.append([f"{name}, published", *map(str, printed)])
    source = " (Table 9)" if category else ""
    return [
        f"### Ranking{source}\n",
        "How often each column is first to fourth among the six areas, by its mean over seeds.\n",
        table(["", *(COLUMNS[column].title for column in columns)], lines),
    ]


def _lines(rows: Rows, part: str, columns: Sequence[str], published: Published | None) -> list[list[str]]:
    lines: list[list[str]] = []

    def add(title: str, keys: tuple[str, ...], digits: int, printed: tuple[float, ...] | None) -> None:
        lines.append([title, *(spread(_values(rows, part, column, *keys), digits) for column in columns)])
        if printed:
            values = [f"{value:.{digits}f}" for value in printed]
            lines.append([f"{title}, published", *values, *["–"] * (len(columns) - PRINTED)])

    add("MSE", ("mse",), 1, published and published.mse)
    add("SSIM", ("ssim",), 4, published and published.ssim)
    for reading in READINGS:
        if not any(reading in row for row in rows if row["part"] == part):
            continue
        suffix = "" if reading == "areas" else f", {READINGS[reading]}"
        for residual in RESIDUALS:
            for key, name in CURVES.items():
                digits = 4 if key == "iou_auc" else 3
                printed = published.areas[residual][key] if published and reading == "areas" else None
                add(f"{name} of {residual} map{suffix}", (reading, residual, key), digits, printed)
    add("spread of the pose, °", ("pose", "spread"), 1, None)
    add("patches left unturned", ("pose", "unturned"), 2, None)
    add("training s", ("training_seconds",), 0, None)
    return lines
