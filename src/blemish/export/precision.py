"""Graphs of lower precision, and what they cost: synthetic anomalies found, and good images rejected."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from blemish.data.image import LoadedImage
from blemish.decision import roc_auc
from blemish.detectors.combination import CombinedModel
from blemish.detectors.contracts import Floats
from blemish.detectors.tiled import TiledModel
from blemish.errors import UsageError
from blemish.export.graphs import quiet
from blemish.extras import explain_missing
from blemish.inspection.detector import Detector
from blemish.inspection.judge import judge
from blemish.models.synthetic_anomalies import SyntheticAnomalies
from blemish.preprocessing.absent import absent_outside
from blemish.runtime.model import TILES, ExportedModel
from blemish.runtime.record import ExportedNetwork, PrecisionCost
from blemish.runtime.telemetry import without_telemetry

FEWEST = 8
"""Held-out good images that a network of lower precision is made and measured on, at least."""
MOST = 64
"""The same, at most."""
ALTERED = 2
"""Synthetic anomalies of each held-out image that the cost is measured on."""
TILES_AT_ONCE = 8
LARGE = 256
"""Values from which on a constant is stored in half precision."""


def check_enough(images: Sequence[LoadedImage]) -> None:
    """Refuse to lower the precision on too few held-out images.

    Raises
    ------
    UsageError
        Saying how many there are and how many are needed.
    """
    if len(images) < FEWEST:
        raise UsageError(
            f"{len(images)} held-out good images are too few to lower the precision on, which needs {FEWEST}; give the "
            "good images that the model was fitted on, or fit on more"
        )


def int8_graphs(detector: Detector, images: Sequence[LoadedImage]) -> dict[str, bytes]:
    """The graphs of an exported detector with the convolutions of its networks in 8 bits.

    Ranges of activations are those of the tiles of ``images``; weights have a range each channel.

    Raises
    ------
    UsageError
        When the model has no network.
    MissingExtraError
        When onnx is not installed.
    """
    model = detector.model
    assert isinstance(model, ExportedModel)
    networks = [one for one in model.export.members if isinstance(one, ExportedNetwork)]
    if not networks:
        raise UsageError("the model has no network whose precision could be lowered; export it with fp32")
    found = dict(model.graphs)
    for record in networks:
        tiles = np.concatenate(list(_tiles(_network(model, record), detector, images)))
        found[record.graph] = _int8(model.graphs[record.graph], tiles)
    return found


def half_graphs(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """ONNX graphs whose large constants are stored in half precision and computed with in single precision.

    Raises
    ------
    MissingExtraError
        When onnx is not installed.
    """
    with explain_missing():
        import onnx
        from onnx import TensorProto, helper, numpy_helper

    found = {}
    for name, content in graphs.items():
        proto = onnx.load_model_from_string(content)
        casts = []
        for constant in proto.graph.initializer:
            values = numpy_helper.to_array(constant)
            if values.dtype != np.float32 or values.size < LARGE:
                continue
            half = values.astype(np.float16)
            if not np.isfinite(half).all():
                continue  # beyond the range of half precision
            own = constant.name
            constant.CopyFrom(numpy_helper.from_array(half, f"{own} half"))
            casts.append(helper.make_node("Cast", [f"{own} half"], [own], to=TensorProto.FLOAT))
        nodes = [*casts, *proto.graph.node]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        found[name] = proto.SerializeToString()
    return found


def cost_of(before: Detector, after: Detector, images: Sequence[LoadedImage]) -> PrecisionCost:
    """Cost of a lower precision on held-out good images, which neither decision was calibrated on.

    The image AUROC is that of synthetic anomalies in ``images`` against ``images``; the false-reject rate is that of
    ``images`` by the decision of each detector.
    """
    anomalies = _anomalies(before)
    generator = torch.Generator().manual_seed(before.recipe.training.seed)
    labels: list[bool] = []
    scores: tuple[list[float], list[float]] = ([], [])
    for image in images:
        placed = before.file.preprocessing.apply(image)
        x = placed.pixels
        copies = torch.from_numpy(x)[None].expand(ALTERED, -1, -1, -1)
        altered = anomalies.synthesise(copies, 0.0, generator).numpy()
        for number, one in enumerate([x, *altered]):
            labels.append(number > 0)
            for own, detector in zip(scores, (before, after), strict=True):
                anomaly, _ = detector.examine(absent_outside(one, placed.inside))
                own.append(judge(detector.score, placed, anomaly)[0])
    good = ~np.array(labels)
    auroc = tuple(roc_auc(labels, own) for own in scores)
    rejected = tuple(
        float((np.array(own)[good] > detector.threshold).mean())
        for own, detector in zip(scores, (before, after), strict=True)
    )
    return PrecisionCost(
        images=len(images),
        auroc=(auroc[0], auroc[1]),
        rejected=(rejected[0], rejected[1]),
        threshold=(before.threshold, after.threshold),
    )


def _anomalies(detector: Detector) -> SyntheticAnomalies:
    """Synthetic anomalies of the recipe, or of default settings."""
    for part in detector.recipe.corruption:
        if part.name == "synthetic-anomalies":
            return SyntheticAnomalies(**{**part.settings, "textures": None})
    return SyntheticAnomalies()


def _network(model: ExportedModel, record: ExportedNetwork) -> TiledModel:
    place = model.export.members.index(record)
    found = model.model.models[place] if isinstance(model.model, CombinedModel) else model.model
    assert isinstance(found, TiledModel)
    return found


def _tiles(network: TiledModel, detector: Detector, images: Iterable[LoadedImage]) -> Iterator[Floats]:
    for image in images:
        x = detector.file.preprocessing.apply(image).pixels
        for _, tiles in network.plan((x.shape[1], x.shape[2])).tiles(x, batch=network.tiles_at_once):
            yield tiles.copy()


def _int8(graph: bytes, tiles: Floats) -> bytes:
    without_telemetry()
    with explain_missing():
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    proto = onnx.load_model_from_string(graph)
    weights = {one.name for one in proto.graph.initializer if one.name.startswith("autoencoder.")}
    # The windows of a residual are convolutions as well, and a variance in 8 bits would be noise.
    chosen = [
        node.name
        for node in proto.graph.node
        if node.op_type in ("Conv", "ConvTranspose") and weights.intersection(node.input)
    ]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Batches of tiles."""

        def __init__(self) -> None:
            self.batches = iter(np.array_split(tiles, max(1, len(tiles) // TILES_AT_ONCE)))

        def get_next(self) -> dict[str, Floats] | None:
            batch = next(self.batches, None)
            return None if batch is None else {TILES: batch}

    with tempfile.TemporaryDirectory(prefix="blemish-export-") as folder, quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            proto,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_quantize=chosen,
            op_types_to_quantize=["Conv", "ConvTranspose"],
        )
        return path.read_bytes()
