"""Adaptation of an autoencoder that holds its own memory bank to the contract of anomaly models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from blemish.data.scenes import Modality
from blemish.detectors.contracts import AnomalyMaps, AnomalyModel, Floats
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.models import Autoencoder, build
from blemish.recipes import Recipe
from blemish.storage.model_folder import Document, load_weights


class LegacyEnsemble(ReconstructionModel):
    """Reconstruction model and the memory bank that its autoencoder holds, joined."""

    @property
    def memory(self) -> Any:
        return self.autoencoder.memory

    @property
    def title(self) -> str:
        title: str = self.autoencoder.measure.title
        return title if self.memory.is_empty else f"{title}, with distance to the remembered structure"

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        self._plan(size)
        return slice(0, size[0]), slice(0, size[1])

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        shown, reconstruction = self.by_network(x)
        remembered = None if self.memory.is_empty else torch.from_numpy(self.by_memory(x)).to(self._device)
        with torch.inference_mode():
            joint = self.memory.join(torch.from_numpy(shown).to(self._device), remembered).cpu().numpy()
        return AnomalyMaps(joint, reconstruction)

    def by_network(self, x: Floats) -> tuple[Floats, Floats]:
        maps = super().maps(x)
        assert maps.reconstruction is not None
        return maps.anomaly, maps.reconstruction

    def by_memory(self, x: Floats, without: int | None = None) -> Floats:
        with torch.inference_mode():
            values = self.memory(torch.from_numpy(x)[None].to(self._device), without)[0, 0]
            return np.asarray(values.cpu().numpy())


def for_inspection(
    model: Autoencoder, recipe: Recipe, modalities: Sequence[Modality] = (), *, device: str = "cpu"
) -> AnomalyModel:
    """``model`` as an anomaly model, in evaluation mode on ``device``."""
    model.eval().to(device)
    # In this layout convolutions run up to twice as fast on CPUs.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kind = ReconstructionModel if model.memory is None else LegacyEnsemble
    return kind(model, patch=recipe.patch.size, stride=recipe.patch.stride, modalities=len(modalities)).eval()


def load_model(
    folder: Path,
    document: Document,
    recipe: Recipe,
    channels: int,
    modalities: Sequence[Modality],
    *,
    device: str,
) -> AnomalyModel:
    """The anomaly model in ``folder``, with its weights."""
    model = load_weights(
        folder, document, lambda: build(recipe, channels, modalities=modalities, pretrained=False)
    )
    return for_inspection(model, recipe, modalities, device=device)


def stored(model: Any) -> nn.Module:
    """The module whose weights a model folder keeps."""
    module: nn.Module = model.autoencoder
    return module
