"""The whole road on generated pictures, in minutes on two cores."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blemish.errors import FileError, UsageError, nearest
from blemish.evaluating import Evaluation, evaluate
from blemish.fitting import fit, is_unfinished, refuse_other_settings, refuse_unwritable
from blemish.images.generated import FAMILIES, write_dataset
from blemish.images.writing import write_json
from blemish.inspecting import REPORT_FILE
from blemish.inspector import MODEL_FILE, Inspector, load
from blemish.observer import Observer
from blemish.recipes import load_recipe, override

RECIPE = "ssim-ae"
DRAWING_FILE = "drawing.json"
# What two cores train in about two minutes.
SETTINGS = (
    "training.steps=2000",
    "training.learning_rate=1e-3",
    "training.schedule=cosine",
    "training.validate_every=200",
    "patch.size=64",
    "patch.stride=32",
)


@dataclass(frozen=True)
class Demonstration:
    """What the demo made."""

    inspector: Inspector
    evaluation: Evaluation
    report: Path


def run_demo(
    out: str | Path,
    *,
    family: str = "weave",
    seed: int = 0,
    good: int = 80,
    test_good: int = 30,
    per_blemish: int = 8,
    size: int = 256,
    settings: tuple[str, ...] = (),
    observer: Observer | None = None,
) -> Demonstration:
    """Draw pictures, fit, calibrate, inspect and evaluate; the report is ``out/found/<family>/report.html``.

    Pictures already drawn and a finished or interrupted fit in ``out`` are used, not repeated.

    Parameters
    ----------
    good: pictures to learn from; ``test_good`` more, and ``per_blemish`` of each kind of blemish, to test.
    size: side of the pictures in pixels.
    settings: ``key=value`` overrides of the recipe, after the demo's own.

    Raises
    ------
    UsageError
        For an unknown ``family``, or an ``out`` that holds the demo with other settings.
    FileError
        When ``out`` cannot be written.
    """
    observer = observer or Observer()
    if family not in FAMILIES:
        raise UsageError(f"unknown family '{family}'; {nearest(family, FAMILIES)}")
    recipe = override(load_recipe(RECIPE), [f"training.seed={seed}", *SETTINGS, *settings])
    out = Path(out)
    refuse_unwritable(out)
    dataset = out / "pictures" / family
    model = out / "model" / family
    drawing = {
        "family": family, "seed": seed, "good": good, "test_good": test_good,
        "per_blemish": per_blemish, "size": size,
    }  # fmt: skip
    if os.path.exists(dataset):
        _refuse_other(dataset, drawing)
    else:
        observer.stage(f"Drawing the pictures of {family}")
        _draw(dataset, drawing)
    if os.path.exists(model / MODEL_FILE):
        inspector = load(model)
        refuse_other_settings(model, inspector.recipe, recipe)
    else:
        good_pictures = dataset / "train" / "good"
        inspector = fit(good_pictures, recipe, out=model, resume=is_unfinished(model), observer=observer)
    found = out / "found" / family
    evaluation = evaluate(inspector, dataset, out=found, overwrite=True, observer=observer)
    return Demonstration(inspector, evaluation, found / REPORT_FILE)


def _draw(dataset: Path, drawing: dict[str, Any]) -> None:
    """Draw into a hidden folder that takes its name at the end, so that a data set is there whole or not."""
    hidden = dataset.parent / f".part-{dataset.name}"
    shutil.rmtree(hidden, ignore_errors=True)
    drawn = write_dataset(hidden, **drawing)
    write_json(drawn / DRAWING_FILE, drawing)
    try:
        drawn.rename(dataset)
    except OSError as error:
        raise FileError(dataset, f"cannot be made ({error.strerror})", "choose another --out") from None
    with suppress(OSError):  # what the file browser of a desktop may have put there does no harm
        hidden.rmdir()


def _refuse_other(dataset: Path, drawing: dict[str, Any]) -> None:
    path = dataset / DRAWING_FILE
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileError(dataset, "was not drawn by this demo", "choose another --out") from None
    for key, value in drawing.items():
        if before.get(key) != value:
            raise UsageError(f"{dataset}: was drawn with another {key}; choose another --out")
