"""Parts of an anomaly model in torch as records, arrays and graphs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from blemish.detectors.contracts import AnomalyModel
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.feature_extractors import (
    Colour,
    FeatureExtractor,
    LocalContrast,
    Structure,
    WideStructure,
)
from blemish.detectors.filter_bank import FilterBank
from blemish.detectors.map_normaliser import MapNormaliser
from blemish.detectors.memory_bank import MemoryBank
from blemish.detectors.patch_bank import PatchBank
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import UsageError
from blemish.export.graphs import features_graph, network_graph, search_graph
from blemish.runtime.record import (
    ExportedBank,
    ExportedExtractor,
    ExportedFilters,
    ExportedMember,
    ExportedMemory,
    ExportedNetwork,
)


class Parts(NamedTuple):
    """An anomaly model in parts."""

    members: tuple[ExportedMember, ...]
    names: tuple[str, ...]
    arrays: dict[str, np.ndarray]
    graphs: dict[str, bytes]
    """ONNX graphs by the names of their files."""


def parts_of(model: AnomalyModel, channels: int) -> Parts:
    """The parts of ``model``, which takes images of ``channels`` channels; members without any weight are left out.

    Raises
    ------
    UsageError
        When a part cannot be exported; its name stands in the message.
    MissingExtraError
        When a package of the extra ``export`` is not installed.
    """
    arrays: dict[str, np.ndarray] = {}
    graphs: dict[str, bytes] = {}
    if not isinstance(model, Ensemble):
        return Parts((_member(model, 0, channels, arrays, graphs),), ("network",), arrays, graphs)
    weights = model.weights
    used = [number for number in model.used if not _is_empty(model.models[number])]
    members = []
    for place, number in enumerate(used):
        members.append(_member(model.models[number], place, channels, arrays, graphs))
        if str(number) in model.normalisers:
            normaliser = model.normalisers[str(number)]
            assert isinstance(normaliser, MapNormaliser)
            arrays |= _normaliser(normaliser, f"normalisers.{place}.")
    arrays["weights"] = np.array([weights[number] for number in used], np.float64)
    arrays["scales"] = np.array([model.scale_values[number] for number in used], np.float64)
    if model.combination == "soft-maximum":
        arrays["powers"] = np.array([model.power_values[number] for number in used], np.float64)
    return Parts(tuple(members), tuple(model.names[number] for number in used), arrays, graphs)


def _is_empty(model: AnomalyModel) -> bool:
    return isinstance(model, FilterBank | MemoryBank) and model.is_empty


def _member(
    model: AnomalyModel, place: int, channels: int, arrays: dict[str, np.ndarray], graphs: dict[str, bytes]
) -> ExportedMember:
    prefix = f"members.{place}."
    if isinstance(model, ReconstructionModel):
        name = f"network-{place}.onnx"
        graphs[name] = network_graph(model, channels)
        return ExportedNetwork(
            graph=name,
            title=model.title,
            patch=model.patch,
            stride=model.stride,
            tiles_at_once=model.tiles_at_once,
            takes_absent=model.takes_absent,
            channels=channels,
            modalities=tuple(one.stop - one.start for one in model.modal_channels),
        )
    if isinstance(model, FilterBank):
        mean, spread = model.reference
        arrays |= {f"{prefix}mean": mean, f"{prefix}spread": spread}
        return ExportedFilters()
    if isinstance(model, MemoryBank):
        banks: list[ExportedBank] = []
        for bank in model.banks:
            assert isinstance(bank, PatchBank)
            if not bank.is_empty:
                own = f"{prefix}banks.{len(banks)}."
                banks.append(_bank(bank, place, len(banks), channels, own, arrays, graphs))
        return ExportedMemory(title=model.title, banks=tuple(banks))
    raise UsageError(f"the model has a part '{type(model).__name__}', which cannot be exported")


def _bank(
    bank: PatchBank,
    place: int,
    number: int,
    channels: int,
    prefix: str,
    arrays: dict[str, np.ndarray],
    graphs: dict[str, bytes],
) -> ExportedBank:
    arrays |= {f"{prefix}mean": bank.mean.numpy(), f"{prefix}basis": bank.basis.numpy()}
    arrays |= _normaliser(bank.normaliser, f"{prefix}normaliser.")
    search: str | None = None
    if bank.by_place:
        arrays |= {f"{prefix}bank": bank.bank.numpy(), f"{prefix}size": bank.size.numpy()}
    else:
        search = f"search-{place}-{number}.onnx"
        graphs[search] = search_graph(bank.bank)
    return ExportedBank(
        extractor=_extractor(bank.extractor, f"features-{place}-{number}.onnx", channels, graphs),
        search=search,
        nearest_images=bank.nearest_images,
        reach=bank.reach,
    )


def _extractor(
    extractor: FeatureExtractor, graph: str, channels: int, graphs: dict[str, bytes]
) -> ExportedExtractor:
    shared = {
        "stride": extractor.stride,
        "offset": extractor.offset,
        "least_side": extractor.least_side,
        "title": extractor.title,
    }
    # A subclass may compute anything, so only these very classes are known as arrays.
    if type(extractor) in (Structure, WideStructure, LocalContrast):
        assert isinstance(extractor, Structure)
        name = "local-contrast" if isinstance(extractor, LocalContrast) else "structure"
        return ExportedExtractor(name=name, patch=extractor.patch, floor=extractor.floor, **shared)
    if type(extractor) is Colour:
        return ExportedExtractor(name="colour", patch=extractor.patch, **shared)
    refused = UsageError(
        f"the model has the feature extractor '{extractor.title}', which cannot be exported; fit with "
        "structure, local-contrast, colour or efficientnet-lite"
    )
    if extractor.reduction != 1:
        raise refused
    try:
        graphs[graph] = features_graph(extractor, channels)
    except (
        RuntimeError,
        TypeError,
        ValueError,
        NotImplementedError,
    ):  # of torch's exporter, by the operation
        raise refused from None
    return ExportedExtractor(name="graph", graph=graph, **shared)


def _normaliser(normaliser: MapNormaliser, prefix: str) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {f"{prefix}mean": normaliser.mean.numpy(), f"{prefix}spread": normaliser.spread.numpy()}
