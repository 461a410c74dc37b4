"""Combination of the anomaly maps of several models, whatever runtime computes each.

The map n of a member that is not normalised yet (a residual, a probability) is read in spreads of held-out good images,
n = max(0, value - mean) / spread, and counts by log₂(1 + n / scale); the map m of one that is (a memory bank) counts by
m / scale. Both are 1 at their scale, the score that most held-out good images stay below. Beyond it only doublings of n
count: a network deviates by hundreds of scales, now and then on a good image that is merely lit in another way, where the
distances of a memory bank reach two or three.

The other combination, the soft maximum, is described in :mod:`~blemish.detectors.soft_maximum`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from blemish.detectors.contracts import AnomalyMaps, AnomalyModel, Floats
from blemish.preprocessing.absent import inside_places, zero_outside

FADING = 0.02
"""Share of its scale below which a map fades under the soft maximum."""
LARGEST = 30.0
"""Largest logarithm of a term of the soft maximum."""

CombinationRule = Literal["weighted-mean", "soft-maximum"]

T = TypeVar("T")


class CombinedModel:
    """Anomaly model of several members, each with its scale and weight.

    Reconstruction and maps of single modalities are those of the first member that keeps no good images.
    """

    models: Sequence[AnomalyModel]
    combination: CombinationRule
    score: Callable[[Floats], float] | None
    """Rule of the detector, which a soft maximum combines the members by; a multiple of a map has that multiple of
    its score."""
    is_normalised = True

    @property
    @abstractmethod
    def weights(self) -> list[float]:
        """Weights of the members in their order; their sum is 1."""

    @property
    @abstractmethod
    def scale_values(self) -> list[float]:
        """Scales of the members in their order."""

    @property
    @abstractmethod
    def power_values(self) -> list[float]:
        """Powers of the members in their order, where the combination is the soft maximum."""

    @property
    @abstractmethod
    def is_compressed(self) -> list[bool]:
        """For each member, true if the logarithm of its normalised map is added."""

    @abstractmethod
    def normalised(self, number: int, values: Floats) -> Floats:
        """Map (h, w) of member ``number`` in units of the spread of good images."""

    @property
    def title(self) -> str:
        return ", with ".join(dict.fromkeys(self.models[number].title for number in self.used))

    @property
    def sees_areas(self) -> bool:
        """True if a member that counts compares brightness and colour of areas as such."""
        return any(
            weight > 0 and getattr(model, "sees_areas", False)
            for model, weight in zip(self.models, self.weights, strict=True)
        )

    @property
    def takes_absent(self) -> bool:
        return all(model.takes_absent for model in self.models)

    @property
    def networks(self) -> list[int]:
        """Numbers of the members that keep no good images, and need none to give a map."""
        return [number for number, model in enumerate(self.models) if not keeps_good_images(model)]

    @property
    def _reconstructing(self) -> int:
        """Number of the member whose reconstruction is shown; of banks alone, the one that counts most."""
        return next(iter(self.networks), int(np.argmax(self.weights)))

    @property
    def used(self) -> list[int]:
        """Numbers of the members that count, and of the one whose reconstruction is shown."""
        weights, shown = self.weights, self._reconstructing
        return [number for number in range(len(weights)) if weights[number] or number == shown]

    def each(self, function: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        """``function`` of each of ``items``, which do not depend on each other; one after another here."""
        return list(map(function, items))

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        """Window of all members where it is the same; else the whole image, because each member has its own tiles."""
        windows = [self.models[number].window(size, rows, columns) for number in self.used]
        if all(window == windows[0] for window in windows):
            return windows[0]
        return slice(0, size[0]), slice(0, size[1])

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        """As :meth:`~blemish.detectors.contracts.AnomalyModel.maps`."""
        shown: AnomalyMaps | None = None
        values: list[Floats | None] = [None] * len(self.models)
        found = self.each(lambda number: self.models[number].maps(x, hidden=hidden), self.used)
        for number, maps in zip(self.used, found, strict=True):
            shown = maps if number == self._reconstructing else shown
            values[number] = self.normalised(number, maps.anomaly)
        if self.combination == "soft-maximum":
            total = self.soft_maximum(values, self.weights)
        else:
            total = combined(values, self.is_compressed, self.scale_values, self.weights)
        assert shown is not None
        # The soft maximum of nothing at all is a little above 0.
        return shown._replace(anomaly=zero_outside(total, inside_places(x)))

    def soft_maximum(self, values: Sequence[Floats | None], weights: Sequence[float]) -> Floats:
        """Soft maximum of the members' maps (h, w), whose score is the soft maximum of their scores.

        Powers are read from scores. A map has single pixels far above its score, which such powers would let decide
        alone; so the map of the pixels is brought to the score that the members' scores give.
        """
        assert self.score is not None, "a soft maximum needs the score of the detector"
        scales, powers = self.scale_values, self.power_values
        total = soft_maximum(values, scales, powers, weights)
        counting = [
            number
            for number, (value, weight) in enumerate(zip(values, weights, strict=True))
            if value is not None and weight
        ]
        own, *found = self.each(self.score, [total, *(values[number] for number in counting)])
        if own <= 0:
            return total
        scores: list[NDArray[np.floating] | None] = [None] * len(values)
        for number, score in zip(counting, found, strict=True):
            scores[number] = np.array(score, np.float32)
        return total * np.float32(float(soft_maximum(scores, scales, powers, weights)) / own)


def keeps_good_images(model: AnomalyModel) -> bool:
    """True if ``model`` compares with what it keeps of good images, as memory banks and filter banks do."""
    return bool(getattr(model, "keeps_good_images", False))


def combined(
    values: Sequence[Floats | None],
    is_compressed: Sequence[bool],
    scales: Sequence[float],
    weights: Sequence[float],
) -> Floats:
    """Weighted sum of the members' normalised maps, (h, w) each, with their scale taken into account.

    Parameters
    ----------
    values: None where a member has no weight.
    is_compressed: whether a map counts by log₂(1 + n / scale), or else by m / scale.

    >>> network, bank = np.array([0.0, 3.0, 9.0], np.float32), np.array([5.0, 5.0, 5.0], np.float32)
    >>> combined([network, bank], [True, False], [3.0, 5.0], [0.5, 0.5]).tolist()
    [0.5, 1.0, 1.5]
    """
    total: Floats | None = None
    for own, compressed, scale, weight in zip(values, is_compressed, scales, weights, strict=True):
        if own is None or not weight:
            continue
        term = weight * np.log2(1 + own / scale) if compressed else weight / scale * own
        total = term if total is None else total + term
    assert total is not None, "no member has any weight"
    return total


def soft_maximum(
    values: Sequence[NDArray[np.floating] | None],
    scales: Sequence[float],
    powers: Sequence[float],
    weights: Sequence[float],
) -> Floats:
    """Map log₂(1 + Σ w u) of the members' maps, (h, w) each; None where a member has no weight.

    >>> network, bank = np.array([1.0, 4.0], np.float32), np.array([3.0, 3.0], np.float32)
    >>> soft_maximum([network, bank], [1.0, 3.0], [2.0, 2.0], [0.5, 0.5]).round(4).tolist()
    [1.0, 3.2119998931884766]
    """
    total: Floats | None = None
    for value, scale, power, weight in zip(values, scales, powers, weights, strict=True):
        if value is None or not weight:
            continue
        fading = np.log((np.maximum(value, 0) / scale + FADING) / (1 + FADING))
        term = weight * np.exp(np.minimum(power * fading, LARGEST))
        total = term if total is None else total + term
    assert total is not None, "no member has any weight"
    made: Floats = np.asarray(np.log1p(total) / math.log(2), np.float32)
    return made
