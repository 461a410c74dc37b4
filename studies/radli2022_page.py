"""Tables and text of Rádli & Czúni 2022."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studies.protocol import Request, beside_paper, spread, table, training_in_words
from studies.radli2022_columns import (
    COLUMNS,
    CURVES,
    PRINTED,
    PUBLISHED,
    RESIDUALS,
    TRAINING,
    Part,
    Published,
    recipe_of,
)
from studies.radli2022_measures import Tests


def _values(rows: Sequence[dict[str, Any]], part: str, column: str, *keys: str) -> list[float]:
    """One figure of every seed."""
    found = []
    for row in rows:
        if (row["part"], row["column"]) == (part, column):
            value: Any = row
            for key in keys:
                value = value[key]
            found.append(value)
    return found


def claim_counts(rows: Sequence[dict[str, Any]], part: str) -> dict[str, Any]:
    """Seeds of all in which a column has the higher SSIM, and the higher pixel AUROC, than the plain AE."""
    plain = "plain"
    keys = {"SSIM": ("ssim",)} | {f"AUROC of {name}": ("areas", name, "auroc") for name in RESIDUALS}
    return {
        "part": part,
        "seeds": len(_values(rows, part, plain, "ssim")),
        "better_than_plain": {
            column: {
                name: sum(
                    ours > theirs
                    for ours, theirs in zip(
                        _values(rows, part, column, *key), _values(rows, part, plain, *key), strict=True
                    )
                )
                for name, key in keys.items()
            }
            for column in COLUMNS
            if column != plain
        },
    }


def page(
    request: Request,
    rows: Sequence[dict[str, Any]],
    parts: dict[str, tuple[Part, Tests]],
    seeds: tuple[int, ...],
    category: str | None,
) -> str:
    blocks = [
        "# Rádli & Czúni 2022: orientation normalised before the autoencoder\n",
        f"Mean over {len(seeds)} seed{'s' * (len(seeds) > 1)}"
        + (" (smallest to largest). " if len(seeds) > 1 else ". ")
        + "MSE is of 0 to 255, over held-out good patches, as is SSIM; ROC, PRC and IoU are areas under the "
        "curves of the pixels of bad patches, IoU over thresholds as shares of the largest residual. All is "
        "measured on the image itself, without the canvas around it. Spread is the circular standard "
        "deviation of the pose after alignment, up to half turns, against "
        "the angle of least gradient loss, or the true angle where it is known. The paper also turns its "
        "training patches at random; ours are only cropped.\n",
    ]
    for name, (part, tests) in parts.items():
        published = PUBLISHED[category] if name == "dataset" and category else None
        first = next(row for row in rows if row["part"] == name)
        recipes = [recipe_of(part, column, seed) for column in COLUMNS for seed in seeds]
        training = (
            beside_paper(request, recipes, TRAINING)
            if name == "dataset"
            else f"Not in the paper. {training_in_words(recipes)}"
        )
        blocks += [
            f"## {part.title}\n",
            f"{len(tests.good)} good and {len(tests.bad)} bad patches of {tests.good.shape[-1]} pixels; "
            f"{first['machine']}.\n",
            f"{training}\n",
            table(["", *(column.title for column in COLUMNS.values())], _lines(rows, name, published)),
        ]
        claim = claim_counts(rows, name)
        for column, better in claim["better_than_plain"].items():
            counts = ", ".join(f"{figure} {count}" for figure, count in better.items())
            blocks.append(f"- {COLUMNS[column].title} above AE, of {claim['seeds']} seeds: {counts}.")
        blocks.append("")
    return "\n".join(blocks) + "\n"


def _lines(rows: Sequence[dict[str, Any]], part: str, published: Published | None) -> list[list[str]]:
    lines: list[list[str]] = []

    def add(title: str, keys: tuple[str, ...], digits: int, printed: tuple[float, ...] | None) -> None:
        lines.append([title, *(spread(_values(rows, part, column, *keys), digits) for column in COLUMNS)])
        if printed:
            values = [f"{value:.{digits}f}" for value in printed]
            lines.append([f"{title}, published", *values, *["–"] * (len(COLUMNS) - PRINTED)])

    add("MSE", ("mse",), 1, published and published.mse)
    add("SSIM", ("ssim",), 4, published and published.ssim)
    for residual in RESIDUALS:
        for key, name in CURVES.items():
            digits = 4 if key == "iou_auc" else 3
            printed = published and published.areas[residual][key]
            add(f"{name} of {residual} map", ("areas", residual, key), digits, printed)
    add("spread of the pose, °", ("pose", "spread"), 1, None)
    add("patches left unturned", ("pose", "unturned"), 2, None)
    add("training s", ("training_seconds",), 0, None)
    return lines
