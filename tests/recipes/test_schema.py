"""Overrides, as --set takes them."""

from __future__ import annotations

import pytest

from blemish.errors import RecipeError
from blemish.recipes import load_recipe, override

SSIM = load_recipe("ssim-ae")


def test_nested_list_and_part_settings_are_set() -> None:
    changed = override(
        SSIM,
        [
            "training.steps=7",
            "training.learning_rate=1e-3",
            "image.size=null",
            "loss.0.weight=2.5",
            "loss.0.sigma=3",
            "encoder.latent=500",
            "residual={name: ms-ssim, window: 7}",
            " score.name =mean",
        ],
    )
    assert changed.training.steps == 7
    assert changed.training.learning_rate == 1e-3
    assert changed.image.size is None
    assert (changed.loss[0].weight, changed.loss[0].settings) == (
        2.5,
        {"window": 11, "constants": "bergmann", "sigma": 3},
    )
    assert changed.encoder.settings == {"latent": 500}
    assert (changed.residual.name, changed.residual.settings) == ("ms-ssim", {"window": 7})
    assert changed.score.name == "mean"


def test_the_recipe_itself_and_all_other_keys_stay() -> None:
    before = SSIM.model_dump()
    changed = override(SSIM, ["training.steps=7"])
    assert SSIM.model_dump() == before
    assert changed.model_dump() == {**before, "training": {**before["training"], "steps": 7}}
    assert override(SSIM, []) == SSIM


def test_the_last_of_two_assignments_counts() -> None:
    assert override(SSIM, ["training.steps=7", "training.steps=8"]).training.steps == 8


def test_a_list_of_terms_can_be_replaced() -> None:
    changed = override(SSIM, ["loss=[{name: mse, weight: 0.5}, {name: ssim}]"])
    assert [(term.name, term.weight) for term in changed.loss] == [("mse", 0.5), ("ssim", 1.0)]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.steps", "--set training.steps: write it as key=value"),
        ("=3", "--set =3: write it as key=value"),
        ("training.steps=[1", "--set training.steps=[1: the value is not valid YAML"),
        ("name=2024-13-45", "--set name=2024-13-45: the value is not valid YAML"),
        ("training.stepss=3", "unknown key 'training.stepss'; did you mean 'training.steps'?"),
        ("tranning.steps=3", "unknown key 'tranning'; did you mean 'training'?"),
        ("encoder.inner.x=3", "unknown key 'encoder.inner'; there are name, latent"),
        ("training.steps.x=3", "'training.steps' has no keys of its own"),
        ("loss.1.weight=3", "--set loss.1.weight: '1' is no place in a list of 1; use 0"),
        ("loss.first=3", "--set loss.first: 'first' is no place in a list of 1; use 0"),
        ("training.steps=soon", "'training.steps' is 'soon': input should be a valid integer"),
        ("training.steps=null", "'training.steps' is None: "),
        ("training=3", "'training' is 3: write keys and values"),
        ("loss.0=mse", "'loss.0' is 'mse': write keys and values"),
        ("encoder={latent: 3}", "key 'encoder.name' is missing"),
        ("patch.size=32", "patch.stride 64 leaves gaps between patches of 32"),
        ("image.size=32", "image.size 32 is less than half of patch.size 128; use at least 64"),
        ("threshold.rule=fixed", "threshold.rule 'fixed' needs threshold.value"),
    ],
)
def test_a_bad_assignment_is_refused_in_one_line(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        override(SSIM, [assignment])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_steps_that_are_asked_for_take_the_place_of_a_budget() -> None:
    recipe = load_recipe("blemish")
    assert recipe.training.budget is not None
    assert override(recipe, ["training.batch=4"]).training.budget == recipe.training.budget
    asked = override(recipe, ["training.steps=7", "training.batch=4"]).training
    assert (asked.steps, asked.budget) == (7, None)
    for both in (["training.steps=7", "training.budget=2m"], ["training.budget=2m", "training.steps=7"]):
        assert override(recipe, both).training.budget == 120
