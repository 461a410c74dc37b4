"""Models while they are served: taken over whole, and thresholds that outlive a restart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import BlemishError, CalibrationError, ModelError
from blemish.inspection.detector import Detector
from blemish.serve.served_model import ServedModel, ServedModels, ThresholdChoice, UnknownModelError
from blemish.storage.model_folder import WEIGHTS_FILE


@pytest.fixture
def folder(exported: tuple[Detector, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[1], tmp_path / "given"))


@pytest.fixture
def other(exported: tuple[Detector, Path], tmp_path: Path) -> Path:
    """Another model: the same network with another promise."""
    detector = exported[0].with_false_reject_rate(0.5)
    return detector.save(tmp_path / "other")


def test_new_content_is_served_once_it_is_whole(folder: Path, other: Path, tmp_path: Path) -> None:
    model = ServedModel(folder, tmp_path / "home" / "waves")
    first = model.detector
    assert not model.reload()
    for path in sorted(other.iterdir(), key=lambda path: path.suffix == ".json"):  # model.json in the end
        half = path.read_bytes()[: path.stat().st_size // 2]
        (folder / path.name).write_bytes(half)
        assert not model.reload()
        assert model.detector is first
        shutil.copyfile(path, folder / path.name)
        if path.name != "model.json":
            assert not model.reload()
            assert model.detector is first
    assert model.reload()
    assert model.problem is None
    assert model.detector.threshold != first.threshold
    assert model.version.number == 2


def test_damaged_content_leaves_the_former_model_and_says_why(folder: Path, tmp_path: Path) -> None:
    model = ServedModel(folder, tmp_path / "home" / "waves")
    first = model.detector
    (folder / WEIGHTS_FILE).write_bytes(b"damaged")
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(document | {"blemish": "9"}))
    assert not model.reload()
    assert model.detector is first
    assert model.problem is not None
    assert "edited" in model.problem
    shutil.rmtree(folder)
    assert not model.reload()
    assert model.detector is first


def test_promotions_and_roll_backs_outlive_a_restart(folder: Path, other: Path, tmp_path: Path) -> None:
    home = tmp_path / "home" / "waves"
    model = ServedModel(folder, home)
    added = model.versions.add(other, "fit 1")
    assert model.version.number == 1
    model.promote(added.number)
    assert model.detector.threshold == pytest.approx(model.versions and model.stored.threshold)
    promoted = model.detector.threshold
    assert ServedModel(folder, home).detector.threshold == promoted
    model.roll_back()
    assert model.version.number == 1
    assert ServedModel(folder, home).version.number == 1
    with pytest.raises(BlemishError):
        model.roll_back()
    with pytest.raises(BlemishError, match="no version 9"):
        model.promote(9)
    assert model.version.number == 1


def test_a_damaged_version_is_not_promoted(folder: Path, other: Path, tmp_path: Path) -> None:
    model = ServedModel(folder, tmp_path / "home" / "waves")
    added = model.versions.add(other, "fit 1")
    (model.versions.folder_of(added.number) / WEIGHTS_FILE).write_bytes(b"damaged")
    with pytest.raises(ModelError):
        model.promote(added.number)
    assert model.version.number == 1
    assert model.versions.running() == model.version


def test_a_chosen_threshold_is_used_at_once_and_after_a_restart(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home" / "waves"
    model = ServedModel(folder, home)
    own = model.detector.threshold
    model.choose(ThresholdChoice(false_reject_rate=0.5))
    assert model.detector.threshold == model.stored.with_false_reject_rate(0.5).threshold != own
    assert ServedModel(folder, home).detector.threshold == model.detector.threshold
    with pytest.raises(CalibrationError):
        model.choose(ThresholdChoice(false_reject_rate=1e-6))
    assert ServedModel(folder, home).detector.threshold == model.detector.threshold
    model.choose(ThresholdChoice(threshold=7.0))
    assert ServedModel(folder, home).detector.threshold == 7.0
    model.choose(None)
    assert ServedModel(folder, home).detector.threshold == own


def test_a_threshold_on_scores_is_that_of_one_model_alone(folder: Path, tmp_path: Path) -> None:
    model = ServedModel(folder, tmp_path / "home" / "waves")
    choice = ThresholdChoice(threshold=7.0, weights_sha256="another")
    assert choice.applied(model.stored) is model.stored


def test_an_adjustment_stays_with_new_content(folder: Path, other: Path, tmp_path: Path) -> None:
    model = ServedModel(folder, tmp_path / "home" / "waves")
    model.adjust("mask", lambda detector: detector.with_threshold(3.0))
    assert model.detector.threshold == 3.0
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    assert model.reload()
    assert model.detector.threshold == 3.0

    def refuse(_: Detector) -> Detector:
        raise BlemishError("does not fit")

    with pytest.raises(BlemishError):
        model.adjust("mask", refuse)
    assert model.detector.threshold == 3.0
    model.adjust("mask", None)
    assert model.detector.threshold == model.stored.threshold


def test_models_of_scenes_and_none_are_refused(
    make_detector: Callable[..., Any], painting: Callable[..., Path], tmp_path: Path
) -> None:
    scene = painting(tmp_path / "scenes" / "one")
    saved = make_detector(scene.parent).save(tmp_path / "model")
    with pytest.raises(ModelError, match="scenes"):
        ServedModel(saved, tmp_path / "home" / "scenes")
    with pytest.raises(BlemishError, match="no model to serve"):
        ServedModels({}, tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(folder: Path, tmp_path: Path) -> None:
    models = ServedModels({"waves": folder}, tmp_path / "home")
    assert models.named(None) is models["waves"]
    with pytest.raises(UnknownModelError, match="did you mean 'waves'"):
        models.named("wave")
