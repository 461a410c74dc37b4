"""Lets torchvision be imported beside a torch whose build it was not made for.

Importing this module is enough, and importing any room of Blemish that uses torch does it: torchvision is
optional, but where it is installed, lightning and torchmetrics import it too.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch


def _lacks_operators() -> bool:
    """Whether an ordinary torchvision stands beside a torch without CUDA, and cannot load its own operators."""
    try:
        return torch.version.cuda is None and "+cpu" not in version("torchvision")
    except PackageNotFoundError:
        return False


if _lacks_operators():
    # The two that its import looks up, and fails where they are not declared.
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            torch.library.define(
                f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
