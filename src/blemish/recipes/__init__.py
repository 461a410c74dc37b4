"""The methods: one YAML each, compositions of registered parts."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from blemish.errors import FileError, RecipeError, nearest
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

_HERE = resources.files(__name__)


@cache
def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with Blemish, sorted."""
    return names_in(_HERE)


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
    return load_from(_HERE, Recipe, name)


def names_in(folder: Traversable) -> tuple[str, ...]:
    """Names of the recipes in a folder of the package, sorted."""
    files = (file.name for file in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def load_from(folder: Traversable, model: type[R], name: str | Path) -> R:
    """:func:`load_recipe` for another schema, whose recipes lie in another folder of the package."""
    source = str(name)
    if source.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise FileError(path, f"recipe cannot be read ({error.strerror})", "check the path") from None
        except UnicodeDecodeError:
            raise FileError(path, "recipe is not UTF-8 text", "save it as UTF-8") from None
    elif source in (names := names_in(folder)):
        text = (folder / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        raise RecipeError(f"unknown recipe '{source}'; {nearest(source, names)}")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, such as 2024-13-45
        reason = " ".join(str(error).split())
        raise RecipeError(f"{source}: not valid YAML ({reason}); mend it there") from None
    return parse(model, data, source)
