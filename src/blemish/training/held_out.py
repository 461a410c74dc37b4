"""Means over the held-out patches of a training: the loss, its terms, and what a model measures beside it."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from blemish.models import Loss
from blemish.training.contracts import Measured, Trainable
from blemish.training.processes import Processes


def mean_loss(
    wrapped: Any, batches: list[Tensor], fabric: Fabric, processes: Processes | None = None
) -> tuple[float, dict[str, float]]:
    """Means over the patches of ``batches``: of the loss, and of each of its terms.

    With ``processes`` each of them computes its share of the batches, and all have the means over all.
    """
    total, terms = 0.0, dict[str, float]()
    wrapped.eval()
    with torch.no_grad(), fabric.autocast():
        for batch in _share(batches, processes):
            loss: Loss = wrapped.loss(fabric.to_device(batch))
            total += float(loss.total) * len(batch)
            for name, term in loss.terms.items():
                terms[name] = terms.get(name, 0.0) + float(term) * len(batch)
    wrapped.train()
    means = _means({"": total, **terms}, batches, fabric, processes)
    return means.pop(""), means


def mean_measures(
    model: Trainable, wrapped: Any, batches: list[Tensor], fabric: Fabric, processes: Processes | None = None
) -> dict[str, float]:
    """Means over the patches of ``batches`` of what a model measures beside its loss."""
    if not isinstance(model, Measured):
        return {}
    sums: dict[str, float] = {}
    wrapped.eval()
    with torch.no_grad(), fabric.autocast():
        for batch in _share(batches, processes):
            for name, value in model.measures(fabric.to_device(batch)).items():
                sums[name] = sums.get(name, 0.0) + value * len(batch)
    wrapped.train()
    return _means(sums, batches, fabric, processes)


def draws_held_out(model: nn.Module) -> bool:
    """True if a term of the loss goes on drawing from batch to batch, so that each process needs all of them."""
    return any(getattr(module, "draws_held_out", False) for module in model.modules())


def _share(batches: list[Tensor], processes: Processes | None) -> list[Tensor]:
    """Batches of this process; all where each has not at least one."""
    if processes is None or processes.count > len(batches):
        return batches
    return batches[processes.rank :: processes.count]


def _means(
    sums: dict[str, float], batches: list[Tensor], fabric: Fabric, processes: Processes | None
) -> dict[str, float]:
    """``sums`` over the batches of this process, as means over the patches of all."""
    count = sum(len(batch) for batch in batches)
    if processes is not None and 1 < processes.count <= len(batches):
        own = torch.tensor(list(sums.values()), dtype=torch.float64, device=fabric.device)
        whole = (processes.mean(own) * processes.count).tolist()
        sums = dict(zip(sums, whole, strict=True))
    return {name: value / count for name, value in sums.items()}
