"""Reconstruction model: an autoencoder in torch and its residual, over overlapping tiles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blemish.data.modality import channel_slices
from blemish.detectors.contracts import FitRecord, FittingRun, Floats, TrainingSource
from blemish.detectors.tiled import TiledModel, tiles_at_once
from blemish.models.autoencoder import Autoencoder
from blemish.models.modal_similarity import ModalSSIM, modal_residuals


class ReconstructionModel(nn.Module, TiledModel):
    """Anomaly model of an autoencoder in torch; see :class:`~blemish.detectors.tiled.TiledModel`.

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
        self.modalities = modalities
        self.tiles_at_once = tiles_at_once(patch, modalities)

    @property
    def title(self) -> str:
        return self.autoencoder.measure.title

    @property
    def takes_absent(self) -> bool:
        return self.autoencoder.encoder.takes_absent

    @property
    def modal_channels(self) -> Sequence[slice]:
        measure = self.autoencoder.measure
        return channel_slices(measure.modalities) if isinstance(measure, ModalSSIM) else ()

    @property
    def least_evidence(self) -> float:
        """Value of the anomaly map below which nothing was found; 0 where the map has no absolute meaning."""
        return float(getattr(self.autoencoder.measure, "least_evidence", 0.0))

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def examine(self, x: Floats, shown: Floats) -> Floats:
        with torch.inference_mode():
            tiles = torch.from_numpy(x).to(self._device)
            seen = tiles if shown is x else torch.from_numpy(shown).to(self._device)
            values: Floats = examined(self.autoencoder, tiles, seen).cpu().numpy()
        return values

    def reset(self) -> None:
        """Keep the network, which is all there is to a reconstruction model."""

    def fit(self, source: TrainingSource, run: FittingRun) -> FitRecord:
        """Let ``run`` train the network."""
        run.train(self.autoencoder, self.name)
        return FitRecord()


def examined(autoencoder: Autoencoder, x: Tensor, shown: Tensor) -> Tensor:
    """Planes of tiles as :meth:`~blemish.detectors.tiled.TiledModel.examine` gives them, on the device of ``x``."""
    measure = autoencoder.measure
    if not isinstance(measure, ModalSSIM):
        residual, reconstruction = autoencoder.examine(shown)
        return torch.cat([residual, reconstruction], 1)
    if not autoencoder.encoder.takes_absent:
        residual, reconstruction = autoencoder.examine(shown)
        own = measure.each(shown, reconstruction, measure.baseline(autoencoder, shown))
        return torch.cat([residual, reconstruction, own, torch.full_like(own, torch.nan)], 1)
    found = modal_residuals(autoencoder, shown)
    planes = [_mean(found.own), found.reconstruction, found.own, found.crossed]
    if shown is not x:
        planes.append(measure.each(x, found.reconstruction, found.baseline))
    return torch.cat(planes, 1)


def _mean(own: Tensor) -> Tensor:
    """Residual of the modalities (n, M, h, w) that are present, as :class:`ModalSSIM` has it: (n, 1, h, w)."""
    count = (~own.isnan()).sum(1, keepdim=True)
    return own.nansum(1, keepdim=True) / count.clamp_min(1)
