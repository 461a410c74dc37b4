from __future__ import annotations

import re
from pathlib import Path

import pytest

from blemish.errors import RecipeError, UsageError
from blemish.inspection.detector import Detector
from blemish.storage.model_folder import CHECKPOINT
from blemish.training.fit import fit

RATE = 0.2
SMALL = "ssim-ae"


def test_settings_that_contradict_each_other(good: Path, tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(UsageError, match="give one"):
        fit(good, SMALL, settings=tiny, out=tmp_path / "model", resume=True, overwrite=True)
    with pytest.raises(UsageError, match="give out"):
        fit(good, SMALL, settings=tiny, resume=True)
    with pytest.raises(RecipeError, match=r"did you mean 'training\.steps'"):
        fit(good, SMALL, settings=["training.step=6"])
    with pytest.raises(RecipeError, match="did you mean 'ssim-ae'"):
        fit(good, "sim-ae")
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(UsageError, match=r"--false-reject-rate .*: choose a number between 0 and 1"):
            fit(good, SMALL, settings=tiny, false_reject_rate=rate)


def test_a_false_reject_rate_asks_for_the_rule_that_promises_it(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "threshold.rule=train-mean"], false_reject_rate=RATE)
    assert detector.rule.rule == "conformal"


@pytest.mark.parametrize("budget", ["5", "5 parsecs", "0m", "-3s", 0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_no_time_is_refused(good: Path, tiny: list[str], budget: str | float) -> None:
    with pytest.raises(UsageError, match=f"^--budget {re.escape(str(budget))}: ") as error:
        fit(good, SMALL, settings=tiny, budget=budget)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("budget", ["5 parsecs", "0m", "0", "-1", ".nan", ".inf"])
def test_a_budget_setting_that_is_no_time_is_refused(good: Path, tiny: list[str], budget: str) -> None:
    with pytest.raises(RecipeError, match=r"training\.budget.*(90s, 5m or 1h|greater than 0|finite)"):
        fit(good, SMALL, settings=[*tiny, f"training.budget={budget}"])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("encoder.latnet=8", "encoder 'bergmann' has no setting 'latnet'; did you mean 'latent'"),
        ("decoder.name=bergman", "unknown decoder 'bergman'; did you mean 'bergmann'"),
        ("patch.size=40", "needs a patch that is a multiple of 16"),
        ("loss.0.window=10", "give an odd number"),
        ("residual={name: ms-ssim}", "needs sides of at least 161 pixels"),
        ("image.size=15", "image.size 15 is less than half of patch.size 32; use at least 16"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_read_or_removed(
    good: Path, tmp_path: Path, tiny: list[str], read: list[Path], setting: str, words: str
) -> None:
    state = tmp_path / "model" / CHECKPOINT / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    with pytest.raises(RecipeError, match=re.escape(words)) as error:
        fit(
            good,
            SMALL,
            settings=[*tiny, setting],
            false_reject_rate=RATE,
            out=tmp_path / "model",
            overwrite=True,
        )
    assert "\n" not in str(error.value)
    assert read == []
    assert state.exists()


def test_without_a_recipe_images_take_blemish(posed: tuple[Detector, Path]) -> None:
    detector = posed[0]
    assert detector.recipe.name == "blemish"
    assert detector.recipe.combination == "soft-maximum"


@pytest.mark.parametrize("described", ["modalities.yaml", "scenes.yaml"])
def test_without_a_recipe_scenes_take_a_recipe_for_modalities(tmp_path: Path, described: str) -> None:
    (tmp_path / described).write_text("")
    source = tmp_path if described == "modalities.yaml" else tmp_path / described
    with pytest.raises(RecipeError, match=r"^other-pixels: training\.trim 0\.1 is for images"):
        fit(source, settings=["training.trim=0.1"])
