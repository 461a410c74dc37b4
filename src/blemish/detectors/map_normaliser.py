"""Normalisation of anomaly maps by the mean and spread of good images, at each place or over all places.

Good images differ from each other more in some places than in others: at an edge that is never quite the same, on
a shiny area. A residual or distance that is normalised at each place does not mark these as anomalies. Where images do
not show the same object in the same pose, mean and spread are those of all places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blemish.detectors.contracts import Floats
from blemish.detectors.map_arrays import FLATTENING, LEAST_SPREAD, MapScale
from blemish.preprocessing.absent import filled

FEWEST = 16
"""Maps from which on each place has its own mean and spread."""


class MapNormaliser(nn.Module):
    """Mean and standard deviation of maps of good images, by place or of all places; at first 0 and 1."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 1))
        self.register_buffer("spread", torch.ones(1, 1))

    def reset(self) -> None:
        """Return to mean 0 and spread 1, as before :meth:`fit`."""
        device = self.mean.device
        self.mean, self.spread = torch.zeros(1, 1, device=device), torch.ones(1, 1, device=device)

    def fit(self, maps: Sequence[Tensor], *, by_place: bool, coarser: int = 1) -> None:
        """Take mean and spread of ``maps``, (h, w) each, in place of earlier ones; without any map it is reset.

        Places of a map with NaN lie outside its image and do not count; a place that lies outside in all of them has the
        mean and spread of the nearest other one.

        Parameters
        ----------
        by_place: whether each place has its own, on the median size of the maps; with fewer than 16 maps, mean and
            spread are those of all places nevertheless.
        coarser: pixels of a map to one place.
        """
        self.reset()
        maps = [one.to(self.mean.device) for one in maps]
        if by_place and len(maps) >= FEWEST:
            height, width = torch.tensor([one.shape for one in maps]).median(0).values.tolist()
            size = (max(1, height // coarser), max(1, width // coarser))
            values = torch.cat([resized_map(one[None, None], size) for one in maps])[:, 0]  # (n, h, w)
            spread, mean = _std_mean(values)
            # Neighbouring places estimate a place better than so few images do.
            self.mean, self.spread = _smoothed(mean), _smoothed(spread)
        elif maps:
            values = torch.cat([one[~one.isnan()] for one in maps])
            spread, mean = torch.std_mean(values, correction=0)
            self.mean, self.spread = mean.view(1, 1), spread.view(1, 1)

    def forward(self, values: Tensor) -> Tensor:
        """Spreads by which a map (..., h, w) of any size exceeds the mean, at least 0."""
        spread = self.spread + FLATTENING * self.spread.mean() + LEAST_SPREAD
        size = (values.shape[-2], values.shape[-1])
        mean, spread = (resized_map(part[None, None], size)[0, 0] for part in (self.mean, spread))
        return ((values - mean) / spread).clamp(min=0)

    @property
    def scale(self) -> MapScale:
        """The same mean and spread for maps as arrays."""
        arrays: tuple[Floats, Floats] = (self.mean.cpu().numpy(), self.spread.cpu().numpy())
        return MapScale(*arrays)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The number of places is not known before the file is read.
        for name in ("mean", "spread"):
            value = state_dict.get(prefix + name)
            if value is not None:
                setattr(self, name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)


def resized_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``x`` (N, C, H, W) at ``size`` (height, width)."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def _std_mean(values: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of maps (n, h, w) at each place, (h, w) each, without what is NaN."""
    is_inside = ~values.isnan()
    if is_inside.all():
        spread, mean = torch.std_mean(values, 0, correction=0)
        return spread, mean
    count = is_inside.sum(0)
    mean = values.nansum(0) / count.clamp(min=1)
    spread = ((values - mean).square().nansum(0) / count.clamp(min=1)).sqrt()
    both = torch.stack([spread, mean])
    spread, mean = torch.from_numpy(filled(both.cpu().numpy(), (count > 0).cpu().numpy())).to(values.device)
    return spread, mean


def _smoothed(values: Tensor) -> Tensor:
    """Means over 3 × 3 places: (h, w) to (h, w)."""
    return F.avg_pool2d(F.pad(values[None, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0]
