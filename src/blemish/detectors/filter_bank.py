"""Filter bank that can be fitted: mean and spread of classical filters on good images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.detectors.contracts import (
    FitRecord,
    FittingRun,
    Floats,
    ImageSequence,
    TrainingSource,
)
from blemish.detectors.filter_deviation import FilterDeviation, largest_deviation, responses_of
from blemish.detectors.map_normaliser import resized_map
from blemish.errors import Stopped
from blemish.preprocessing.absent import filled

IMAGES = 300
"""Training images, at most, that mean and spread are measured on."""
FEWEST = 16
"""Images from which on each place has its own mean and spread."""
FLATTENING = 0.5
"""Times the mean spread, added to that of each place, so that none counts without limit."""
LEAST_SPREAD = 1e-3
"""Added to every spread, so that rounding does not count in images that are all alike."""
BORDER = 3
"""Cells from the border of an image within which deviations are brought to the level of those farther inside."""
BORDER_QUANTILE = 0.99
"""Quantile of the deviations of good images that is their level."""


class FilterBank(nn.Module, FilterDeviation):
    """Filter bank that can be fitted; see :class:`~blemish.detectors.filter_deviation.FilterDeviation`."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget the good images."""
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("spread", torch.zeros(0))

    @property
    def is_empty(self) -> bool:
        """True before :meth:`fit`."""
        return self.mean.numel() == 0

    @property
    def reference(self) -> tuple[Floats, Floats]:
        mean, spread = self.mean.cpu().numpy(), self.spread.cpu().numpy()
        return mean, spread

    # -- fitting -----------------------------------------------------------------------------------

    def fit(self, source: TrainingSource, run: FittingRun) -> FitRecord:
        """Measure mean and spread of each filter on the training images, at each place of their median size."""
        images = source.whole("train").images
        run.observer.stage(f"Measuring filters on {min(len(images), IMAGES)} images")
        chosen = np.random.default_rng(run.seed).permutation(len(images))[:IMAGES]
        own: dict[int, torch.Tensor] = {}
        for done, number in enumerate(chosen):
            if run.observer.should_stop():
                raise Stopped(f"stopped after measuring filters on {done} of {len(chosen)} images")
            if run.sharing.is_own(done):
                own[done] = torch.from_numpy(responses_of(images[int(number)]))
        found = run.sharing.collected(own)
        self.fit_responses([found[done].numpy() for done in range(len(chosen))])
        return FitRecord()

    def fit_images(self, images: ImageSequence) -> None:
        """Measure mean and spread on ``images`` (C, H, W), all of them."""
        self.fit_responses([responses_of(images[number]) for number in range(len(images))])

    def fit_responses(self, responses: Sequence[Floats]) -> None:
        """Measure mean and spread of ``responses``, (2, k, h, w) of each image, NaN in cells outside it.

        Where no image reaches, those of the nearest place that one reaches are taken.
        """
        if len(responses) < FEWEST:
            joined = np.concatenate([one.reshape(*one.shape[:2], -1) for one in responses], 2)
            is_inside = ~np.isnan(joined[0, 0])
            # Another layout in memory would change the order of the sums.
            joined = joined if is_inside.all() else joined[..., is_inside]
            self.mean = torch.from_numpy(joined.mean(2)[..., None, None])
            self.spread = torch.from_numpy(joined.std(2)[..., None, None] + LEAST_SPREAD)
            return
        size: tuple[int, int] = tuple(np.median([one.shape[2:] for one in responses], 0).astype(int).tolist())
        total = square = count = torch.zeros(1)
        first = resized_map(torch.from_numpy(responses[0]), size).nan_to_num()
        for one in responses:
            # Centred on the first image, because single precision would lose a small variance beside a large mean.
            values = resized_map(torch.from_numpy(one), size) - first
            reaches = ~values.isnan()
            values = values.nan_to_num()
            total, square, count = total + values, square + values * values, count + reaches
        reached = (count[0, 0] > 0).numpy()
        number = len(responses) if (count == len(responses)).all() else count.clamp(min=1)
        mean = total / number
        variance = (square / number - mean * mean).clamp(min=0)
        mean = mean + first
        if not reached.all():
            mean, variance = (torch.from_numpy(filled(part.numpy(), reached)) for part in (mean, variance))
        # Neighbouring places estimate a place better than so few images do.
        self.mean = _smoothed(mean, 1)
        spread = _smoothed(variance, 2).sqrt()
        spread = spread + FLATTENING * spread.mean((2, 3), keepdim=True) + LEAST_SPREAD
        reference = self.mean.numpy(), spread.numpy()
        deviations = np.stack(
            [
                largest_deviation(resized_map(torch.from_numpy(one), size).numpy(), *reference)
                for one in responses
            ]
        )
        self.spread = spread * torch.from_numpy(border_levels(deviations))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The number of places is not known before the file is read.
        for name in ("mean", "spread"):
            value = state_dict.get(prefix + name)
            if value is not None:
                setattr(self, name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)


def border_levels(deviations: Floats) -> Floats:
    """Level (h, w) of the ``deviations`` (n, h, w) of good images along the border, at least 1; it is 1 farther inside.

    Filters take an image as mirrored at its border, so that they average less of it there, and their extremes are larger. Each
    ring of cells has one level. NaN marks cells outside an image.

    >>> levels = border_levels(np.pad(np.ones((4, 6, 6), np.float32), ((0, 0), (1, 1), (1, 1)), constant_values=2))
    >>> levels[0].tolist() == [2.0] * 8, levels[1].tolist() == [2.0] + [1.0] * 6 + [2.0]
    (True, True)
    """
    rows, columns = (np.minimum(np.arange(side), np.arange(side)[::-1]) for side in deviations.shape[1:])
    ring = np.minimum(rows[:, None], columns)  # (h, w)
    levels = np.ones(ring.shape, np.float32)
    inside = _level(deviations[:, ring >= BORDER])
    for distance in range(BORDER):
        own = _level(deviations[:, ring == distance])
        if inside > 0 and own > inside:
            levels[ring == distance] = own / inside
    return levels


def _level(deviations: Floats) -> float:
    """Of no cell that is inside an image: 0."""
    known = deviations[~np.isnan(deviations)]
    return float(np.quantile(known, BORDER_QUANTILE)) if known.size else 0.0


def _smoothed(values: Tensor, reach: int) -> Tensor:
    """Means over (2 reach + 1)² places of (n, k, h, w)."""
    side = 2 * reach + 1
    return F.avg_pool2d(F.pad(values, (reach,) * 4, mode="replicate"), side, 1)
