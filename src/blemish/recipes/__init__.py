"""The methods: one YAML each, compositions of registered parts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.recipes.files import SHIPPED, names_in, read_yaml
from blemish.recipes.schema import LossTerm, Part, R, Recipe, ScoreSettings, override, parse, parse_recipe

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = [
    "LossTerm",
    "Part",
    "Recipe",
    "ScoreSettings",
    "load_recipe",
    "override",
    "parse_recipe",
    "recipe_names",
]


@cache
def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with Blemish, sorted."""
    return names_in(SHIPPED)


def load_recipe(name: str | Path) -> Recipe:
    """A recipe that comes with Blemish, by name, or one of your own, by the path of its ``.yaml`` file.

    Raises
    ------
    RecipeError
        For an unknown name (the nearest is suggested) or a key that does not fit.
    FileError
        When a ``.yaml`` path cannot be read.

    Examples
    --------
    >>> load_recipe("ssim-ae").title
    'SSIM autoencoder'
    """
    return load_from(SHIPPED, Recipe, name)


def load_from(folder: Traversable, model: type[R], name: str | Path) -> R:
    """:func:`load_recipe` for another schema, whose recipes lie in another folder of the package."""
    return parse(model, read_yaml(folder, name), str(name))
