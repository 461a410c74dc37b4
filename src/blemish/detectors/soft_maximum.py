"""Soft maximum of the members' scores, with fixed weights: an ensemble that no synthetic anomaly has a say in.

A member that finds a defect must not be outvoted by members that are blind to it, and which of them is blind differs
from set to set: synthetic anomalies do not tell (``benchmarks/results/detection-members-*.json``). So the score s of each
member is read by its own good images,

    u = (s / a)^(2 / b),

with a the median of the scores of held-out good images and b the 10 to 90 % range of their logarithm, and the score of
the ensemble is log₂(1 + Σ w u): 1 where the members are at the usual score of a good image, and led by the member that
is farthest beyond its own. The map is made of the members' pixels in the same way, and brought to this score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from blemish.decision import trimmed
from blemish.decision.conformal import Trim
from blemish.detectors.combination import FADING, soft_maximum
from blemish.detectors.confirmed_defects import choose_members
from blemish.detectors.contracts import (
    AnomalyModel,
    FitRecord,
    FittingRun,
    Floats,
    TrainableModel,
    TrainingSource,
)
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.filter_bank import FilterBank
from blemish.detectors.memory_bank import ColourMemoryBank, MemoryBank, TensorImages
from blemish.errors import Stopped
from blemish.preprocessing.layout import Layout, have_colour, image_layout

HELD_OUT = 48
"""Held-out images that the members are read on, at most."""
FEWEST = 32
"""Good images that the members are read on, at least, where there are so many."""
COLOUR_COUNTS = "The images have colour: an even change of colour or brightness of an area can be found, beside changes of structure."
COLOUR_IS_ABSENT = "The channels of the images hardly differ, so colour is not compared."
LAYOUT_IMAGES = 64
"""Training images that the layout is read from, at most."""
SHARPNESS = 2.0
"""Logarithm of u one spread above the median; the larger it is, the more the largest member counts alone."""
LEAST_SPREAD = 0.3
"""Of the logarithm, so that a few good images that are alike by chance do not make a member count without limit."""
SPREAD_OF_NOTHING = 1.3
"""The same of a member that finds nothing in most good images: so wide that only what it is sure of counts."""
NETWORK_SHARE = 0.25
"""Weight of a network beside a bank's of 1.

Networks find much in the images that they suit, so that a quarter hardly delays them, and deviate without a defect where
new images differ from those that they trained on.
"""


COLOUR_SHARE = 0.25
"""The same of a bank of colour, which is blind to most defects: what it alone finds lies far beyond the good images."""


@dataclass(frozen=True)
class SoftMaximumSelection:
    """Fit of an ensemble by soft maximum: banks and filters first, then the networks, then scales and powers.

    Whether places matter to the memory banks follows from the layout of the images. Filters do not count where an
    object is in one pose: its own edges are what they answer to. A bank of colour counts where the images have colour, by
    default only if an object is in one pose, where filters do not look at it.

    Parameters
    ----------
    score: rule of the detector, by which members are read.
    trim: share of the training images, those farthest from all others, that the memory banks leave out; or ``auto``.
    """

    score: Callable[[Floats], float]
    trim: Trim = 0.0

    def __call__(self, ensemble: Ensemble, source: TrainingSource, run: FittingRun) -> FitRecord:
        good = source.whole("train")
        step = -(-len(good.images) // LAYOUT_IMAGES)
        chosen = range(0, len(good.images), step)
        layout = image_layout((good.images[number] for number in chosen), is_posed=good.is_posed)
        is_posed = layout.kind == "posed object"
        takes_colour = any(
            isinstance(bank, ColourMemoryBank) and (is_posed or not bank.only_posed)
            for bank in ensemble.banks.values()
        )
        has_colour = takes_colour and have_colour(good.images[number] for number in chosen)
        counts = [
            has_colour
            if isinstance(model, ColourMemoryBank)
            else not (is_posed and isinstance(model, FilterBank))
            for model in ensemble.models
        ]
        counts = counts if any(counts) else [True] * len(counts)
        left_out = self._fill(ensemble, source, run, layout, counts)
        for number, model in ensemble.others.items():
            if isinstance(model, FilterBank) and counts[number]:
                model.fit(source, run)
        notes = [layout.in_words]
        if takes_colour:
            notes.append(COLOUR_COUNTS if has_colour else COLOUR_IS_ABSENT)
        for model in ensemble.others.values():
            if isinstance(model, TrainableModel) and not isinstance(model, FilterBank):
                notes += model.fit(source, run).notes
        for_inspection(ensemble)
        stay = [number for number in range(len(good.images)) if number not in left_out]
        scores = self._good_scores(ensemble, counts, source, run, stay)
        read = [
            _median_and_spread(some, getattr(model, "least_evidence", 0.0)) if some else (1.0, SHARPNESS)
            for model, some in zip(ensemble.models, scores, strict=True)
        ]
        scales = [median for median, _ in read]
        powers = [SHARPNESS / spread for _, spread in read]
        shares = [_share(model) * count for model, count in zip(ensemble.models, counts, strict=True)]
        if run.defects is not None and sum(counts) == 1:
            notes.append("One model alone counts here, so confirmed defects have nothing to choose from.")
        elif run.defects is not None:
            held_out = min(len(source.whole("validation").images), HELD_OUT)
            good_scores = [some[:held_out] for some in scores]
            members, note = self._by_defects(ensemble, run, shares, good_scores, scales, powers)
            shares = [share * (number in members) for number, share in enumerate(shares)]
            notes.append(note)
        ensemble.set_weights(scales, [share / sum(shares) for share in shares], powers)
        return FitRecord((), tuple(notes), left_out)

    def _by_defects(
        self,
        ensemble: Ensemble,
        run: FittingRun,
        shares: Sequence[float],
        good: Sequence[Sequence[float]],
        scales: Sequence[float],
        powers: Sequence[float],
    ) -> tuple[tuple[int, ...], str]:
        """The members that confirmed defects choose, and a note; ``good`` are the members' scores of held-out images."""
        assert run.defects is not None
        images, groups = run.defects
        run.observer.stage(f"Comparing the models on {len(images)} confirmed defects")
        members = [number for number, share in enumerate(shares) if share]
        defective: list[list[float]] = [[] for _ in good]
        for number in range(len(images)):
            _go_on(run, number, len(images))
            x = images[number]
            for place in members:
                defective[place].append(self.score(ensemble.models[place].maps(x).anomaly))

        def together(some: Sequence[int], scores: Sequence[Sequence[float]]) -> NDArray[np.float64]:
            total = sum(shares[number] for number in some)
            weights = [shares[number] / total if number in some else 0.0 for number in range(len(scores))]
            values = [
                np.asarray(own, np.float32) if weight else None
                for own, weight in zip(scores, weights, strict=True)
            ]
            found: NDArray[np.float64] = soft_maximum(values, scales, powers, weights).astype(np.float64)
            return found

        choice = choose_members(
            lambda some: (together(some, good), together(some, defective)), members, groups
        )
        named = " and ".join(ensemble.names[number] for number in choice.members)
        if choice.members == tuple(members):
            kept = f"All models stay: confirmed defects ({len(images)}) are not clearly better found by fewer"
            return choice.members, f"{kept} (image AUROC {choice.all_auroc:.3f})."
        return choice.members, (
            f"Confirmed defects ({len(images)}) chose {named}: image AUROC {choice.auroc:.3f} on them against held-out "
            f"good images, {choice.all_auroc:.3f} by all models."
        )

    def _fill(
        self,
        ensemble: Ensemble,
        source: TrainingSource,
        run: FittingRun,
        layout: Layout,
        counts: Sequence[bool],
    ) -> tuple[int, ...]:
        """Fill the memory banks that count; numbers of the training images that they leave out."""
        banks = [bank for number, bank in ensemble.banks.items() if counts[number]]
        if not banks:
            return ()
        good, held_out = source.whole("train"), source.whole("validation")
        stay: Sequence[int] = range(len(good.images))
        run.observer.stage(f"Filling the memory bank from {len(good.images) + len(held_out.images)} images")

        def fill() -> TensorImages:
            both = TensorImages((good.images, stay), (held_out.images, range(len(held_out.images))))
            groups = [*(good.groups[number] for number in stay), *held_out.groups]
            for bank in banks:
                modes = bank.placement_modes
                by_place = layout.has_places if layout.has_places in modes else modes[0]
                generator = torch.Generator().manual_seed(run.seed)
                bank.fit_images(both, generator, by_place=by_place, groups=groups, sharing=run.sharing)
            return both

        both = fill()
        left_out: tuple[int, ...] = ()
        if self.trim and len(stay) > 1:
            run.observer.stage("Looking for training images that are far from all the others")
            distances = []
            for number in stay:
                _go_on(run, number, len(stay))
                x = both[number].numpy()
                distances.append(self.score(sum(bank.anomaly_map(x, number) for bank in banks)))  # type: ignore[arg-type]
            left_out = trimmed(distances, self.trim)
            stay = [number for number in stay if number not in left_out]
            fill()
        return left_out

    def _good_scores(
        self,
        ensemble: Ensemble,
        counts: Sequence[bool],
        source: TrainingSource,
        run: FittingRun,
        stay: Sequence[int],
    ) -> list[list[float]]:
        """Scores of held-out images by each member that counts; then of training images, where the others are few.

        ``stay`` are the training images in the banks. The banks hold all of these images, so the group of each is left
        out of the comparison.
        """
        train, held_out = source.whole("train").images, source.whole("validation").images
        count = min(len(held_out), HELD_OUT)
        chosen = [(held_out, number, len(stay) + number) for number in range(count)]
        chosen += [(train, number, place) for place, number in enumerate(stay[: max(0, FEWEST - count)])]
        run.observer.stage(f"Reading the models on {len(chosen)} good images")
        scores: list[list[float]] = [[] for _ in ensemble.models]
        for done, (images, number, in_banks) in enumerate(chosen):
            _go_on(run, done, len(chosen))
            x = images[number]
            for place, model in enumerate(ensemble.models):
                if not counts[place]:
                    continue
                if isinstance(model, MemoryBank):
                    scores[place].append(self.score(model.anomaly_map(x, in_banks)))
                else:
                    scores[place].append(self.score(model.maps(x).anomaly))
        return scores


def _share(model: AnomalyModel) -> float:
    """Share of a member before all are brought to the sum 1."""
    if isinstance(model, ColourMemoryBank):
        return COLOUR_SHARE
    return 1.0 if isinstance(model, MemoryBank | FilterBank) else NETWORK_SHARE


def _go_on(run: FittingRun, done: int, count: int) -> None:
    run.observer.count(done, count)
    if run.observer.should_stop():
        raise Stopped(f"stopped after {done} of {count} images, before the calibration")


def _median_and_spread(maxima: Sequence[float], least: float = 0.0) -> tuple[float, float]:
    """Median of positive ``maxima``, and the 10 to 90 % range of their logarithm, at least 0.3.

    Values below ``least`` count as that: a network that is sure of every good image gives maxima near 0, whose ratios
    mean nothing, nor does their spread then.
    """
    positive = np.maximum(np.asarray(maxima, dtype=np.float64), max(least, 1e-6))
    median = float(np.median(positive))
    low, high = np.quantile(np.log(positive / median + FADING), (0.1, 0.9))
    return median, max(float(high - low), SPREAD_OF_NOTHING if median == least else LEAST_SPREAD)
