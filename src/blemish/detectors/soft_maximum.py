"""Soft maximum of the members' maps, with equal weights: an ensemble that no synthetic anomaly has a say in.

A member that finds a defect must not be outvoted by members that are blind to it, and which of them is blind differs
from set to set: synthetic anomalies do not tell (``benchmarks/results/detection-members.json``). So the map v of each
member is read by its own good images,

    u = (v / a)^(2 / b),

with a the median of its maximum on held-out good images and b the 10 to 90 % range of the logarithm of that, and the
map of the ensemble is log₂(1 + Σ w u): 1 where the members are at the usual maximum of a good image, and led by the
member that is farthest beyond its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from blemish.decision import trimmed
from blemish.decision.conformal import Trim
from blemish.detectors.contracts import FitRecord, FittingRun, Floats, TrainableModel, TrainingSource
from blemish.detectors.ensemble import FADING, Ensemble, for_inspection
from blemish.detectors.filter_bank import FilterBank
from blemish.detectors.memory_bank import MemoryBank, TensorImages
from blemish.errors import Stopped
from blemish.preprocessing.layout import Layout, image_layout

HELD_OUT = 48
"""Held-out images that the members are read on, at most."""
LAYOUT_IMAGES = 64
"""Training images that the layout is read from, at most."""
SHARPNESS = 2.0
"""Logarithm of u one spread above the median; the larger it is, the more the largest member counts alone."""
LEAST_SPREAD = 0.1
"""Of the logarithm, so that a few good images that are alike by chance do not make a member count without limit."""


@dataclass(frozen=True)
class SoftMaximumSelection:
    """Fit of an ensemble by soft maximum: banks and filters first, then the networks, then scales and powers.

    Whether places matter to the memory banks follows from the layout of the images. Filters do not count where an
    object is in one pose: its own edges are what they answer to.

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
        left_out = self._fill(ensemble, source, run, layout)
        counts = [
            not (layout.kind == "posed object" and isinstance(model, FilterBank)) for model in ensemble.models
        ]
        for number, model in ensemble.others.items():
            if isinstance(model, FilterBank) and counts[number]:
                model.fit(source, run)
        notes = [layout.in_words]
        for model in ensemble.others.values():
            if isinstance(model, TrainableModel) and not isinstance(model, FilterBank):
                notes += model.fit(source, run).notes
        for_inspection(ensemble)
        maxima = self._held_out_maxima(ensemble, counts, source, run, len(good.images) - len(left_out))
        read = [_median_and_spread(some) if some else (1.0, SHARPNESS) for some in maxima]
        ensemble.set_weights(
            [median for median, _ in read],
            [count / sum(counts) for count in counts],
            [SHARPNESS / spread for _, spread in read],
        )
        return FitRecord((), tuple(notes), left_out)

    def _fill(
        self, ensemble: Ensemble, source: TrainingSource, run: FittingRun, layout: Layout
    ) -> tuple[int, ...]:
        """Fill the memory banks; numbers of the training images that they leave out."""
        banks = list(ensemble.banks.values())
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
                bank.fit_images(both, generator, by_place=by_place, groups=groups)
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

    def _held_out_maxima(
        self,
        ensemble: Ensemble,
        counts: Sequence[bool],
        source: TrainingSource,
        run: FittingRun,
        first: int,
    ) -> list[list[float]]:
        """Score of held-out images by each member that counts; ``first`` is the number of the first in the banks."""
        images = source.whole("validation").images
        count = min(len(images), HELD_OUT)
        run.observer.stage(f"Reading the models on {count} held-out images")
        maxima: list[list[float]] = [[] for _ in ensemble.models]
        for number in range(count):
            _go_on(run, number, count)
            x = images[number]
            for place, model in enumerate(ensemble.models):
                if isinstance(model, MemoryBank):
                    # The bank holds this image, so its group is left out of the comparison.
                    maxima[place].append(self.score(model.anomaly_map(x, first + number)))
                elif counts[place]:
                    maxima[place].append(self.score(model.maps(x).anomaly))
        return maxima


def _go_on(run: FittingRun, done: int, count: int) -> None:
    run.observer.count(done, count)
    if run.observer.should_stop():
        raise Stopped(f"stopped after {done} of {count} images, before the calibration")


def _median_and_spread(maxima: Sequence[float]) -> tuple[float, float]:
    """Median of positive ``maxima``, and the 10 to 90 % range of their logarithm, at least 0.1."""
    positive = np.maximum(np.asarray(maxima, dtype=np.float64), 1e-6)
    median = float(np.median(positive))
    low, high = np.quantile(np.log(positive / median + FADING), (0.1, 0.9))
    return median, max(float(high - low), LEAST_SPREAD)
