"""Files of recipes: YAML of the package, by name, or of the user, by path."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from blemish.errors import FileError, RecipeError, nearest

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SHIPPED = resources.files("blemish.recipes")
"""Folder of the recipes of detectors that come with Blemish."""


def names_in(folder: Traversable) -> tuple[str, ...]:
    """Names of the recipes in a folder of the package, sorted."""
    files = (file.name for file in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml")))


def read_yaml(folder: Traversable, name: str | Path) -> Any:
    """Content of the recipe ``name`` in ``folder`` of the package, or of the ``.yaml`` file with that path.

    Raises
    ------
    RecipeError
        For an unknown name (the nearest is suggested), or a file that is not valid YAML.
    FileError
        When a ``.yaml`` path cannot be read.
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
    elif source in (names := names_in(folder)):
        text = (folder / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        raise RecipeError(f"unknown recipe '{source}'; {nearest(source, names)}")
    try:
        return yaml.safe_load(text)
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: a date that is none, such as 2024-13-45
        reason = " ".join(str(error).split())
        raise RecipeError(f"{source}: not valid YAML ({reason}); correct it there") from None
