"""Recipes of every kind from a folder of images to a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.detectors.ensemble import Ensemble
from blemish.inspection.detector import load
from blemish.recipes import load_recipe, override, parse_recipe
from blemish.training.fit import fit

RATE = 0.2
TEXT = {"title": "Mine", "paper": "none", "expect": "little"}
BANK = {"memory": {"name": "structure", "patch": 8, "capacity": 500}}


def test_a_memory_bank_alone_needs_no_training(good: Path, tmp_path: Path, draw: object) -> None:
    recipe = parse_recipe({"name": "bank", **TEXT, **BANK}, "bank")
    detector = fit(good, recipe, false_reject_rate=RATE, out=tmp_path / "model")
    assert isinstance(detector.model, Ensemble)
    assert detector.model.weights == [1]
    assert {one.share for one in detector.file.candidates} == {1.0}
    assert (detector.file.training.steps, detector.file.training.seconds) == (0, 0)
    first, dotted = (detector.inspect(draw(300, dot=dot)) for dot in (False, True))  # type: ignore[operator]
    assert dotted.score > 2 * first.score
    assert dotted.is_anomalous
    assert dotted.reconstruction is None
    row, column = np.unravel_index(dotted.map.argmax(), dotted.map.shape)
    assert 8 <= row < 24
    assert 16 <= column < 34
    again = load(tmp_path / "model").inspect(good / "3.png")
    assert again.score == detector.inspect(good / "3.png").score


def test_an_ensemble_of_three_recipes(
    good: Path, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blemish.training.trainer.VALIDATION_PATCHES", 4)
    networks = [
        {
            **override(load_recipe(name), [*tiny, f"training.steps={steps}"]).model_dump(mode="json"),
            "name": name,
        }
        for name, steps in (("ssim-ae", 4), ("l2-ae", 6))
    ]
    recipe = parse_recipe(
        {
            "name": "three",
            **TEXT,
            "members": [*networks, {"name": "bank", **BANK}],
            "training": {"device": "cpu", "precision": "float32"},
        },
        "three",
    )
    detector = fit(good, recipe, false_reject_rate=RATE, out=tmp_path / "model")
    assert isinstance(detector.model, Ensemble)
    assert detector.model.names == ["ssim-ae", "l2-ae", "bank memory bank"]
    assert sum(detector.model.weights) == pytest.approx(1)
    weights = [one.weights for one in detector.file.candidates if one.is_chosen]
    np.testing.assert_allclose(weights, [detector.model.weights], atol=1e-6)
    found = detector.inspect(good / "3.png")
    assert found.reconstruction is not None
    again = load(tmp_path / "model")
    assert again.inspect(good / "3.png").score == found.score
    assert again.file.candidates == detector.file.candidates
    names = detector.file.split["calibration"]
    assert [again.inspect(good / name).score for name in names] == list(detector.file.calibration.scores)
