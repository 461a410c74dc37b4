"""Exported anomaly models: networks in a runtime, banks and filters as arrays, combined as in torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from blemish.detectors.combination import CombinationRule, CombinedModel, T
from blemish.detectors.contracts import AnomalyModel, Floats
from blemish.detectors.filter_deviation import FilterDeviation
from blemish.detectors.map_arrays import MapScale
from blemish.detectors.tiled import TiledModel
from blemish.errors import ModelError
from blemish.runtime.bank import ArrayBank, ArrayMemory
from blemish.runtime.features import extractor_of
from blemish.runtime.record import (
    Export,
    ExportedFilters,
    ExportedMember,
    ExportedMemory,
    ExportedNetwork,
)
from blemish.runtime.sessions import Session, open_session, threads

TILES, SHOWN, PLANES = "tiles", "shown", "planes"
"""Names of the inputs and of the output of a network's graph."""

Arrays = Mapping[str, np.ndarray]


class RuntimeNetwork(TiledModel):
    """Network of a reconstruction model in a runtime."""

    def __init__(self, record: ExportedNetwork, session: Session, path: Path) -> None:
        self.record, self.session, self.path = record, session, path
        self.patch, self.stride, self.tiles_at_once = record.patch, record.stride, record.tiles_at_once
        self.title, self._takes_absent = record.title, record.takes_absent
        ends = accumulate(record.modalities, initial=0)
        self._channels = tuple(slice(start, stop) for start, stop in pairwise(ends))

    @property
    def takes_absent(self) -> bool:
        return self._takes_absent

    @property
    def modal_channels(self) -> Sequence[slice]:
        return self._channels

    def examine(self, x: Floats, shown: Floats) -> Floats:
        inputs = {TILES: x, SHOWN: shown} if self._channels and self._takes_absent else {TILES: shown}
        found = self.session({name: np.ascontiguousarray(one) for name, one in inputs.items()})
        planes = 1 + self.record.channels + (3 if self._takes_absent else 2) * len(self._channels)
        if found.shape != (len(x), planes, *x.shape[2:]):
            raise ModelError(
                self.path,
                f"gives {found.shape} for tiles {x.shape}, where {(len(x), planes, *x.shape[2:])} belongs",
                "copy the whole folder again, or export again",
            )
        return found


class ArrayFilters(FilterDeviation):
    """Filter bank whose mean and spread are arrays."""

    def __init__(self, mean: Floats, spread: Floats) -> None:
        self._reference = (mean, spread)

    @property
    def reference(self) -> tuple[Floats, Floats]:
        return self._reference


class RuntimeEnsemble(CombinedModel):
    """Ensemble of exported members."""

    def __init__(
        self,
        models: Sequence[AnomalyModel],
        combination: CombinationRule,
        arrays: Arrays,
        score: Callable[[Floats], float],
    ) -> None:
        self.models, self.combination, self.score = models, combination, score
        self._weights = arrays["weights"].tolist()
        self._scales = arrays["scales"].tolist()
        self._powers = arrays["powers"].tolist() if "powers" in arrays else [1.0] * len(models)
        self._normalisers = {
            number: MapScale(arrays[f"normalisers.{number}.mean"], arrays[f"normalisers.{number}.spread"])
            for number in range(len(models))
            if f"normalisers.{number}.mean" in arrays
        }

    @property
    def weights(self) -> list[float]:
        return list(self._weights)

    @property
    def scale_values(self) -> list[float]:
        return list(self._scales)

    @property
    def power_values(self) -> list[float]:
        return list(self._powers)

    @property
    def is_compressed(self) -> list[bool]:
        return [number in self._normalisers for number in range(len(self.models))]

    def each(self, function: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        """As :meth:`CombinedModel.each`, at the same time: members compute outside Python, and none on all cores well."""
        count = min(threads(), len(items))
        if count < 2:
            return super().each(function, items)
        # A pool of its own for each image costs 0.1 ms, and leaves no threads behind in a process that may fork.
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(function, items))

    def normalised(self, number: int, values: Floats) -> Floats:
        return self._normalisers[number](values) if number in self._normalisers else values


class ExportedModel:
    """Anomaly model of an exported folder, with the bytes that it is saved as.

    Parameters
    ----------
    export: record of the export.
    model: what the parts are together.
    weights: the bytes of ``model.safetensors``.
    graphs: the bytes of each graph's file.
    """

    def __init__(
        self, export: Export, model: AnomalyModel, weights: bytes, graphs: Mapping[str, bytes]
    ) -> None:
        self.export, self.model = export, model
        self.weights, self.graphs = weights, graphs
        self.maps, self.window = model.maps, model.window

    @property
    def title(self) -> str:
        return self.model.title

    @property
    def sees_areas(self) -> bool:
        """True if a part compares brightness and colour of areas as such."""
        return bool(getattr(self.model, "sees_areas", False))

    @property
    def takes_absent(self) -> bool:
        return self.model.takes_absent


def assembled(
    export: Export,
    weights: bytes,
    graphs: Mapping[str, bytes],
    score: Callable[[Floats], float],
    folder: Path,
) -> ExportedModel:
    """The anomaly model of an export.

    Parameters
    ----------
    weights: safetensors.
    graphs: content of each file of a graph.
    score: rule of the detector, which a soft maximum combines the members by.
    folder: for errors.

    Raises
    ------
    ModelError
        When a graph or an array is missing or does not fit.
    MissingExtraError
        When the runtime is not installed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    sessions: dict[str, Session] = {}
    for name, content in graphs.items():
        if not name.endswith(".bin"):
            stored = graphs.get(name.removesuffix(".xml") + ".bin") if name.endswith(".xml") else None
            sessions[name] = open_session(export.runtime, content, stored, path=folder / name)
    try:
        arrays = load(weights)
        models = [
            _member(one, f"members.{number}.", arrays, sessions, folder)
            for number, one in enumerate(export.members)
        ]
        if export.combination is None:
            (model,) = models
        else:
            model = RuntimeEnsemble(models, export.combination, arrays, score)
    except (SafetensorError, KeyError, ValueError, IndexError) as error:
        raise ModelError(
            folder,
            f"is no complete export ({type(error).__name__}: {error})",
            "copy the whole folder again, or export again",
        ) from None
    return ExportedModel(export, model, weights, graphs)


def _member(
    record: ExportedMember, prefix: str, arrays: Arrays, sessions: dict[str, Session], folder: Path
) -> AnomalyModel:
    if isinstance(record, ExportedNetwork):
        return RuntimeNetwork(record, sessions[record.graph], folder / record.graph)
    if isinstance(record, ExportedFilters):
        return ArrayFilters(arrays[f"{prefix}mean"], arrays[f"{prefix}spread"])
    return _memory(record, prefix, arrays, sessions, folder)


def _memory(
    record: ExportedMemory, prefix: str, arrays: Arrays, sessions: dict[str, Session], folder: Path
) -> ArrayMemory:
    banks = []
    for number, own in enumerate(record.banks):
        begin = f"{prefix}banks.{number}."
        parts = {name.removeprefix(begin): value for name, value in arrays.items() if name.startswith(begin)}
        extractor = extractor_of(own.extractor, sessions, folder)
        banks.append(ArrayBank(own, extractor, parts, None if own.search is None else sessions[own.search]))
    return ArrayMemory(record, banks)


def sha256(content: bytes) -> str:
    """SHA-256 of a graph's file."""
    return hashlib.sha256(content).hexdigest()
