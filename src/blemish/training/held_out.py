"""Means over the held-out patches of a training: the loss, its terms, and what a model measures beside it."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from blemish.models import Loss
from blemish.training.contracts import Measured, Trainable


def mean_loss(wrapped: Any, batches: list[Tensor], fabric: Fabric) -> tuple[float, dict[str, float]]:
    """Means over the patches of ``batches``: of the loss, and of each of its terms."""
    total, terms = 0.0, dict[str, float]()
    wrapped.eval()
    with torch.no_grad(), fabric.autocast():
        for batch in batches:
            loss: Loss = wrapped.loss(fabric.to_device(batch))
            total += float(loss.total) * len(batch)
            for name, term in loss.terms.items():
                terms[name] = terms.get(name, 0.0) + float(term) * len(batch)
    wrapped.train()
    count = sum(len(batch) for batch in batches)
    return total / count, {name: value / count for name, value in terms.items()}


def mean_measures(model: Trainable, wrapped: Any, batches: list[Tensor], fabric: Fabric) -> dict[str, float]:
    """Means over the patches of ``batches`` of what a model measures beside its loss."""
    if not isinstance(model, Measured):
        return {}
    sums: dict[str, float] = {}
    wrapped.eval()
    with torch.no_grad(), fabric.autocast():
        for batch in batches:
            for name, value in model.measures(fabric.to_device(batch)).items():
                sums[name] = sums.get(name, 0.0) + value * len(batch)
    wrapped.train()
    count = sum(len(batch) for batch in batches)
    return {name: value / count for name, value in sums.items()}
