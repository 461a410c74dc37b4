"""Make torchvision importable beside a torch build that it was not compiled for.

Importing this module is enough, and every subpackage that uses torch imports it: torchvision is
optional, but where it is installed, lightning and torchmetrics import it too.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec

import torch


def _lacks_operators() -> bool:
    """Whether torchvision is installed but the library of its operators is missing or cannot be loaded.

    Only loading the library shows it. A library that loads has declared its operators, and torch ends the process
    if one is declared twice; torchvision later loads the same file again, which does nothing.
    """
    package = find_spec("torchvision")  # does not import it
    if package is None:
        return False
    library = PathFinder.find_spec("_C", package.submodule_search_locations)  # _C.so, _C.pyd, …
    if library is None or library.origin is None:
        return True
    try:
        torch.ops.load_library(library.origin)  # type: ignore[no-untyped-call]
    except OSError:  # built for another torch, or for a missing CUDA
        return True
    return False


if _lacks_operators():
    # The two operators that its import looks up; it fails if they are not declared.
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            torch.library.define(
                f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
