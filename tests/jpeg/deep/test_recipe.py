from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from blemish.errors import FileError, RecipeError
from blemish.jpeg.deep import DeepRecipe, deep_recipe_names, load_deep_recipe
from blemish.recipes import override

NAMES = (
    "jpeg-bilstm",
    "jpeg-lstm",
    "jpeg-resnet152-block1",
    "jpeg-resnet152-block7",
    "jpeg-tables",
    "jpeg-vgg19",
)
LSTM = load_deep_recipe("jpeg-lstm")


def refusal(*assignments: str) -> str:
    with pytest.raises(RecipeError) as caught:
        override(LSTM, list(assignments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_recipes_are_the_six_of_the_papers() -> None:
    assert deep_recipe_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_bears_its_name_and_survives_json_and_yaml(name: str) -> None:
    recipe = load_deep_recipe(name)
    assert recipe.name == name
    assert DeepRecipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert DeepRecipe.model_validate(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json")))) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_settings(name: str) -> None:
    recipe = load_deep_recipe(name)
    assert recipe.lambdas == (0.001, 0.0025, 0.005, 0.01, 0.05, 0.1)
    assert (recipe.loss.sigma, recipe.loss.gamma, recipe.loss.alpha, recipe.loss.beta) == (1000, 500, 10, 1)
    assert (recipe.tables.initial, recipe.tables.lowest, recipe.tables.highest) == ("uniform", 1, 255)
    assert (recipe.image.sampling, recipe.patch.size) == ("4:4:4", 224)
    training = recipe.training
    assert (training.steps, training.batch, training.learning_rate) == (20_000, 8, 1e-6)
    assert (training.weight_decay, training.schedule) == (0, "constant")
    assert training.validate_every * training.patience >= training.steps  # all steps are made


def test_the_pace_of_the_tables_is_the_papers_step_at_the_middle_of_their_range() -> None:
    paper = 1e-6 / 1e-5  # of Q a step, as p = 1e-5 Q moves by 1e-6
    middle = (1 * 255) ** 0.5
    assert LSTM.training.learning_rate * LSTM.tables.pace * middle == pytest.approx(paper, rel=0.05)


def test_recipes_list_the_imagenet_weights_that_they_need() -> None:
    for name in NAMES:
        recipe = load_deep_recipe(name)
        assert ("weights" in recipe.needs) == (recipe.attention.settings.get("weights") == "imagenet")
        assert "lpips" in recipe.needs


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["lambdas=[]"], "--set: 'lambdas' is []: "),
        (["lambdas=[0.1, 0]"], "--set: 'lambdas.1' is 0: input should be greater than 0"),
        (["lambdas=[0.1, 0.2, 0.1]"], "--set: lambdas [0.1, 0.2, 0.1] name one twice; give each once"),
        (["tables.lowest=9", "tables.highest=9"], "--set: tables.lowest 9 is not below tables.highest 9; "),
        (["tables.lowest=0"], "--set: 'tables.lowest' is 0: "),
        (["tables.initial=flat"], "--set: 'tables.initial' is 'flat': "),
        (["tables.pacce=3"], "--set: unknown key 'tables.pacce'; did you mean 'tables.pace'?"),
        (["loss={gama: 1}"], "--set: unknown key 'loss.gama'; did you mean 'loss.gamma'?"),
        (["loss.reading=liu2020"], "--set: 'loss.reading' is 'liu2020': input should be 'liu2022' or "),
        (["image.sampling=4:2:2"], "--set: 'image.sampling' is 14522: input should be '4:4:4' or "),
        (["attention=lstm"], "--set: 'attention' is 'lstm': write keys and values"),
        (
            ["patch.size=160"],
            "--set: patch.size 160 is too small for the five scales of MS-SSIM; use at least 161",
        ),
    ],
)
def test_impossible_settings_are_refused_in_one_line(assignments: list[str], message: str) -> None:
    assert refusal(*assignments).startswith(message)


def test_without_ms_ssim_patches_may_be_small() -> None:
    assert override(LSTM, ["loss.sigma=0", "patch.size=32"]).patch.size == 32
    assert override(LSTM, ["patch.size=161"]).patch.size == 161


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_a_sampling_needs_no_quotes(sampling: str) -> None:
    assert override(LSTM, [f"image.sampling={sampling}"]).image.sampling == sampling
    assert override(LSTM, [f"image.sampling='{sampling}'"]).image.sampling == sampling


def test_parts_and_lists_are_overridden_as_in_other_recipes() -> None:
    changed = override(LSTM, ["attention={name: resnet152, block: 7}", "lambdas.0=0.002", "training.steps=9"])
    assert isinstance(changed, DeepRecipe)
    assert (changed.attention.name, changed.attention.settings) == ("resnet152", {"block": 7})
    assert (changed.lambdas[0], changed.training.steps) == (0.002, 9)
    assert override(LSTM, ["attention.start=0.9"]).attention.settings == {"hidden": 64, "start": 0.9}


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"^unknown recipe 'jpeg-vgg16'; did you mean 'jpeg-vgg19'\?$"):
        load_deep_recipe("jpeg-vgg16")


def test_your_own_recipe_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(LSTM.model_dump(mode="json")), encoding="utf-8")
    assert load_deep_recipe(path) == LSTM
    with pytest.raises(FileError, match=r"gone\.yaml: recipe cannot be read"):
        load_deep_recipe(tmp_path / "gone.yaml")


def test_recipes_are_read_without_torch() -> None:
    code = "import sys, blemish.jpeg.deep as d; d.load_deep_recipe('jpeg-lstm'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
