"""Sums of the loss terms of a training between two reports."""

from __future__ import annotations

import torch
from torch import Tensor

from blemish.models import Loss
from blemish.training.processes import Processes


class LossReport:
    """Loss terms since ``begun``, in seconds of the clock of the training."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.count = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, loss: Loss) -> None:
        """Add the terms of one step."""
        self.count += 1
        for name, term in loss.terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(term)) + term.detach()

    def means(self, processes: Processes) -> dict[str, float]:
        """Means over the steps, and over the processes that train together."""
        if processes.count > 1 and self._sums:
            whole = processes.mean(torch.stack([total.float() for total in self._sums.values()]))
            self._sums = dict(zip(self._sums, whole, strict=True))
        return {name: float(total) / self.count for name, total in self._sums.items()}
