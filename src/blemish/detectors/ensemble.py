"""Ensemble of anomaly models: their maps on one scale, weighted and added.

The map n of a member that is not normalised yet (a residual, a probability) is read in spreads of held-out good images,
n = max(0, value - mean) / spread, and counts by log₂(1 + n / scale); the map m of one that is (a memory bank) counts by
m / scale. Both are 1 at their scale, the score that most held-out good images stay below. Beyond it only doublings of n
count: a network deviates by hundreds of scales, now and then on a good image that is merely lit in another way, where the
distances of a memory bank reach two or three.

The other combination, the soft maximum, is described in :mod:`~blemish.detectors.soft_maximum`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from blemish.detectors.contracts import (
    AnomalyMaps,
    AnomalyModel,
    FitRecord,
    FittingRun,
    Floats,
    TrainableModel,
    TrainingSource,
)
from blemish.detectors.filter_bank import FilterBank
from blemish.detectors.map_normaliser import MapNormaliser
from blemish.detectors.memory_bank import MemoryBank
from blemish.errors import UsageError

FADING = 0.02
"""Share of its scale below which a map fades under the soft maximum."""
LARGEST = 30.0
"""Largest logarithm of a term of the soft maximum."""

M = TypeVar("M")
Combination = Literal["weighted-mean", "soft-maximum"]


class EnsembleSelection(Protocol):
    """Fit of an ensemble: of its members, and of its normalisers, scales and weights."""

    def __call__(self, ensemble: Ensemble, source: TrainingSource, run: FittingRun) -> FitRecord: ...


class Ensemble(nn.Module):
    """Anomaly model of several members, each with its normaliser, scale and weight.

    Reconstruction and maps of single modalities are those of the first member that is no memory bank. Members of an
    ensemble among the ``members`` take its place.

    Parameters
    ----------
    members: any anomaly models, in torch or not; at least one.
    names: of the members, for notes to the user.
    selection: called by :meth:`fit`.
    combination: of the members' maps: ``weighted-mean`` (:func:`combined`) or ``soft-maximum`` (:meth:`soft_maximum`).
    score: rule of the detector, which a soft maximum combines the members by; a multiple of a map has that multiple of
        its score.
    """

    scales: Tensor
    powers: Tensor
    is_normalised = True

    def __init__(
        self,
        members: Sequence[AnomalyModel],
        *,
        names: Sequence[str] = (),
        selection: EnsembleSelection | None = None,
        combination: Combination = "weighted-mean",
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

    # -- the anomaly model -------------------------------------------------------------------------

    @property
    def title(self) -> str:
        return ", with ".join(dict.fromkeys(self.models[number].title for number in self._used))

    @property
    def takes_absent(self) -> bool:
        return all(model.takes_absent for model in self.models)

    @property
    def _reconstructing(self) -> int:
        """Number of the member whose reconstruction is shown; of banks alone, the one that counts most."""
        return next(iter(self._networks), int(np.argmax(self.weights)))

    @property
    def _networks(self) -> list[int]:
        """Numbers of the members that keep no good images, and need none to give a map."""
        return [number for number, model in self.others.items() if not isinstance(model, FilterBank)]

    @property
    def _used(self) -> list[int]:
        """Numbers of the members that count, and of the one whose reconstruction is shown."""
        weights, shown = self.weights, self._reconstructing
        return [number for number in range(len(weights)) if weights[number] or number == shown]

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        """Window of all members where it is the same; else the whole image, because each member has its own tiles."""
        windows = [self.models[number].window(size, rows, columns) for number in self._used]
        if all(window == windows[0] for window in windows):
            return windows[0]
        return slice(0, size[0]), slice(0, size[1])

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        shown: AnomalyMaps | None = None
        values: list[Tensor | None] = [None] * len(self.models)
        for number in self._used:
            maps = self.models[number].maps(x, hidden=hidden)
            shown = maps if number == self._reconstructing else shown
            values[number] = self.normalised(number, torch.from_numpy(maps.anomaly).to(self.scales.device))
        with torch.inference_mode():
            if self.combination == "soft-maximum":
                total = self.soft_maximum(values, self.weights)
            else:
                total = combined(values, self.is_compressed, self.scales.tolist(), self.weights)
        assert shown is not None
        return shown._replace(anomaly=total.cpu().numpy())

    def soft_maximum(self, values: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor:
        """Soft maximum of the members' maps (h, w), whose score is the soft maximum of their scores.

        Powers are read from scores. A map has single pixels far above its score, which such powers would let decide
        alone; so the map of the pixels is brought to the score that the members' scores give.
        """
        assert self.score is not None, "a soft maximum needs the score of the detector"
        scales, powers = self.scales.tolist(), self.powers.tolist()
        total = soft_maximum(values, scales, powers, weights)
        scores = [
            None if value is None or not weight else torch.tensor(self.score(value.cpu().numpy()))
            for value, weight in zip(values, weights, strict=True)
        ]
        own = self.score(total.cpu().numpy())
        return total * (float(soft_maximum(scores, scales, powers, weights)) / own) if own > 0 else total

    @property
    def is_compressed(self) -> list[bool]:
        """For each member, true if the logarithm of its normalised map is added."""
        return [str(number) in self.normalisers for number in range(len(self.models))]

    def normalised(self, number: int, values: Tensor) -> Tensor:
        """Map (h, w) of member ``number`` in units of the spread of good images."""
        name = str(number)
        return cast(Tensor, self.normalisers[name](values)) if name in self.normalisers else values

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
        counting = self._networks or range(len(self.models))
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


def combined(
    values: Sequence[Tensor | None],
    is_compressed: Sequence[bool],
    scales: Sequence[float],
    weights: Sequence[float],
) -> Tensor:
    """Weighted sum of the members' normalised maps, (h, w) each, with their scale taken into account.

    Parameters
    ----------
    values: None where a member has no weight.
    is_compressed: whether a map counts by log₂(1 + n / scale), or else by m / scale.

    >>> network, bank = torch.tensor([0.0, 3.0, 9.0]), torch.tensor([5.0, 5.0, 5.0])
    >>> combined([network, bank], [True, False], [3.0, 5.0], [0.5, 0.5])
    tensor([0.5000, 1.0000, 1.5000])
    """
    total: Tensor | None = None
    for own, compressed, scale, weight in zip(values, is_compressed, scales, weights, strict=True):
        if own is None or not weight:
            continue
        term = weight * torch.log2(1 + own / scale) if compressed else weight / scale * own
        total = term if total is None else total + term
    assert total is not None, "no member has any weight"
    return total


def soft_maximum(
    values: Sequence[Tensor | None],
    scales: Sequence[float],
    powers: Sequence[float],
    weights: Sequence[float],
) -> Tensor:
    """Map log₂(1 + Σ w u) of the members' maps, (h, w) each; None where a member has no weight.

    >>> network, bank = torch.tensor([1.0, 4.0]), torch.tensor([3.0, 3.0])
    >>> soft_maximum([network, bank], [1.0, 3.0], [2.0, 2.0], [0.5, 0.5])
    tensor([1.0000, 3.2120])
    """
    total: Tensor | None = None
    for value, scale, power, weight in zip(values, scales, powers, weights, strict=True):
        if value is None or not weight:
            continue
        logarithm = power * ((value.clamp(min=0) / scale + FADING) / (1 + FADING)).log()
        term = weight * logarithm.clamp(max=LARGEST).exp()
        total = term if total is None else total + term
    assert total is not None, "no member has any weight"
    return torch.log1p(total) / math.log(2)


def for_inspection(model: M, device: str = "cpu") -> M:
    """``model`` in evaluation mode on ``device``, in place; one that is no torch module is returned as it is."""
    if isinstance(model, nn.Module):
        model.eval().to(device)
        # In this layout convolutions run up to twice as fast on CPUs.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
