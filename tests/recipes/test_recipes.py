from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import yaml

from blemish.errors import FileError, RecipeError
from blemish.recipes import Recipe, load_recipe, parse_recipe, recipe_names

MINIMAL = {
    "name": "mine",
    "title": "Mine",
    "paper": "none",
    "expect": "little",
    "encoder": {"name": "bergmann"},
    "decoder": {"name": "bergmann"},
    "loss": [{"name": "mse"}],
    "residual": {"name": "mse"},
}


def refusal(data: object) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(data, "mine.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")
    return str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses_and_bears_the_name_of_its_file(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.paper
    assert recipe.expect


def test_names_are_the_yaml_files_in_order() -> None:
    files = [file.name for file in resources.files("blemish.recipes").iterdir()]
    assert list(recipe_names()) == sorted(name[:-5] for name in files if name.endswith(".yaml"))
    assert {"l2-ae", "ssim-ae"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_survives_json_and_yaml(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), "again") == recipe


def test_the_papers_settings() -> None:
    ssim, l2 = load_recipe("ssim-ae"), load_recipe("l2-ae")
    assert ssim.patch.size == l2.patch.size == 128
    assert ssim.encoder.settings == l2.encoder.settings == {"latent": 100}
    assert (ssim.residual.name, ssim.loss[0].name) == ("ssim", "ssim")
    assert ssim.residual.settings == ssim.loss[0].settings == {"window": 11, "constants": "bergmann"}
    assert (l2.residual.name, l2.loss[0].name) == ("mse", "mse")
    assert ssim.training.learning_rate == l2.training.learning_rate == 2e-4
    assert ssim.training.weight_decay == l2.training.weight_decay == 1e-5


@pytest.mark.parametrize("name", ["ssimae", "SSIM-AE", "ssim_ae"])
def test_an_unknown_name_gets_the_nearest(name: str) -> None:
    with pytest.raises(RecipeError, match=f"^unknown recipe '{name}'; did you mean 'ssim-ae'\\?$"):
        load_recipe(name)


def test_a_name_like_no_other_gets_the_whole_list() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("zzzz")
    assert ", ".join(recipe_names()) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"stepps": 3}}, "unknown key 'training.stepps'; did you mean 'training.steps'?"),
        ({"trainin": {}}, "unknown key 'trainin'; did you mean 'training'?"),
        ({"patch": {"zzz": 3}}, "unknown key 'patch.zzz'; there are size, stride"),
        ({"training": {"steps": 0}}, "'training.steps' is 0: input should be greater than or equal to 1"),
        ({"training": {"steps": "many"}}, "'training.steps' is 'many': input should be a valid integer"),
        ({"training": {"learning_rate": float("inf")}}, "'training.learning_rate' is inf: "),
        ({"training": {"learning_rate": float("nan")}}, "'training.learning_rate' is nan: "),
        ({"training": {"device": "tpu"}}, "'training.device' is 'tpu': input should be 'auto', 'cpu'"),
        (
            {"training": {"decay": 0.1}},
            "training.decay 0.1 has no use with training.schedule 'constant'; set ",
        ),
        ({"loss": []}, "'loss' is []: "),
        ({"loss": [{"name": "mse", "weight": 0}]}, "'loss.0.weight' is 0: input should be greater than 0"),
        ({"loss": [{"weight": 1}]}, "key 'loss.0.name' is missing"),
        ({"encoder": "bergmann"}, "'encoder' is 'bergmann': write keys and values"),
        ({"version": 2}, "'version' is 2: input should be 1"),
        ({"patch": {"size": 64, "stride": 65}}, "patch.stride 65 leaves gaps between patches of 64"),
        ({"threshold": {"rule": "fixed"}}, "threshold.rule 'fixed' needs threshold.value"),
        ({"threshold": {"rule": "fixed", "value": float("nan")}}, "'threshold.value' is nan: "),
        ({"threshold": {"false_reject_rate": 1}}, "'threshold.false_reject_rate' is 1: "),
    ],
)
def test_a_faulty_key_is_named_in_one_line(change: dict[str, object], message: str) -> None:
    parse_recipe(MINIMAL, "mine.yaml")
    assert refusal({**MINIMAL, **change}).startswith(f"mine.yaml: {message}")


def test_a_missing_key_is_named() -> None:
    assert refusal({key: MINIMAL[key] for key in MINIMAL if key != "residual"}) == (
        "mine.yaml: key 'residual' is missing"
    )


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_a_document_without_keys_is_refused(data: object) -> None:
    assert "write keys and values" in refusal(data)


def test_neighbouring_patches_may_touch_and_a_fixed_rule_may_have_its_value() -> None:
    recipe = parse_recipe(
        {**MINIMAL, "patch": {"size": 64, "stride": 64}, "threshold": {"rule": "fixed", "value": 0.0}}, "it"
    )
    assert (recipe.patch.stride, recipe.threshold.value) == (64, 0.0)


def test_your_own_recipe_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL), encoding="utf-8")
    assert load_recipe(path) == load_recipe(str(path)) == parse_recipe(MINIMAL, "it")


@pytest.mark.parametrize(
    ("text", "message"),
    [("name: [", "not valid YAML"), ("name: 2024-13-45", "not valid YAML"), ("", "write keys and values")],
)
def test_your_own_recipe_that_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_your_own_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes("name: schön".encode("latin-1"))
    for name, problem in [
        ("gone.yml", "No such file"),
        ("folder.yaml", "directory"),
        ("latin.yaml", "UTF-8"),
    ]:
        with pytest.raises(FileError, match=problem) as caught:
            load_recipe(tmp_path / name)
        assert str(caught.value).count(str(tmp_path)) == 1
