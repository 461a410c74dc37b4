"""JPEG encoders that are networks: learned tables, and attention over the coefficients of each image.

The systems of Strümpler, Yang, Timofte 2020 and of Liu, Liu, Mantravadi 2022, each a recipe. The names below
are imported when they are first used, so that listing recipes waits for no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blemish.jpeg.deep.network import DeepJpeg as DeepJpeg
    from blemish.jpeg.deep.network import DeepOutput as DeepOutput
    from blemish.jpeg.deep.recipe import DeepRecipe as DeepRecipe
    from blemish.jpeg.deep.recipe import deep_recipe_names as deep_recipe_names
    from blemish.jpeg.deep.recipe import load_deep_recipe as load_deep_recipe

_HOMES = {
    "DeepJpeg": "network",
    "DeepRecipe": "recipe",
    "DeepOutput": "network",
    "deep_recipe_names": "recipe",
    "load_deep_recipe": "recipe",
}

__all__ = ["DeepJpeg", "DeepOutput", "DeepRecipe", "deep_recipe_names", "load_deep_recipe"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blemish.jpeg.deep' has no attribute '{name}'")
    from blemish.extras import explain_missing

    with explain_missing():
        return getattr(import_module(f"blemish.jpeg.deep.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
