"""Panels: scenes of several registered sensors, read by windows and never whole.

The names below are imported when they are first used: reading panels and features needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blemish.panels.extracting import Extraction as Extraction
    from blemish.panels.extracting import extract_features as extract_features
    from blemish.panels.features import Features as Features
    from blemish.panels.features import read_features as read_features
    from blemish.panels.inspecting import PanelExaminer as PanelExaminer
    from blemish.panels.inspecting import PanelInspection as PanelInspection
    from blemish.panels.inspecting import PanelRecord as PanelRecord
    from blemish.panels.inspecting import inspect_panels as inspect_panels
    from blemish.panels.reading import Panel as Panel

_HOMES = {
    "Extraction": "extracting",
    "Features": "features",
    "Panel": "reading",
    "PanelExaminer": "inspecting",
    "PanelInspection": "inspecting",
    "PanelRecord": "inspecting",
    "extract_features": "extracting",
    "inspect_panels": "inspecting",
    "read_features": "features",
}

__all__ = [
    "Extraction",
    "Features",
    "Panel",
    "PanelExaminer",
    "PanelInspection",
    "PanelRecord",
    "extract_features",
    "inspect_panels",
    "read_features",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blemish.panels' has no attribute '{name}'")
    from blemish.checks import explain_missing

    with explain_missing():
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
