from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.decision import PixelMetrics
from blemish.errors import FileError, UsageError
from blemish.evaluation.compare import compare
from blemish.evaluation.evaluate import Evaluation, evaluate
from blemish.inspection.detector import Detector
from blemish.inspection.scenes import inspect_scenes

Painting = Callable[..., Path]
Make = Callable[..., Detector]
HEIGHT, WIDTH = 64, 96

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, painting: Painting) -> Path:
    """A scene in train; in test one with masks of two kinds at half resolution, and one without."""
    folder = tmp_path_factory.mktemp("dataset")
    painting(folder / "train" / "eve", 0, height=64, width=160)
    for name, seed in (("adam", 1), ("seth", 2)):
        painting(folder / "test" / name, seed, height=HEIGHT, width=WIDTH)
    masks = folder / "test" / "adam" / "masks"
    masks.mkdir()
    for kind, (top, left) in {"losses": (2, 2), "retouching": (20, 30)}.items():
        mask = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
        mask[top : top + 8, left : left + 10] = 255
        Image.fromarray(mask).save(masks / f"{kind}.png")
    return folder


@pytest.fixture(scope="module")
def detector(dataset: Path, make_detector: Make) -> Detector:
    return make_detector(dataset / "train", "fp-cae-add", "patch.stride=24")


def truth(kind: str) -> Any:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    top, left = {"losses": (4, 4), "retouching": (40, 60)}[kind]
    mask[top : top + 16, left : left + 20] = True
    return mask


def test_maps_and_squares_are_compared_with_masks(dataset: Path, detector: Detector, tmp_path: Path) -> None:
    found = evaluate(detector, dataset, out=tmp_path / "out")
    done = inspect_scenes(detector, dataset / "test", tmp_path / "other")
    both = truth("losses") | truth("retouching")
    expected = PixelMetrics(resamples=0)
    residual = done.map("adam", "residual")
    expected.update(residual, both)
    expected.update(done.map("seth", "residual"))
    assert found.pixel.auroc == pytest.approx(expected.result().auroc, abs=1e-9)
    assert found.pixel.aupro_30 == pytest.approx(expected.result().aupro_30, abs=1e-9)
    own = PixelMetrics(resamples=0)
    own.update(residual, truth("losses"), counted=~truth("retouching"))
    own.update(done.map("seth", "residual"))
    assert found.pixel.groups["losses"].ap == pytest.approx(own.result().ap, abs=1e-9)
    crossed = PixelMetrics(resamples=0)
    crossed.update(done.map("adam", "cross")[0], truth("losses"), counted=~truth("retouching"))
    crossed.update(done.map("seth", "cross")[0])
    assert found.modalities["losses"]["infrared"].auroc == pytest.approx(crossed.result().auroc, abs=1e-9)
    assert list(found.modalities["losses"]) == ["infrared", "rgb", "xray"]
    # Squares of 32: losses lie in the first, retouching at (40, 60) to (56, 80) mostly in that of columns 64 to 96.
    assert (found.unit, found.image["losses"].defective, found.image["retouching"].defective) == (
        "square",
        1,
        2,
    )
    assert found.image["all"].good + found.image["all"].defective == sum(one.squares for one in done.records)
    assert found.false_rejects is not None
    assert found.false_rejects.good == found.image["all"].good
    assert "not predicted by the other modalities" in found.in_words()
    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert Evaluation.model_validate(stored) == found
    assert "retouching" in (tmp_path / "out" / "evaluation.html").read_text()
    assert (tmp_path / "out" / "report.html").exists()
    with pytest.raises(UsageError, match="--overwrite"):
        evaluate(detector, dataset, out=tmp_path / "out")
    assert evaluate(detector, dataset / "test").pixel == found.pixel


def test_scenes_without_masks_are_refused(dataset: Path, detector: Detector) -> None:
    with pytest.raises(FileError, match="has no masks to compare with; put them into the folder masks"):
        evaluate(detector, dataset / "train")
    with pytest.raises(UsageError, match="leave --good out"):
        evaluate(detector, dataset, good_label="fine")


def test_recipes_are_compared_on_scenes(dataset: Path, tmp_path: Path) -> None:
    settings = [
        "training.steps=2",
        "training.validate_every=2",
        "training.device=cpu",
        "training.batch=4",
        "threshold.rule=fixed",
        "threshold.value=0.5",
    ]
    found = compare(dataset, ["other-pixels"], tmp_path / "out", settings=settings)
    (run,) = found.runs
    assert run.evaluation.unit == "square"
    assert run.evaluation.pixel.auroc is not None
    before = (tmp_path / "out" / "other-pixels-0" / "found" / "evaluation.json").stat().st_mtime_ns
    again = compare(dataset, ["other-pixels"], tmp_path / "out", settings=settings)
    assert again == found
    assert (tmp_path / "out" / "other-pixels-0" / "found" / "evaluation.json").stat().st_mtime_ns == before
