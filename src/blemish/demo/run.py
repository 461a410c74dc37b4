"""Demonstration in one command, from generated images to a report."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.masks import read_mask
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.decision import roc_auc
from blemish.demo.generated import FAMILIES, write_dataset
from blemish.demo.linear_baseline import linear_maps
from blemish.demo.painting import MASKS, MODALITIES, write_paintings
from blemish.errors import FileError, UsageError, nearest
from blemish.evaluation.baselines import Baseline, run_baselines
from blemish.evaluation.compare import fit_once
from blemish.evaluation.evaluate import Evaluation, evaluate
from blemish.inspection.detector import Detector
from blemish.inspection.folder import REPORT_FILE
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.report import Section, TableSection
from blemish.storage.atomic import atomic_folder, write_json
from blemish.storage.run_folder import RunFolder, refuse_unwritable
from blemish.training.fit_settings import DEFAULT_RECIPE

if TYPE_CHECKING:
    from blemish.inspection.scene_records import SceneRecord
    from blemish.inspection.scenes import SceneInspection

DRAWING_FILE = "drawing.json"
DEFAULT_FAMILY = "rod"


@dataclass(frozen=True)
class Plan:
    """Settings of the demo of a family."""

    recipe: str
    settings: tuple[str, ...]
    good: int
    """Images to learn from, those for validation and calibration included."""
    test_good: int
    per_blemish: int
    """Test images of each kind of defect."""
    size: int
    """Side of the images in pixels."""


# What two cores train in about two minutes.
_AUTOENCODER = Plan(
    recipe="ssim-ae",
    settings=(
        "training.steps=2000",
        "training.learning_rate=1e-3",
        "training.schedule=cosine",
        "training.validate_every=200",
        "patch.size=64",
        "patch.stride=32",
    ),
    good=80,
    test_good=30,
    per_blemish=8,
    size=256,
)
_FIGURES = Plan(
    recipe=DEFAULT_RECIPE,
    settings=(
        "training.steps=60",
        "training.batch=8",
        "training.validate_every=30",
        "memory.nearest_images=25",
    ),
    good=120,
    test_good=30,
    per_blemish=6,
    size=256,
)
PLANS = {
    # In steps, not seconds: the same model on a slow machine and on a busy one.
    "rod": Plan(
        recipe=DEFAULT_RECIPE,
        settings=(
            "training.steps=8",
            "training.batch=4",
            "training.validate_every=8",
            # As in blemish-small: a third of the comparisons.
            "memory.capacity=10000",
            "memory.nearest_images=25",
        ),
        good=80,
        test_good=30,
        per_blemish=4,
        size=256,
    ),
    "surface": Plan(
        recipe=DEFAULT_RECIPE,
        settings=("training.steps=100", "training.batch=8", "training.validate_every=50"),
        good=120,
        test_good=30,
        per_blemish=8,
        size=256,
    ),
    "figures": _FIGURES,
    "mouldings": _FIGURES,
    "weave": _AUTOENCODER,
    "checkerboard": _AUTOENCODER,
    "part": _AUTOENCODER,
}
PAINTING = "painting"
"""Family of scenes of several modalities, of which :func:`run_painting_demo` makes the demo."""
PAINTING_RECIPE = "other-pixels"
PAINTING_SETTINGS = ("training.steps=300", "training.batch=16", "training.validate_every=100")


@dataclass(frozen=True)
class Demonstration:
    """Results of the demo."""

    detector: Detector
    evaluation: Evaluation
    baselines: tuple[Baseline, ...]
    """Baselines on the same images at the same false-reject rate."""
    seconds: float
    """Seconds that this call took."""
    report: Path

    @property
    def found(self) -> int:
        """Number of defective test images rejected."""
        image = self.evaluation.image["all"]
        return round((image.figures["bad_rejected"].value or 0) * image.defective)

    def figures(self) -> dict[str, Any]:
        """Figures for JSON: those of the evaluation, and ``demo``."""
        image, rejects = self.evaluation.image["all"], self.evaluation.false_rejects
        return {
            **self.evaluation.model_dump(mode="json"),
            "demo": {
                "found": self.found,
                "defective": image.defective,
                "rejected": rejects.rejected if rejects else 0,
                "good": image.good,
                "seconds": self.seconds,
                "baselines": [baseline.model_dump(mode="json") for baseline in self.baselines],
            },
        }

    def in_words(self) -> str:
        """Summary in a few lines."""
        image, rejects = self.evaluation.image["all"], self.evaluation.false_rejects
        lines = [f"{self.found} of {image.defective} defects found."]
        if rejects:
            lines.append(
                f"{rejects.rejected} of {rejects.good} good images rejected ({100 * rejects.ratio:.1f} %)."
            )
            if rejects.promised is not None:
                lines[-1] += f" Promised: at most {100 * rejects.promised:g} % of good images."
        if self.baselines:
            others = ", ".join(f"{one.name} {one.found}" for one in self.baselines)
            lines.append(f"Found without learning, at the same promised rate: {others}.")
        lines.append(f"Time: {self.seconds:.0f} s.")
        return "\n".join(lines)


@dataclass(frozen=True)
class PaintingDemonstration:
    """Results of the demo on generated paintings."""

    detector: Detector
    inspection: SceneInspection
    auroc: dict[str, dict[str, float | None]]
    """Pixel AUROC of the cross-modal residual by ground-truth mask, then by modality, over all inspected paintings.
    About 0.5 where the modality does not show the content of the mask, or the others show it too; None where the
    mask is empty."""
    linear_auroc: dict[str, dict[str, float | None]]
    """The same of what linear regression on the pixels of the other modalities does not predict."""
    report: Path

    @property
    def records(self) -> list[SceneRecord]:
        """Records of the inspected paintings."""
        return self.inspection.records

    def figures(self) -> dict[str, Any]:
        """Figures for JSON."""
        return {
            "cross_modal_auroc": self.auroc,
            "linear_regression_auroc": self.linear_auroc,
            "records": [record.model_dump(mode="json") for record in self.records],
        }

    def in_words(self) -> str:
        """Summary in a few lines."""
        width = max(map(len, self.auroc))
        rows = [
            f"  {mask:<{width}}  "
            + "  ".join(
                f"{sensor} {_figure(value)} ({_figure(self.linear_auroc[mask][sensor])})"
                for sensor, value in found.items()
            )
            for mask, found in self.auroc.items()
        ]
        head = (
            "Pixel AUROC of the cross-modal residual of each modality, by ground-truth mask; in brackets that of linear "
            "regression on the pixels of the others:"
        )
        return "\n".join([self.inspection.in_words(), head, *rows])


def run_demo(
    out: str | Path,
    *,
    family: str = DEFAULT_FAMILY,
    seed: int = 0,
    good: int | None = None,
    test_good: int | None = None,
    per_blemish: int | None = None,
    size: int | None = None,
    settings: tuple[str, ...] = (),
    observer: Observer | None = None,
) -> Demonstration:
    """Draw images, fit, calibrate, inspect and evaluate; the report is ``out/found/<family>/report.html``.

    For scenes of several modalities, :func:`run_painting_demo` does the same.

    Images already drawn and a finished or interrupted fit in ``out`` are used, not repeated.

    Parameters
    ----------
    good: images to learn from; ``test_good`` more, and ``per_blemish`` of each kind of defect, to test. Without
        them, and without ``size``, those of the family's :class:`Plan`.
    size: side of the images in pixels.
    settings: ``key=value`` overrides of the recipe, after the demo's own.

    Raises
    ------
    UsageError
        For an unknown ``family``, or an ``out`` that holds the demo with other settings.
    FileError
        When ``out`` cannot be written.
    """
    begun = time.monotonic()
    observer = observer or Observer()
    if family not in FAMILIES:
        raise UsageError(f"unknown family '{family}'; {nearest(family, [*FAMILIES, PAINTING])}")
    plan = PLANS[family]
    recipe = override(load_recipe(plan.recipe), [f"training.seed={seed}", *plan.settings, *settings])
    out = Path(out)
    refuse_unwritable(out)
    dataset = out / "images" / family
    drawing: dict[str, Any] = {
        "family": family,
        "seed": seed,
        "good": plan.good if good is None else good,
        "test_good": plan.test_good if test_good is None else test_good,
        "per_blemish": plan.per_blemish if per_blemish is None else per_blemish,
        "size": plan.size if size is None else size,
    }
    _drawn(dataset, drawing, lambda hidden: write_dataset(hidden, **drawing), observer)
    images = dataset / "train" / "good"
    detector = fit_once(
        images, recipe, out / "model" / family, title=f"Fitting {recipe.name}", observer=observer
    )
    found = out / "found" / family
    baselines = run_baselines(detector, images, dataset)
    evaluation = evaluate(
        detector,
        dataset,
        out=found,
        overwrite=True,
        sections=[_beside(baselines)],
        observer=observer,
    )
    return Demonstration(detector, evaluation, baselines, time.monotonic() - begun, found / REPORT_FILE)


def _beside(baselines: Sequence[Baseline]) -> Section:
    return TableSection(
        "Without learning",
        ["baseline", "defects found", "of", "good rejected", "of", "image AUROC"],
        [[one.name, one.found, one.defective, one.rejected, one.good, one.auroc] for one in baselines],
        "The same images in the same pose, calibrated on the same images to the same promised false-reject rate.",
        digits=3,
    )


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
    unseen = dataset / "test"
    maps = [inspection.map(record.path, "cross") for record in inspection.records]  # (M, H, W) each
    linear = linear_maps(_images(dataset / "train"), _images(unseen), detector.file.preprocessing.modalities)
    return PaintingDemonstration(
        detector,
        inspection,
        _against_the_truth(maps, inspection, unseen),
        _against_the_truth(linear, inspection, unseen),
        found / REPORT_FILE,
    )


def _images(paintings: Path) -> list[NDArray[np.float32]]:
    """Each painting as one image (11, H, W), in the order of the inspection's records."""
    images = []
    for scene in find_scenes(paintings):
        with SceneReader(scene) as reader:
            images.append(reader.read(0, 0, reader.height, reader.width))
    return images


def _against_the_truth(
    maps: Sequence[NDArray[np.float32]], inspection: SceneInspection, paintings: Path
) -> dict[str, dict[str, float | None]]:
    """For each of ``MASKS`` and each sensor the pixel AUROC of its map (M, H, W)."""
    found: dict[str, dict[str, float | None]] = {}
    for mask in MASKS:
        truth = [
            read_mask(paintings / record.path / "masks" / f"{mask}.png", size=record.size)
            for record in inspection.records
        ]
        found[mask] = {
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
