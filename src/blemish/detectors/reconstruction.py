"""Reconstruction model: an autoencoder and its residual, over overlapping tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from blemish.data.modality import channel_slices
from blemish.detectors.contracts import AnomalyMaps, FitRecord, FittingRun, Floats, TrainingSource
from blemish.models.autoencoder import Autoencoder
from blemish.models.modal_similarity import ModalSSIM, modal_residuals
from blemish.preprocessing.tiling import Blender, TilePlan

TILES_AT_ONCE = 16
PIXELS_AT_ONCE = 2**17
"""Of the tiles of a scene: enough for the network to be busy, few enough for its features to stay in cache."""


class ReconstructionModel(nn.Module):
    """Anomaly model of an autoencoder: the residual of its reconstruction, blended from overlapping tiles.

    The tiles of one image form the batches, never those of several, because the sums of a convolution depend on the
    size of the batch in their last bits: so the score of an image does not depend on which others are inspected.

    Parameters
    ----------
    autoencoder: trained, or to be trained.
    patch, stride: side of the tiles and step between them, in pixels.
    modalities: of scenes, how many; 0 of single images.
    name: of the network in its recipe; see :func:`blemish.detectors.factory.training_recipes`.
    """

    def __init__(
        self, autoencoder: Autoencoder, *, patch: int, stride: int, modalities: int = 0, name: str = ""
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.name = name
        self.patch, self.stride = patch, stride
        self.tiles_at_once = max(1, PIXELS_AT_ONCE // patch**2) if modalities else TILES_AT_ONCE

    @property
    def title(self) -> str:
        return self.autoencoder.measure.title

    @property
    def takes_absent(self) -> bool:
        return self.autoencoder.encoder.takes_absent

    @property
    def least_evidence(self) -> float:
        """Value of the anomaly map below which nothing was found; 0 where the map has no absolute meaning."""
        return float(getattr(self.autoencoder.measure, "least_evidence", 0.0))

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _plan(self, size: tuple[int, int]) -> TilePlan:
        return TilePlan(size, (self.patch, self.patch), (self.stride, self.stride))

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        return self._plan(size).around(rows, columns)

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        shown = np.ones(len(x), np.bool_)
        for channels in hidden:
            shown[channels] = False
        measure = self.autoencoder.measure
        count = len(measure.modalities) if isinstance(measure, ModalSSIM) else 0
        planes = 1 + len(x) + 2 * count
        if not np.isfinite(x[shown]).any():
            return _split(np.full((planes, *x.shape[1:]), np.nan, np.float32), len(x), count)
        plan = self._plan((x.shape[1], x.shape[2]))
        blended = Blender(plan, planes)
        with torch.inference_mode():
            for where, tiles in plan.tiles(x, batch=self.tiles_at_once):
                values = self._examine(torch.from_numpy(tiles).to(self._device), hidden)
                blended.add(where, values.cpu().numpy())
        maps = _split(blended.result(), len(x), count)
        if self.takes_absent:
            # Where the network saw nothing there is nothing to compare, and 0 would stand for a perfect match.
            anomaly = np.where(np.isfinite(x[shown]).any(0), maps.anomaly, np.float32(np.nan))
            maps = maps._replace(anomaly=anomaly)
        return maps

    def reset(self) -> None:
        """Keep the network, which is all there is to a reconstruction model."""

    def fit(self, source: TrainingSource, run: FittingRun) -> FitRecord:
        """Let ``run`` train the network."""
        run.train(self.autoencoder, self.name)
        return FitRecord()

    def _examine(self, x: Tensor, hidden: Sequence[slice]) -> Tensor:
        """Tiles (n, C, P, P) to anomaly, reconstruction, own and cross residuals: (n, 1 + C + 2 M, P, P)."""
        autoencoder, measure = self.autoencoder, self.autoencoder.measure
        shown = x
        if hidden:
            shown = x.clone()
            for channels in hidden:
                shown[:, channels] = torch.nan
        if not isinstance(measure, ModalSSIM):
            residual, reconstruction = autoencoder.examine(shown)
            return torch.cat([residual, reconstruction], 1)
        if not self.takes_absent:
            residual, reconstruction = autoencoder.examine(shown)
            own = measure.each(shown, reconstruction)
            return torch.cat([residual, reconstruction, own, torch.full_like(own, torch.nan)], 1)
        found = modal_residuals(autoencoder, shown)
        cross = found.crossed
        if hidden:
            # A hidden modality is reconstructed from the others already, and is there to compare with.
            places = [place for place, own in enumerate(channel_slices(measure.modalities)) if own in hidden]
            cross = cross.clone()
            cross[:, places] = measure.each(x, found.reconstruction)[:, places]
        return torch.cat([_mean(found.own), found.reconstruction, found.own, cross], 1)


def _split(values: Floats, channels: int, modalities: int) -> AnomalyMaps:
    anomaly, reconstruction, own, cross = np.split(values, [1, 1 + channels, 1 + channels + modalities])
    if not modalities:
        return AnomalyMaps(anomaly[0], reconstruction)
    return AnomalyMaps(anomaly[0], reconstruction, own, cross)


def _mean(own: Tensor) -> Tensor:
    """Residual of the modalities (n, M, h, w) that are present, as :class:`ModalSSIM` has it: (n, 1, h, w)."""
    count = (~own.isnan()).sum(1, keepdim=True)
    return own.nansum(1, keepdim=True) / count.clamp_min(1)
