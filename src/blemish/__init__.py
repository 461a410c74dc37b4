"""Learns what flawless pictures look like and shows what is wrong in new ones.

>>> import blemish
>>> blemish.load_recipe("ssim-ae").patch.size
128

``blemish.fit(folder)`` gives an :class:`~blemish.inspector.Inspector`, ``blemish.load(folder)`` reads one
back. The names below are imported when they are first used, so ``import blemish`` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blemish._version import __version__
from blemish.errors import BlemishError

if TYPE_CHECKING:
    from blemish import similarity as similarity
    from blemish.evaluating import evaluate as evaluate
    from blemish.fitting import fit as fit
    from blemish.inspecting import inspect_folder as inspect_folder
    from blemish.inspector import Inspector as Inspector
    from blemish.inspector import load as load
    from blemish.recipes import load_recipe as load_recipe

_HOMES = {
    "Inspector": "blemish.inspector",
    "evaluate": "blemish.evaluating",
    "fit": "blemish.fitting",
    "inspect_folder": "blemish.inspecting",
    "load": "blemish.inspector",
    "load_recipe": "blemish.recipes",
}

__all__ = [
    "BlemishError",
    "Inspector",
    "__version__",
    "evaluate",
    "fit",
    "inspect_folder",
    "load",
    "load_recipe",
    "similarity",
]


def __getattr__(name: str) -> Any:
    if name != "similarity" and name not in _HOMES:
        raise AttributeError(f"module 'blemish' has no attribute '{name}'")
    from blemish.checks import explain_missing

    with explain_missing():
        if name == "similarity":
            return import_module("blemish.similarity")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
