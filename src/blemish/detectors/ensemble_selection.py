"""Selection of an ensemble's weights, and of whether places matter, on synthetic anomalies in held-out good images.

No defective image is needed. Of two members the weights are multiples of a quarter, likewise of three and four; more
members count equally, because a grid of their weights would be searched longer than it is worth on so few images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from blemish.decision import average_precision, roc_auc, trimmed
from blemish.decision.conformal import Trim
from blemish.decision.metrics import auroc_standard_error
from blemish.detectors.combination import combined
from blemish.detectors.contracts import (
    EnsembleCandidate,
    FitRecord,
    FittingRun,
    Floats,
    GoodImages,
    ImageSequence,
    TrainableModel,
    TrainingSource,
)
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.map_normaliser import FEWEST, MapNormaliser
from blemish.detectors.memory_bank import MemoryBank, TensorImages
from blemish.errors import Stopped
from blemish.models.synthetic_anomalies import SyntheticAnomalies, anomaly_mask
from blemish.observer import Observer
from blemish.preprocessing.absent import absent_outside, filled, inside_places

STEPS = 4
"""Weights of up to four members are multiples of one over this."""
MOST_WEIGHED = 4
"""Members whose weights are selected; more count equally."""
HELD_OUT = 32
"""Held-out images that synthetic anomalies are painted into, at most."""
ALTERED = 3
"""Copies of each of them with synthetic anomalies, beside the good one."""
GOOD = 0.9
"""Share of the good held-out images whose score is below 1 by each member's map alone."""
PIXELS = 4
"""Every so many pixels count for the pixel metric."""
NORMALISING = 256
"""Held-out images that normalisers are fitted on, at most."""
COARSER = 4
"""Pixels of an image to one place of a normaliser."""

T = TypeVar("T")
ImageScore = Callable[[Floats], float]
"""Score of an image by its anomaly map (h, w)."""


@dataclass(frozen=True)
class SyntheticAnomalySelection:
    """Selection by the separation of good images from the same images with synthetic anomalies.

    Members that are no memory bank are fitted first.

    Parameters
    ----------
    anomalies: painted into held-out good images.
    score: rule of the detector that the ensemble is selected for.
    trim: share of the training images, those farthest from all others, that the memory banks leave out; or ``auto``.
    """

    anomalies: SyntheticAnomalies
    score: ImageScore
    trim: Trim = 0.0

    def __call__(self, ensemble: Ensemble, source: TrainingSource, run: FittingRun) -> FitRecord:
        notes: list[str] = []
        for model in ensemble.others.values():
            if isinstance(model, TrainableModel):
                notes += model.fit(source, run).notes
        record = select_ensemble(
            for_inspection(ensemble),
            source.whole("train"),
            source.whole("validation"),
            self.anomalies,
            self.score,
            trim=self.trim,
            seed=run.seed,
            observer=run.observer,
        )
        return record._replace(notes=(*notes, *record.notes))


class _Case(NamedTuple):
    """A held-out image, good or with synthetic anomalies, and what the members show of it."""

    image: int
    """Its number among those held out."""
    x: Floats
    """(C, h, w)."""
    mask: NDArray[np.bool_]
    """(h, w), True at synthetic anomalies."""
    normalised: dict[tuple[int, bool], Floats]
    """Normalised map (h, w) by number of the member and by whether places matter."""


def select_ensemble(
    ensemble: Ensemble,
    good: GoodImages,
    held_out: GoodImages,
    anomalies: SyntheticAnomalies,
    score: ImageScore,
    *,
    trim: Trim = 0.0,
    seed: int = 0,
    observer: Observer | None = None,
) -> FitRecord:
    """Fill the memory banks of ``ensemble`` and set its normalisers, scales and weights, in place.

    Maps that are not normalised yet are read in spreads of held-out good images, at each place where places matter.
    Each member is scaled so that most of these images score below 1 by it alone. A memory bank that does not help is
    emptied. With ``trim`` the training images that are farthest from all the others in the chosen banks are left out
    of them.

    Where no synthetic anomaly can be seen, weights cannot be compared: a single network decides alone, and any other
    ensemble takes its members equally.

    Parameters
    ----------
    good: preprocessed training images.
    held_out: preprocessed good images that did not train; once the choice is made, memory banks hold them too.
        The spread of good images is measured between groups, unless all are of one.
    seed: of the synthetic anomalies and of the features that are drawn.

    Raises
    ------
    Stopped
        When the observer asked to stop.
    """
    return _Selection(ensemble, good, held_out, score, seed, observer or Observer()).run(anomalies, trim)


class _Selection:
    """One run of :func:`select_ensemble`."""

    def __init__(
        self,
        ensemble: Ensemble,
        good: GoodImages,
        held_out: GoodImages,
        score: ImageScore,
        seed: int,
        observer: Observer,
    ) -> None:
        self.ensemble, self.good, self.held_out = ensemble, good, held_out
        self.banks, self.others = ensemble.banks, ensemble.others
        self.modes = tuple(sorted({mode for bank in self.banks.values() for mode in bank.placement_modes}))
        self.score, self.seed, self.observer = score, seed, observer
        self.is_pair = len(self.others) == len(self.banks) == 1
        self.raw: dict[int, list[Floats]] = {}
        """Maps of good held-out images by each member that has a normaliser."""

    def run(self, anomalies: SyntheticAnomalies, trim: Trim) -> FitRecord:
        if self.banks:
            self.observer.stage(f"Comparing ways to use {len(self.good.images)} images in the memory bank")
        cases = _cases(anomalies, self.held_out.images, self.seed)
        is_visible = any(case.mask.ravel()[::PIXELS].any() for case in cases)
        if not is_visible and self.banks and len(self.others) == 1:
            for bank in self.banks.values():
                bank.reset()
            self.ensemble.reset_weights()
            note = "The network alone decides; no synthetic anomaly is visible in these images to weight a memory bank by."
            return FitRecord((), (note,))
        self._show_others(cases)
        self._show_banks(cases)
        scales = {mode: self._scales(cases, mode) for mode in {False, *self.modes}}
        if not is_visible:
            count = len(self.ensemble.models)
            weights, by_place = (1 / count,) * count, self.modes[0] if self.banks else None
            left_out = self._settle(weights, by_place, scales[bool(by_place)], trim)
            note = (
                "All models count equally; no synthetic anomaly is visible in these images to weight them by."
            )
            return FitRecord((), (note,), left_out)
        grid = [
            (weights, mode)
            for weights in self._grid()
            for mode in (self.modes if self._share(weights) else (False,))
        ]
        candidates = [self._tried(cases, mode, weights, scales[mode]) for weights, mode in grid]
        altered = sum(bool(case.mask.any()) for case in cases)
        best = _chosen(candidates, len(cases) - altered, altered)
        weights, _ = grid[candidates.index(best)]
        candidates = [one.model_copy(update={"is_chosen": one is best}) for one in candidates]
        note = self._in_words(best, weights, min(len(self.held_out.images), HELD_OUT))
        left_out = self._settle(weights, best.by_place, scales[bool(best.by_place)], trim)
        return FitRecord(tuple(candidates), (note,), left_out)

    # -- the members' maps -------------------------------------------------------------------------

    def _show_others(self, cases: Sequence[_Case]) -> None:
        """Maps of the members that are no bank, each normalised without the group of its image."""
        count = min(len(self.held_out.images), HELD_OUT)
        more = range(count, min(len(self.held_out.images), NORMALISING))
        for number, model in self.others.items():
            maps = [model.maps(case.x).anomaly for case in self._watched(cases)]
            good = maps[:: 1 + ALTERED]
            good += [model.maps(self.held_out.images[index]).anomaly for index in self._watched(more)]
            self.raw[number] = [
                absent_outside(one, inside_places(self.held_out.images[index]))
                for index, one in enumerate(good)
            ]
            for mode in {False, *self.modes}:
                for image, some in groupby(zip(cases, maps, strict=True), lambda both: both[0].image):
                    normaliser = self._normaliser(number, mode, without=image)
                    for case, values in some:
                        case.normalised[number, mode] = normaliser.scale(values) if normaliser else values

    def _normaliser(self, number: int, by_place: bool, without: int) -> MapNormaliser | None:
        if not self.ensemble.is_compressed[number]:
            return None
        normaliser = MapNormaliser()
        _fit_normaliser(normaliser, self.raw[number], self.held_out.groups, by_place, without=without)
        return normaliser

    def _show_banks(self, cases: Sequence[_Case]) -> None:
        good = TensorImages((self.good.images, range(len(self.good.images))))
        for mode in self.modes:
            for number, bank in self.banks.items():
                self._fill(bank, good, self.good.groups, mode)
                for case in self._watched(cases):
                    case.normalised[number, mode] = bank.anomaly_map(case.x)

    def _fill(self, bank: MemoryBank, good: TensorImages, groups: Sequence[Hashable], mode: bool) -> None:
        by_place = mode if mode in bank.placement_modes else bank.placement_modes[0]
        bank.fit_images(good, torch.Generator().manual_seed(self.seed), by_place=by_place, groups=groups)

    # -- scales and weights ------------------------------------------------------------------------

    def _scales(self, cases: Sequence[_Case], mode: bool) -> list[float]:
        """Score that most good images stay below, by each member; 1 by banks that do not know the mode.

        Of scores and not of pixels: an image is judged by its worst place, and how far that sticks out differs.
        """
        good = [case for case in cases if not case.mask.any()]
        scales = []
        for number in range(len(self.ensemble.models)):
            maps = [case.normalised[number, mode] for case in good if (number, mode) in case.normalised]
            scores = [self.score(one) for one in maps]
            scales.append(max(float(np.quantile(scores, GOOD)), 1e-6) if scores else 1.0)
        return scales

    def _grid(self) -> list[tuple[float, ...]]:
        """Weights to compare, with those of memory banks rising."""
        count = len(self.ensemble.models)
        shares = [bank.share for bank in self.banks.values() if bank.share is not None]
        if self.is_pair and shares:
            own = [shares[0] if number in self.banks else 1 - shares[0] for number in range(2)]
            return [tuple(own)]
        if count > MOST_WEIGHED:
            return [(1 / count,) * count]
        return [
            ((STEPS - sum(rest)) / STEPS, *(step / STEPS for step in rest))
            for rest in product(range(STEPS + 1), repeat=count - 1)
            if sum(rest) <= STEPS
        ]

    def _share(self, weights: Sequence[float]) -> float:
        return sum(weights[number] for number in self.banks)

    def _tried(
        self, cases: Sequence[_Case], mode: bool, weights: tuple[float, ...], scales: Sequence[float]
    ) -> EnsembleCandidate:
        numbers = range(len(weights))
        maps = [
            combined(
                [case.normalised.get((number, mode)) for number in numbers],
                self.ensemble.is_compressed,
                scales,
                weights,
            )
            for case in cases
        ]
        scores = np.array([self.score(one) for one in maps])
        labels = np.array([case.mask.any() for case in cases])
        pixels = np.concatenate([one.ravel()[::PIXELS] for one in maps])
        truth = np.concatenate([case.mask.ravel()[::PIXELS] for case in cases])
        share = self._share(weights)
        return EnsembleCandidate(
            by_place=mode if share else None,
            share=share,
            image_auroc=roc_auc(labels, scores),
            pixel_ap=average_precision(truth, pixels),
            weights=None if self.is_pair else weights,
        )

    # -- the chosen ensemble -----------------------------------------------------------------------

    def _settle(
        self, weights: Sequence[float], by_place: bool | None, scales: Sequence[float], trim: Trim
    ) -> tuple[int, ...]:
        """Make the ensemble the chosen one; numbers of the training images that its banks leave out."""
        used = {number: bank for number, bank in self.banks.items() if weights[number]}
        for number, bank in self.banks.items():
            if number not in used:
                bank.reset()
        left_out: tuple[int, ...] = ()
        if used:
            count = len(self.good.images)
            if trim and count > 1:
                self.observer.stage("Looking for training images that are far from all the others")
                good = TensorImages((self.good.images, range(count)))
                for bank in used.values():
                    self._fill(bank, good, self.good.groups, bool(by_place))
                left_out = trimmed(self._distances(list(used.values()), good), trim)
            stay = [number for number in range(count) if number not in left_out]
            # The choice is made, so the images that it was made on may join; the decision rests on others still.
            both = TensorImages(
                (self.good.images, stay), (self.held_out.images, range(len(self.held_out.images)))
            )
            groups = [*(self.good.groups[number] for number in stay), *self.held_out.groups]
            for bank in used.values():
                self._fill(bank, both, groups, bool(by_place))
        for number in self.others:
            if self.ensemble.is_compressed[number]:
                normaliser = self.ensemble.normalisers[str(number)]
                assert isinstance(normaliser, MapNormaliser)
                _fit_normaliser(normaliser, self.raw[number], self.held_out.groups, bool(by_place))
        self.ensemble.set_weights(scales, weights)
        return left_out

    def _distances(self, banks: Sequence[MemoryBank], good: TensorImages) -> list[float]:
        """Score of each of ``good`` by its distance to all other images in ``banks``."""
        return [
            self.score(sum(bank.anomaly_map(good[number].numpy(), number) for bank in banks))  # type: ignore[arg-type]
            for number in self._watched(range(len(good)))
        ]

    def _watched(self, items: Sequence[T]) -> Iterator[T]:
        """Yield ``items`` one by one, counted, until the observer asks to stop."""
        for done, one in enumerate(items, start=1):
            if self.observer.should_stop():
                kept = "; the trained network is in the checkpoint" if self.others else ""
                raise Stopped(f"stopped while weighting the memory bank{kept}")
            yield one
            self.observer.count(done, len(items))

    def _in_words(self, best: EnsembleCandidate, chosen: Sequence[float], count: int) -> str:
        how = f"on synthetic anomalies in {count} held-out good images (image AUROC {best.image_auroc:.3f})"
        where = "each place with the same place" if best.by_place else "each place with any place"
        if self.is_pair and not best.share:
            return f"The network alone decides; the memory bank of the good images did not help {how}."
        names = ["memory bank"] if self.is_pair else self.ensemble.names
        weights = [best.share] if self.is_pair else chosen
        parts = [
            f"{100 * weight:.0f} % {name}" for weight, name in zip(weights, names, strict=True) if weight
        ]
        compared = f", comparing {where} of the good images" if best.share else ""
        return f"The map is {_listed(parts)}{compared}; chosen {how}."


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _fit_normaliser(
    normaliser: MapNormaliser,
    maps: Sequence[Floats],
    groups: Sequence[Hashable],
    by_place: bool,
    without: int | None = None,
) -> None:
    """Fit ``normaliser`` on maps of good images but those of the group of number ``without``.

    With and without these it is fitted in the same manner, by place or over all places.
    """
    together = Counter(groups[: len(maps)])
    if len(together) == 1:  # or nothing would be left
        groups = range(len(maps))
        together = Counter(groups)
    others = [
        torch.from_numpy(one)
        for number, one in enumerate(maps)
        if without is None or groups[number] != groups[without]
    ]
    fewest = len(maps) - max(together.values())
    if fewest:
        normaliser.fit(others, by_place=by_place and fewest >= FEWEST, coarser=COARSER)


def _cases(anomalies: SyntheticAnomalies, held_out: ImageSequence, seed: int) -> list[_Case]:
    """Yield each held-out image, unchanged and then with synthetic anomalies."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for index in range(min(len(held_out), HELD_OUT)):
        inside = inside_places(held_out[index])
        x = torch.from_numpy(filled(held_out[index], inside))[None]
        cases.append(_Case(index, held_out[index], np.zeros(x.shape[2:], dtype=np.bool_), {}))
        copies = x.expand(ALTERED, -1, -1, -1)
        altered = anomalies.synthesise(copies, 0.0, generator)
        masks = anomaly_mask(altered, copies)[:, 0] > 0.5
        cases += [
            _Case(index, absent_outside(one.numpy(), inside), mask.numpy(), {})
            for one, mask in zip(altered, masks, strict=True)
        ]
    return cases


def _chosen(candidates: Sequence[EnsembleCandidate], good: int, altered: int) -> EnsembleCandidate:
    """The candidate with most memory bank that is not clearly worse than the best, nor worse than networks alone.

    Clearly is by two standard errors, and as good as networks alone is within one. A network has learned to find
    anomalies of the kind that it is tried on here, and real ones are of other kinds; whatever differs from the good
    images is far from the memory bank. So the trial shows how far the bank can be trusted, but not how much the network
    can: in doubt the bank counts, and of equal banks the more even weights.
    """

    def within(one: EnsembleCandidate, errors: int) -> float:
        return one.image_auroc - errors * auroc_standard_error(one.image_auroc, good, altered)

    best = max(candidates, key=lambda one: one.image_auroc)
    enough = max([within(best, 2), *(within(one, 1) for one in candidates if not one.share)])
    near = [one for one in candidates if one.image_auroc >= enough]
    return max(near, key=lambda one: (one.share, -sum(w * w for w in one.weights or ()), one.image_auroc))
