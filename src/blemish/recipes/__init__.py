"""The methods: one YAML each, compositions of registered parts."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from blemish.errors import FileError, RecipeError, nearest
from blemish.recipes.schema import LossTerm, Part, Recipe, ScoreSettings, override, parse_recipe

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
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


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
    source = str(name)
    if source.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise FileError(path, f"recipe cannot be read ({error.strerror})", "check the path") from None
        except UnicodeDecodeError:
            raise FileError(path, "recipe is not UTF-8 text", "save it as UTF-8") from None
    elif source in recipe_names():
        text = (resources.files(__name__) / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        raise RecipeError(f"unknown recipe '{source}'; {nearest(source, recipe_names())}")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, such as 2024-13-45
        reason = " ".join(str(error).split())
        raise RecipeError(f"{source}: not valid YAML ({reason}); mend it there") from None
    return parse_recipe(data, source)
