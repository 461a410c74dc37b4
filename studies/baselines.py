"""Reconstructions without learning as rows of the studies' tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blemish.data.datasets import find_images
from blemish.data.layouts import read_labelled
from blemish.evaluation.compare import good_images
from blemish.evaluation.evaluate import items_sha256
from blemish.evaluation.reconstruction_baselines import (
    BLURRED,
    FLAT,
    MEAN,
    reconstruction_baselines,
)
from blemish.observer import Observer
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe, override
from blemish.storage.atomic import write_json
from blemish.training.image_source import ImageSource
from blemish.training.sources import images_sha256

NAMES = (FLAT, BLURRED, MEAN)
WARNING = (
    "Rows without a network reconstruct each image as one grey level, as itself blurred by 4 pixels, or as the mean of "
    "the training images, and compare by the same residuals. A network whose figure is not above theirs has shown nothing of "
    "what it learned about good images."
)


def preprocessing_of(good: Path, recipe: Recipe, observer: Observer) -> Preprocessing:
    """Preprocessing that a fit of ``recipe`` on the images of ``good`` chooses; nothing is trained."""
    undecided = override(
        recipe, ["threshold.rule=train-mean"]
    )  # no promise, which few images could not carry
    return ImageSource(good, undecided, observer, None).preprocessing


def baseline_rows(
    data: Path, recipe: Recipe, observer: Observer, preprocessing: Preprocessing | None = None
) -> list[dict[str, Any]]:
    """Rows of flat grey, blur and mean training image for images that are preprocessed as for ``recipe``.

    The mean is of all good training images.
    """
    good = good_images(data)
    items = [item for item in find_images(good) if item.label in ("good", None) and item.split != "test"]
    found = reconstruction_baselines(
        preprocessing or preprocessing_of(good, recipe, observer),
        items,
        data,
        score=recipe.score,
        observer=observer,
    )
    return [
        {
            **row.model_dump(mode="json", exclude={"pixel"}),
            "pixel": row.pixel.model_dump(mode="json", exclude={"groups"}),
        }
        for row in found
    ]


def kept_baselines(work: Path, data: Path, recipe: Recipe, observer: Observer) -> list[dict[str, Any]]:
    """:func:`baseline_rows`, kept in ``work``: they are computed again where images, size or score differ."""
    path = work / "baselines.json"
    good, tests = good_images(data), [item for item in read_labelled(data).items if item.split != "train"]
    facts: list[Any] = [items_sha256(tests), images_sha256(good, recipe)]
    facts += [recipe.model_dump(mode="json", include={"image", "score"})]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["sha256"] == key:
            return list(kept["rows"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # there is none, or it is not whole: it is made again
    rows = baseline_rows(data, recipe, observer)
    write_json(path, {"sha256": key, "rows": rows})
    return rows


def not_above(
    rows: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]], residuals: Mapping[str, str]
) -> str:
    """A paragraph on recipes whose mean pixel AUROC is not above the best baseline of the same residual.

    Parameters
    ----------
    residuals: of each recipe, by name.
    """
    best: dict[str, float] = {}
    for one in baselines:
        if one["pixel"]["auroc"] is not None:
            best[one["residual"]] = max(best.get(one["residual"], 0.0), one["pixel"]["auroc"])
    behind, compared = [], 0
    for recipe, residual in residuals.items():
        values = [row["pixel"]["auroc"] for row in rows if row["recipe"] == recipe]
        if not values or None in values or residual not in best:
            continue
        compared += 1
        if sum(values) / len(values) <= best[residual]:
            behind.append(recipe)
    if not compared:
        return ""
    if not behind:
        return f"All {compared} recipes have a pixel AUROC above the best row without a network of the same residual.\n\n"
    return (
        f"{len(behind)} of {compared} recipes have a pixel AUROC no higher than the best row without a network of the same "
        f"residual: {', '.join(behind)}.\n\n"
    )
