"""Ensemble of anomaly models that can be fitted; see :mod:`~blemish.detectors.combination` for what it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from blemish.detectors.combination import CombinationRule, CombinedModel
from blemish.detectors.contracts import (
    AnomalyModel,
    FitRecord,
    FittingRun,
    Floats,
    TrainableModel,
    TrainingSource,
)
from blemish.detectors.map_normaliser import MapNormaliser
from blemish.detectors.memory_bank import MemoryBank
from blemish.errors import UsageError

M = TypeVar("M")


class EnsembleSelection(Protocol):
    """Fit of an ensemble: of its members, and of its normalisers, scales and weights."""

    def __call__(self, ensemble: Ensemble, source: TrainingSource, run: FittingRun) -> FitRecord: ...


class Ensemble(nn.Module, CombinedModel):
    """Anomaly model of several members, each with its normaliser, scale and weight.

    Members of an ensemble among the ``members`` take its place.

    Parameters
    ----------
    members: any anomaly models, in torch or not; at least one.
    names: of the members, for notes to the user.
    selection: called by :meth:`fit`.
    combination: of the members' maps: ``weighted-mean`` or ``soft-maximum``, as
        :class:`~blemish.detectors.combination.CombinedModel` has them.
    score: rule of the detector, which a soft maximum combines the members by; a multiple of a map has that multiple of
        its score.
    """

    scales: Tensor
    powers: Tensor

    def __init__(
        self,
        members: Sequence[AnomalyModel],
        *,
        names: Sequence[str] = (),
        selection: EnsembleSelection | None = None,
        combination: CombinationRule = "weighted-mean",
        score: Callable[[Floats], float] | None = None,
    ) -> None:
        super().__init__()
        self.score = score
        self.combination = combination
        self.models: list[AnomalyModel] = []
        self.names: list[str] = []
        for number, member in enumerate(members):
            name = names[number] if names else f"model {number + 1}"
            if isinstance(member, Ensemble):
                self.models += member.models
                self.names += [f"{name}: {inner}" for inner in member.names]
            else:
                self.models.append(member)
                self.names.append(name)
        self.selection = selection
        # Only what is a torch module has weights to save.
        self.members = nn.ModuleDict(
            {str(number): model for number, model in enumerate(self.models) if isinstance(model, nn.Module)}
        )
        self.normalisers = nn.ModuleDict(
            {
                str(number): MapNormaliser()
                for number, model in enumerate(self.models)
                if combination == "weighted-mean" and not getattr(model, "is_normalised", False)
            }
        )
        self.register_buffer("scales", torch.ones(len(self.models)))
        if combination == "soft-maximum":
            self.register_buffer("powers", torch.ones(len(self.models)))
        for number in range(len(self.models)):
            self.register_buffer(f"weight_{number}", torch.tensor(0.0))
        self.reset_weights()

    @property
    def weights(self) -> list[float]:
        """Weights of the members in their order; their sum is 1."""
        return [self.get_buffer(f"weight_{number}").item() for number in range(len(self.models))]

    @property
    def banks(self) -> dict[int, MemoryBank]:
        """Numbers of the members that are memory banks."""
        return {number: model for number, model in enumerate(self.models) if isinstance(model, MemoryBank)}

    @property
    def others(self) -> dict[int, AnomalyModel]:
        """Numbers of the other members."""
        return {
            number: model for number, model in enumerate(self.models) if not isinstance(model, MemoryBank)
        }

    # -- the combination ---------------------------------------------------------------------------

    @property
    def scale_values(self) -> list[float]:
        return self.scales.tolist()

    @property
    def power_values(self) -> list[float]:
        return self.powers.tolist()

    @property
    def is_compressed(self) -> list[bool]:
        return [str(number) in self.normalisers for number in range(len(self.models))]

    def normalised(self, number: int, values: Floats) -> Floats:
        name = str(number)
        return (
            cast(MapNormaliser, self.normalisers[name]).scale(values) if name in self.normalisers else values
        )

    # -- fitting -----------------------------------------------------------------------------------

    def set_weights(
        self, scales: Sequence[float], weights: Sequence[float], powers: Sequence[float] | None = None
    ) -> None:
        """Set scale and weight of each member, and its power where the combination is the soft maximum.

        The first weight is what the others leave of 1 in the single precision in which they are saved.
        """
        device = self.scales.device
        rest = [float(np.float32(weight)) for weight in weights[1:]]
        self.scales = torch.tensor(list(scales), dtype=torch.float32, device=device)
        if self.combination == "soft-maximum":
            values = [1.0] * len(self.models) if powers is None else list(powers)
            self.powers = torch.tensor(values, dtype=torch.float32, device=device)
        for number, weight in enumerate([1 - sum(rest), *rest]):
            setattr(self, f"weight_{number}", torch.tensor(weight, device=device))

    def reset_weights(self) -> None:
        """Reset normalisers and scales; equal weights of the members that keep no good images, or of all others."""
        for normaliser in self.normalisers.values():
            cast(MapNormaliser, normaliser).reset()
        counting = self.networks or range(len(self.models))
        self.set_weights(
            [1.0] * len(self.models),
            [1 / len(counting) if number in counting else 0.0 for number in range(len(self.models))],
        )

    def reset(self) -> None:
        for model in self.models:
            if isinstance(model, TrainableModel):
                model.reset()
        self.reset_weights()

    def fit(self, source: TrainingSource, run: FittingRun) -> FitRecord:
        """Reset all members, then let the selection fit them and set the weights."""
        if self.selection is None:
            raise UsageError("an ensemble without a selection cannot be fitted")
        self.reset()
        return self.selection(self, source, run)


def for_inspection(model: M, device: str = "cpu") -> M:
    """``model`` in evaluation mode on ``device``, in place; one that is no torch module is returned as it is."""
    if isinstance(model, nn.Module):
        model.eval().to(device)
        # In this layout convolutions run up to twice as fast on CPUs.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
