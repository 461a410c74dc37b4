"""Renamed settings and parts: what a recipe of before becomes, and the one line that says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from blemish.errors import RecipeError
from blemish.jpeg.deep.recipe import load_deep_recipe
from blemish.recipes import Recipe, load_recipe, override, parse_recipe
from blemish.recipes.compat import RenamedWarning, upgrade_recipe

OLD = {
    "name": "mine",
    "title": "Mine",
    "paper": "none",
    "expect": "little",
    "picture": {"size": 256, "scale": "common"},
    "corruption": [{"name": "blemishes", "smallest": 0.03}, {"name": "gaussian-noise"}],
    "encoder": {"name": "unet"},
    "decoder": {"name": "pointwise"},
    "loss": [{"name": "mse"}],
    "residual": {"name": "mse"},
    "memory": {"name": "structure", "pictures": 500, "alike": 25, "patch": 8},
}
NEW = {
    **{key: value for key, value in OLD.items() if key != "picture"},
    "image": {"size": 256, "scale": "common"},
    "corruption": [{"name": "synthetic-anomalies", "smallest": 0.03}, {"name": "gaussian-noise"}],
    "memory": {"name": "structure", "images": 500, "nearest_images": 25, "patch": 8},
}


def test_a_stored_recipe_is_upgraded_without_a_word_and_left_as_it_is() -> None:
    before = yaml.safe_dump(OLD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert upgrade_recipe(OLD) == NEW
        assert upgrade_recipe(NEW) == NEW
        assert upgrade_recipe({"members": ["ssim-ae", OLD]}) == {"members": ["ssim-ae", NEW]}
    assert yaml.safe_dump(OLD) == before
    assert Recipe.model_validate(upgrade_recipe(OLD)).memory == parse_recipe(NEW, "it").memory


def test_a_recipe_file_of_before_works_and_each_old_name_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(OLD), encoding="utf-8")
    with pytest.warns(RenamedWarning) as seen:
        assert load_recipe(path) == parse_recipe(NEW, "it")
    messages = sorted(str(one.message) for one in seen)
    end = "; the old name works in this release only"
    assert messages == sorted(
        f"{path}: {before} is now {now}{end}"
        for before, now in [
            ("picture", "image"),
            ("memory.pictures", "memory.images"),
            ("memory.alike", "memory.nearest_images"),
            ("corruption 'blemishes'", "'synthetic-anomalies'"),
        ]
    )


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("picture.size=100", "image.size=100"),
        ("picture={size: 100}", "image={size: 100}"),
        ("memory.alike=3", "memory.nearest_images=3"),
        ("memory.pictures=3", "memory.images=3"),
        ("memory={name: structure, alike: 3}", "memory={name: structure, nearest_images: 3}"),
        ("corruption=[{name: blemishes, most: 2}]", "corruption=[{name: synthetic-anomalies, most: 2}]"),
        ("corruption.0.name=blemishes", "corruption.0.name=synthetic-anomalies"),
    ],
)
def test_an_override_of_before_is_that_of_today(before: str, now: str) -> None:
    recipe = load_recipe("blemish")
    with pytest.warns(
        RenamedWarning, match=r"^--set.* is now .*; the old name works in this release only$"
    ) as seen:
        changed = override(recipe, [before])
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert changed == override(recipe, [now])


def test_recipes_of_jpeg_networks_are_upgraded_too(tmp_path: Path) -> None:
    data = load_deep_recipe("jpeg-lstm").model_dump(mode="json")
    data["picture"] = data.pop("image")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.warns(RenamedWarning, match="picture is now image"):
        assert load_deep_recipe(path) == load_deep_recipe("jpeg-lstm")


def test_an_old_name_beside_the_new_one_is_refused() -> None:
    with pytest.raises(RecipeError, match="unknown key 'picture'"):
        parse_recipe({**NEW, "picture": {"size": 3}}, "mine.yaml")


def test_the_command_line_says_it_in_one_line(
    blemish: Callable[..., Any], good: Path, tmp_path: Path
) -> None:
    ran = blemish("fit", good, "--out", tmp_path / "model", "--set", "picture.size=nonsense")
    notes = [line for line in ran.err.splitlines() if line.startswith("note: ")]
    assert notes == ["note: --set picture.size: is now image.size; the old name works in this release only"]
    assert "'image.size' is 'nonsense'" in ran.error
