"""Former home of the functions for scenes, which works for one release; they are public names of the package now."""

from __future__ import annotations

import warnings
from typing import Any

_NOW = {"extract_features": "extract_features", "inspect_panels": "inspect", "read_features": "read_features"}


def __getattr__(name: str) -> Any:
    if name not in _NOW:
        raise AttributeError(f"module 'blemish.panels' has no attribute '{name}'")
    import blemish

    now = _NOW[name]
    warnings.warn(
        f"blemish.panels.{name} is now blemish.{now}; the old name goes with the next release",
        FutureWarning,
        stacklevel=2,
    )
    return getattr(blemish, now)
