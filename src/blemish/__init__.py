"""Learns what flawless images look like and shows what is wrong in new ones.

>>> import blemish
>>> blemish.load_recipe("ssim-ae").patch.size
128

``blemish.fit(folder)`` gives an :class:`~blemish.inspection.detector.Detector`, ``blemish.load(folder)`` reads one
back. The names below are imported when they are first used, so ``import blemish`` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blemish._version import __version__
from blemish.errors import BlemishError

if TYPE_CHECKING:
    from blemish import similarity as similarity
    from blemish.evaluation.evaluate import evaluate as evaluate
    from blemish.inspection.calibration import calibrate as calibrate
    from blemish.inspection.detector import Detector as Detector
    from blemish.inspection.detector import load as load
    from blemish.inspection.extract_features import extract_features as extract_features
    from blemish.inspection.features import read_features as read_features
    from blemish.inspection.folder import inspect_folder as inspect_folder
    from blemish.inspection.inspect import inspect as inspect
    from blemish.recipes import load_recipe as load_recipe
    from blemish.training.fit import fit as fit

_HOMES = {
    "Detector": "blemish.inspection.detector",
    "calibrate": "blemish.inspection.calibration",
    "evaluate": "blemish.evaluation.evaluate",
    "extract_features": "blemish.inspection.extract_features",
    "fit": "blemish.training.fit",
    "inspect": "blemish.inspection.inspect",
    "inspect_folder": "blemish.inspection.folder",
    "load": "blemish.inspection.detector",
    "load_recipe": "blemish.recipes",
    "read_features": "blemish.inspection.features",
}

_RENAMED = {"Inspector": "Detector"}
"""Former public names, which work for one release."""

__all__ = [
    "BlemishError",
    "Detector",
    "__version__",
    "calibrate",
    "evaluate",
    "extract_features",
    "fit",
    "inspect",
    "inspect_folder",
    "load",
    "load_recipe",
    "read_features",
    "similarity",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        import warnings

        now = _RENAMED[name]
        warnings.warn(
            f"blemish.{name} is now blemish.{now}; the old name goes with the next release",
            FutureWarning,
            stacklevel=2,
        )
        name = now
    if name != "similarity" and name not in _HOMES:
        raise AttributeError(f"module 'blemish' has no attribute '{name}'")
    from blemish.extras import explain_missing

    with explain_missing():
        if name == "similarity":
            return import_module("blemish.similarity")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
