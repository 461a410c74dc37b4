"""Lets torchvision be imported beside a torch whose build it was not made for.

Importing this module is enough, and importing any room of Blemish that uses torch does it: torchvision is
optional, but where it is installed, lightning and torchmetrics import it too.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch

# Declarations last as long as the library object that made them.
_TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")


def declare_torchvision_operators() -> None:
    """Declare the two operators that torchvision's import looks up.

    Its ordinary wheel cannot load its own operators beside a torch without CUDA, and its import fails where
    they are not declared.
    """
    try:
        own_operators = torch.version.cuda is not None or "+cpu" in version("torchvision")
    except PackageNotFoundError:
        return
    if own_operators:
        return
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _TORCHVISION.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


declare_torchvision_operators()
