"""The whole road on generated images, in minutes on two cores."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blemish.data.datasets import read_mask
from blemish.decision import roc_auc
from blemish.demo.generated import FAMILIES, write_dataset
from blemish.demo.painting import MASKS, MODALITIES, write_paintings
from blemish.errors import FileError, UsageError, nearest
from blemish.evaluation.compare import fit_once
from blemish.evaluation.evaluate import Evaluation, evaluate
from blemish.inspection.detector import Detector
from blemish.inspection.folder import REPORT_FILE
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.storage.atomic import atomic_folder, write_json
from blemish.storage.run_folder import RunFolder, refuse_unwritable

if TYPE_CHECKING:
    from blemish.inspection.scenes import SceneInspection, SceneRecord

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
PAINTING = "painting"
"""The family that several sensors saw, of which :func:`run_painting_demo` makes the demo."""
PAINTING_RECIPE = "fp-cae-add"
# What one core trains in about two minutes.
PAINTING_SETTINGS = ("training.steps=700", "training.batch=16", "training.validate_every=100")


@dataclass(frozen=True)
class Demonstration:
    """What the demo made."""

    detector: Detector
    evaluation: Evaluation
    report: Path


@dataclass(frozen=True)
class PaintingDemonstration:
    """What the demo made of generated paintings."""

    detector: Detector
    inspection: SceneInspection
    auroc: dict[str, dict[str, float | None]]
    """By what is known to be there, then by sensor: pixel AUROC of what the other sensors do not predict of it,
    over all paintings that were inspected. About 0.5 where a sensor does not show the thing, or the others show it
    too; None where the paintings have none of it."""
    report: Path

    @property
    def records(self) -> list[SceneRecord]:
        """Of the paintings that were inspected."""
        return self.inspection.records

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "cross_modal_auroc": self.auroc,
            "records": [record.model_dump(mode="json") for record in self.records],
        }

    def in_words(self) -> str:
        """Some lines for people."""
        width = max(map(len, self.auroc))
        rows = [
            f"  {thing:<{width}}  "
            + "  ".join(f"{sensor} {_figure(value)}" for sensor, value in found.items())
            for thing, found in self.auroc.items()
        ]
        head = "Pixel AUROC of what each sensor shows and the others do not predict, against what is there:"
        return "\n".join([self.inspection.in_words(), head, *rows])


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
    """Draw images, fit, calibrate, inspect and evaluate; the report is ``out/found/<family>/report.html``.

    Of paintings that several sensors saw, :func:`run_painting_demo` does the same.

    Images already drawn and a finished or interrupted fit in ``out`` are used, not repeated.

    Parameters
    ----------
    good: images to learn from; ``test_good`` more, and ``per_blemish`` of each kind of blemish, to test.
    size: side of the images in pixels.
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
        raise UsageError(f"unknown family '{family}'; {nearest(family, [*FAMILIES, PAINTING])}")
    recipe = override(load_recipe(RECIPE), [f"training.seed={seed}", *SETTINGS, *settings])
    out = Path(out)
    refuse_unwritable(out)
    dataset = out / "images" / family
    drawing: dict[str, Any] = {
        "family": family, "seed": seed, "good": good, "test_good": test_good,
        "per_blemish": per_blemish, "size": size,
    }  # fmt: skip
    _drawn(dataset, drawing, lambda hidden: write_dataset(hidden, **drawing), observer)
    detector = fit_once(
        dataset / "train" / "good",
        recipe,
        out / "model" / family,
        title=f"Fitting {RECIPE}",
        observer=observer,
    )
    found = out / "found" / family
    evaluation = evaluate(detector, dataset, out=found, overwrite=True, observer=observer)
    return Demonstration(detector, evaluation, found / REPORT_FILE)


def run_painting_demo(
    out: str | Path,
    *,
    seed: int = 0,
    good: int = 4,
    test: int = 1,
    size: int = 384,
    settings: tuple[str, ...] = (),
    observer: Observer | None = None,
) -> PaintingDemonstration:
    """Draw paintings that five sensors saw, fit, calibrate, inspect; the report is ``out/found/painting/report.html``.

    What is hidden in a painting is known: against it the cross-modal maps are measured. Paintings already drawn and a
    finished or interrupted fit in ``out`` are used, not repeated.

    Parameters
    ----------
    good: paintings to learn from; ``test`` more to inspect.
    size: side of the paintings in pixels.
    settings: ``key=value`` overrides of the recipe, after the demo's own.

    Raises
    ------
    UsageError
        For an ``out`` that holds the demo with other settings.
    FileError
        When ``out`` cannot be written.
    """
    from blemish.inspection.scenes import (
        inspect_scenes,  # of the extra [large], which the other families do without
    )

    observer = observer or Observer()
    chosen = [f"training.seed={seed}", *PAINTING_SETTINGS, *settings]
    recipe = override(load_recipe(PAINTING_RECIPE), chosen)
    out = Path(out)
    refuse_unwritable(out)
    dataset = out / "images" / PAINTING
    drawing = {"family": PAINTING, "seed": seed, "good": good, "test": test, "size": size}

    def draw(hidden: Path) -> Path:
        write_paintings(hidden / PAINTING / "train", good, seed=seed, size=size)
        write_paintings(hidden / PAINTING / "test", test, seed=seed + good, size=size)
        return hidden / PAINTING

    _drawn(dataset, drawing, draw, observer)
    detector = fit_once(
        dataset / "train",
        recipe,
        out / "model" / PAINTING,
        title=f"Fitting {PAINTING_RECIPE}",
        observer=observer,
    )
    found = out / "found" / PAINTING
    inspection = inspect_scenes(detector, dataset / "test", found, overwrite=True, observer=observer)
    auroc = _against_the_truth(inspection, dataset / "test")
    return PaintingDemonstration(detector, inspection, auroc, found / REPORT_FILE)


def _against_the_truth(inspection: SceneInspection, paintings: Path) -> dict[str, dict[str, float | None]]:
    """For each of ``MASKS`` and each sensor the pixel AUROC of its cross-modal map."""
    maps = [inspection.map(record.path, "cross") for record in inspection.records]  # (M, H, W) each
    found: dict[str, dict[str, float | None]] = {}
    for thing in MASKS:
        truth = [
            read_mask(paintings / record.path / "masks" / f"{thing}.png", size=record.size)
            for record in inspection.records
        ]
        found[thing] = {
            sensor: _auroc(truth, [planes[place] for planes in maps])
            for place, sensor in enumerate(MODALITIES)
        }
    return found


def _auroc(truth: Sequence[Any], maps: Sequence[Any]) -> float | None:
    if not truth:
        return None
    labels, values = (np.concatenate([one.ravel() for one in many]) for many in (truth, maps))
    value = roc_auc(labels, values)
    return value if math.isfinite(value) else None


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def _drawn(dataset: Path, drawing: dict[str, Any], draw: Callable[[Path], Path], observer: Observer) -> None:
    """Have ``draw`` fill a temporary folder that takes its name at the end: a data set is there whole or not."""
    other = "was drawn with another {key}; choose another --out"
    if os.path.exists(dataset):
        try:
            RunFolder(dataset, settings_file=DRAWING_FILE, other=other).refuse_other(drawing)
        except FileError:
            raise FileError(dataset, "was not drawn by this demo", "choose another --out") from None
        return
    observer.stage(f"Drawing the images of {drawing['family']}")
    with atomic_folder(dataset) as temporary:
        write_json(draw(temporary.parent) / DRAWING_FILE, drawing)
