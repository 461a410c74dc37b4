from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blemish.detectors.factory import build_model, networks
from blemish.errors import RecipeError, Stopped
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.storage.training_record import Training
from blemish.training.device import choose_machine
from blemish.training.fit import fit
from blemish.training.fit_run import FitRun
from blemish.training.image_source import ImageSource

RATE = 0.2
SMALL = "ssim-ae"


def test_nothing_is_left_out_unless_asked(mixed: Path, tiny: list[str]) -> None:
    detector = fit(mixed, "l2-ae", settings=tiny, false_reject_rate=RATE)
    assert detector.file.training.left_out == ()
    assert detector.file.calibration.left_out == {}
    assert detector.file.training.notes == ()
    assert "assumption" not in detector.guarantee


def test_the_worst_training_images_are_left_out_at_half_time_and_named(
    mixed: Path, tiny: list[str], tmp_path: Path, recorder: type, dots: Callable[..., Any]
) -> None:
    recorded = recorder()
    settings = [*tiny, "training.trim=0.2"]
    options: dict[str, Any] = {"settings": settings, "false_reject_rate": RATE}
    detector = fit(mixed, "l2-ae", **options, observer=recorded)
    file = detector.file
    assert dots(file.split["train"])
    assert len(file.training.left_out) == int(0.2 * len(file.split["train"]))
    # A network that has learned nothing but grey already finds the bright dots worst.
    assert dots(file.training.left_out) == dots(file.split["train"])
    assert any(stage.startswith("Half time: scoring") for stage in recorded.stages)
    for name in file.training.left_out:
        assert name in detector.card()
        assert any(name in stage for stage in recorded.stages if stage.startswith("Left out"))
    # Stopped before, at and after half time, it goes on to the same model; 28 images are read first.
    for number, stopping in enumerate((30, 31, 35, 28 + 3 + len(file.split["train"]) + 2)):
        out = tmp_path / str(number)
        with pytest.raises(Stopped):
            fit(mixed, "l2-ae", **options, out=out, observer=recorder(stopping))
        again = fit(mixed, "l2-ae", **options, out=out, resume=True)
        assert again.file.weights_sha256 == file.weights_sha256
        assert again.file.training.left_out == file.training.left_out


def test_a_trim_of_less_than_one_image_is_noted(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "training.trim=0.01"], false_reject_rate=RATE)
    assert detector.file.training.left_out == ()
    assert "left out no training image" in detector.card()


def test_automatic_trimming_leaves_out_the_outliers(
    mixed: Path, tiny: list[str], dots: Callable[..., Any]
) -> None:
    settings = [*tiny, "training.trim=auto", "threshold.trim=auto"]
    file = fit(mixed, "l2-ae", settings=settings, false_reject_rate=RATE).file
    # The images with dots are far above the others, and all of them and no others are found.
    assert set(file.training.left_out) == dots(file.split["train"])
    assert set(file.calibration.left_out) == dots(file.calibration.left_out)
    assert not dots(file.split["calibration"])
    assert "as the outlying of the training images" in " ".join(file.training.notes)
    for wrong in ("0.5", "-0.1", "often"):
        with pytest.raises(RecipeError, match=f"trim {wrong}: give a share from 0 to less than 0.5, or auto"):
            fit(mixed, "l2-ae", settings=[f"threshold.trim={wrong}"])


def test_a_budget_bounds_reading_memory_bank_training_and_calibration_together(
    bolts: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 s, 20 are spent and 4 are expected for scoring; the network has the rest, and a fifth at least."""
    seconds = []

    def train_for(folder: object, model: object, recipe: Any, *rest: object, **more: object) -> Training:
        seconds.append(recipe.training.budget)
        machine = choose_machine("cpu", "float32")
        return Training(steps=1, best_step=1, best_loss=None, seconds=1, machine=machine, history=())

    monkeypatch.setattr("blemish.training.fit_run.train_for", train_for)
    monkeypatch.setattr(FitRun, "_seconds_of_scoring", lambda run: 4.0)
    monkeypatch.setattr("blemish.training.fit_run.time.perf_counter", lambda: 120.0)
    recipe = override(
        load_recipe("blemish"), [*quick, "training.budget=60", f"threshold.false_reject_rate={RATE}"]
    )
    source = ImageSource(bolts, recipe, Observer(), None)
    model = build_model(recipe, 1)
    for begun in (100.0, 61.0):
        run = FitRun(
            model,
            recipe=recipe,
            source=source,
            machine=choose_machine("cpu", "float32"),
            folder=None,
            resume=False,
            start=None,
            observer=Observer(),
            begun=begun,
        )
        run.train(networks(model)[""], "")
        assert run.training.budget == 60  # as the user gave it
    assert seconds == [36.0, 12.0]


def test_expecting_the_seconds_of_scoring_changes_nothing_in_the_model(bolts: Path, quick: list[str]) -> None:
    """Batch normalisation of a network in training would learn from the images that it is timed on."""
    recipe = override(load_recipe("blemish"), [*quick, f"threshold.false_reject_rate={RATE}"])
    model = build_model(recipe, 1)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = FitRun(
        model,
        recipe=recipe,
        source=ImageSource(bolts, recipe, Observer(), None),
        machine=choose_machine("cpu", "float32"),
        folder=None,
        resume=False,
        start=None,
        observer=Observer(),
    )
    assert run._seconds_of_scoring() > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
