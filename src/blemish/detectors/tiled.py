"""Anomaly maps of an autoencoder, blended from overlapping tiles; in whatever runtime the network is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from blemish.detectors.contracts import AnomalyMaps, Floats
from blemish.preprocessing.absent import filled, inside_places, zero_outside
from blemish.preprocessing.tiling import Blender, TilePlan

TILES_AT_ONCE = 16
PIXELS_AT_ONCE = 2**17
"""Of the tiles of a scene: enough for the network to be busy, few enough for its features to stay in cache."""


class TiledModel:
    """Anomaly model of an autoencoder: the residual of its reconstruction, blended from overlapping tiles.

    The tiles of one image form the batches, never those of several, because the sums of a convolution depend on the
    size of the batch in their last bits: so the score of an image does not depend on which others are inspected.
    """

    patch: int
    """Side of the tiles in pixels."""
    stride: int
    """Step between tiles in pixels."""
    tiles_at_once: int

    @property
    @abstractmethod
    def takes_absent(self) -> bool:
        """True if values may be absent (NaN)."""

    @property
    @abstractmethod
    def modal_channels(self) -> Sequence[slice]:
        """Channels of each modality that has maps of its own; empty of a model of single images."""

    @abstractmethod
    def examine(self, x: Floats, shown: Floats) -> Floats:
        """Tiles ``x`` (n, C, P, P), of which the network is ``shown`` some channels, to what they look like.

        Returns
        -------
        (n, 1 + C + 2 M, P, P): anomaly, reconstruction, own and cross residuals of each modality; then, where ``shown``
        is not ``x``, residuals of each modality of ``x`` against the reconstruction, M more, which are optional
        otherwise.
        """

    def plan(self, size: tuple[int, int]) -> TilePlan:
        """Tiles of an image of ``size`` (height, width)."""
        return TilePlan(size, (self.patch, self.patch), (self.stride, self.stride))

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        """As :meth:`~blemish.detectors.contracts.AnomalyModel.window`."""
        return self.plan(size).around(rows, columns)

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        """As :meth:`~blemish.detectors.contracts.AnomalyModel.maps`."""
        inside = None if self.takes_absent else inside_places(x)
        x = filled(x, inside)
        shown = np.ones(len(x), np.bool_)
        for channels in hidden:
            shown[channels] = False
        count = len(self.modal_channels)
        planes = 1 + len(x) + 2 * count
        if not np.isfinite(x[shown]).any():
            return _split(np.full((planes, *x.shape[1:]), np.nan, np.float32), len(x), count)
        plan = self.plan((x.shape[1], x.shape[2]))
        blended = Blender(plan, planes)
        for where, tiles in plan.tiles(x, batch=self.tiles_at_once):
            blended.add(where, self._planes(tiles, hidden))
        maps = _split(blended.result(), len(x), count)
        if self.takes_absent:
            # Where the network saw nothing there is nothing to compare, and 0 would stand for a perfect match.
            anomaly = np.where(np.isfinite(x[shown]).any(0), maps.anomaly, np.float32(np.nan))
            maps = maps._replace(anomaly=anomaly)
        return maps._replace(anomaly=zero_outside(maps.anomaly, inside))

    def _planes(self, x: Floats, hidden: Sequence[slice]) -> Floats:
        """Tiles (n, C, P, P) to anomaly, reconstruction, own and cross residuals: (n, 1 + C + 2 M, P, P)."""
        values = self.examine(x, _without(x, hidden))
        modalities = self.modal_channels
        cross = 1 + x.shape[1] + len(modalities)
        against = cross + len(modalities)
        if hidden and self.takes_absent:
            # A hidden modality is reconstructed from the others already, and is there to compare with.
            for place, channels in enumerate(modalities):
                if channels in hidden:
                    values[:, cross + place] = values[:, against + place]
        return values[:, :against]


def tiles_at_once(patch: int, modalities: int) -> int:
    """Tiles of side ``patch`` that a network sees at once; ``modalities`` is 0 for single images."""
    return max(1, PIXELS_AT_ONCE // patch**2) if modalities else TILES_AT_ONCE


def _without(x: Floats, hidden: Sequence[slice]) -> Floats:
    """Copy of tiles ``x`` (n, C, P, P) whose channels ``hidden`` are absent; ``x`` itself without any."""
    if not hidden:
        return x
    shown = x.copy()
    for channels in hidden:
        shown[:, channels] = np.nan
    return shown


def _split(values: Floats, channels: int, modalities: int) -> AnomalyMaps:
    anomaly, reconstruction, own, cross = np.split(values, [1, 1 + channels, 1 + channels + modalities])
    if not modalities:
        return AnomalyMaps(anomaly[0], reconstruction)
    return AnomalyMaps(anomaly[0], reconstruction, own, cross)
