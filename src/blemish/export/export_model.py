"""Export of a fitted detector to a folder that is inspected with without torch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from blemish.data.image import read_image
from blemish.errors import UsageError
from blemish.export.graphs import OPSET
from blemish.export.parity import compared
from blemish.export.parts import Parts, parts_of
from blemish.export.precision import MOST, check_enough, cost_of, half_graphs, int8_graphs
from blemish.extras import explain_missing
from blemish.inspection.calibration import calibrated_again, parts_in
from blemish.inspection.detector import Detector, load
from blemish.observer import Observer
from blemish.runtime.model import ExportedModel, assembled, sha256
from blemish.runtime.record import (
    RUNTIME_WORDS,
    Export,
    ExportedMember,
    ExportedNetwork,
    Precision,
    RuntimeName,
)
from blemish.runtime.sessions import openvino_core
from blemish.runtime.telemetry import without_telemetry
from blemish.storage.model_folder import refuse_finished_model
from blemish.storage.run_lock import owned

if TYPE_CHECKING:
    import openvino


def export_model(
    model: str | Path,
    out: str | Path,
    *,
    to: RuntimeName = "onnx",
    precision: Precision = "fp32",
    images: str | Path | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Detector:
    """Export the model in a folder for another runtime, after a check that it agrees with the one in torch.

    Parameters
    ----------
    model: folder that :func:`blemish.fit` made.
    out: folder of the exported model, which is a model folder like any other; only training goes on from it no more.
    to: ``onnx`` for ONNX Runtime, ``openvino`` for OpenVINO.
    precision: ``fp32``; ``fp16`` stores weights in half precision; ``int8`` computes the convolutions of networks in 8
        bits, by ONNX Runtime. With a lower precision the decision is calibrated anew, on the images that it was
        calibrated on, and the cost is measured on the held-out ones.
    images: good images that the model was fitted on, to compare on those of its calibration; without them it is
        compared on generated images.
    overwrite: replace a model that is already in ``out``.

    Raises
    ------
    ExportError
        When the exported model does not agree with the one in torch; nothing is written then.
    UsageError
        When a part of the model cannot be exported, ``out`` holds a model, or a lower precision is asked for without
        images or with too few of them.
    FileError, MissingExtraError
        In one line that names the file or package, and the remedy.
    """
    observer = observer or Observer()
    with owned(out):
        folder, source = Path(out), None if images is None else Path(images)
        if not overwrite:
            refuse_finished_model(folder)
        if precision == "int8" and to != "onnx":
            raise UsageError("int8 is for ONNX Runtime; export with --to onnx, or with --precision fp16")
        detector = load(model)
        if precision != "fp32" and (source is None or detector.file.subject == "scenes"):
            raise UsageError(
                f"{precision} needs the good images that the model was fitted on, to calibrate its decision anew; "
                "name their folder"
                if source is None
                else f"{precision} is for models of single images; export with fp32"
            )
        exported = exported_detector(detector, to, folder, observer)
        observer.stage("Comparing the exported model with the one in torch")
        exported = _with_record(exported, parity=compared(detector, exported, source, observer))
        if precision != "fp32":
            assert source is not None
            exported = _lowered(exported, precision, source, folder, observer)
        exported.save(folder)
    return exported


def _lowered(
    detector: Detector, precision: Precision, source: Path, folder: Path, observer: Observer
) -> Detector:
    """An exported detector in a lower precision, its decision calibrated anew on images in ``source``."""
    model = detector.model
    assert isinstance(model, ExportedModel)
    held_out = parts_in(detector.file, source)["validation"].values()
    images = [read_image(item.path) for item in list(held_out)[:MOST]]
    check_enough(images)
    observer.stage(f"Lowering the precision to {precision}")
    if precision == "int8":
        graphs = int8_graphs(detector, images)
    elif model.export.runtime == "onnx":
        graphs = half_graphs(model.graphs)
    else:
        graphs = half_openvino_graphs(model.graphs)
    found = _with_graphs(detector, graphs, folder, precision=precision)
    found = calibrated_again(found, source, observer)
    observer.stage(f"Measuring the cost on {len(images)} held-out good images")
    return _with_record(found, cost=cost_of(detector, found, images))


def exported_detector(
    detector: Detector, to: RuntimeName, folder: Path, observer: Observer, parts: Parts | None = None
) -> Detector:
    """``detector`` with its anomaly model in another runtime; nothing is compared or written yet.

    Parameters
    ----------
    parts: of the model, as :func:`~blemish.export.parts.parts_of` gives them, where they are at hand.

    Raises
    ------
    UsageError
        When it is exported already, or a part cannot be exported.
    """
    if detector.file.export is not None:
        raise UsageError(
            f"the model is exported already, for {RUNTIME_WORDS[detector.file.export.runtime]}; give the folder that "
            "blemish fit made"
        )
    observer.stage(f"Writing the graphs of the model for {RUNTIME_WORDS[to]}")
    parts = for_runtime(parts or parts_of(detector.model, detector.file.preprocessing.channels), to)
    record = Export(
        runtime=to,
        opset=OPSET,
        weights_sha256=detector.file.weights_sha256,
        graphs=_digests(parts.graphs),
        members=parts.members,
        names=parts.names,
        combination=getattr(detector.model, "combination", None),
    )
    return _assembled(detector, record, parts.arrays, parts.graphs, folder)


def _with_graphs(
    detector: Detector, graphs: Mapping[str, bytes], folder: Path, **changes: object
) -> Detector:
    """An exported detector with other graphs of the same names."""
    model, file = detector.model, detector.file
    assert isinstance(model, ExportedModel)
    arrays = load_arrays(model.weights)
    record = model.export.model_copy(update={"graphs": _digests(graphs), **changes})
    return _assembled(detector.with_file(file), record, arrays, graphs, folder)


def _assembled(
    detector: Detector,
    record: Export,
    arrays: Mapping[str, np.ndarray],
    graphs: Mapping[str, bytes],
    folder: Path,
) -> Detector:
    """The detector of exported parts, with the facts and the decision of ``detector``."""
    # Of an array that is not contiguous it would keep the values in the order of the memory.
    contiguous = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    # The digest of this file stands for the model, so it depends on the graphs as well.
    weights = save_arrays(contiguous, metadata=dict(record.graphs))
    model = assembled(record, weights, graphs, detector.score, folder)
    file = detector.file.model_copy(update={"export": record, "weights_sha256": sha256(weights)})
    return Detector(model, file)


def _digests(graphs: Mapping[str, bytes]) -> dict[str, str]:
    return {name: sha256(content) for name, content in graphs.items()}


def _with_record(detector: Detector, **changes: object) -> Detector:
    """``detector`` with changes of the record of its export."""
    file, model = detector.file, detector.model
    assert isinstance(model, ExportedModel)
    record = model.export.model_copy(update=changes)
    changed = ExportedModel(record, model.model, model.weights, model.graphs)
    return Detector(changed, file.model_copy(update={"export": record}))


def for_runtime(parts: Parts, to: RuntimeName) -> Parts:
    """``parts`` with their graphs in the format of a runtime.

    Raises
    ------
    MissingExtraError
        When OpenVINO is asked for and not installed.
    """
    if to == "onnx":
        return parts
    return parts._replace(members=tuple(map(_renamed, parts.members)), graphs=_openvino_graphs(parts.graphs))


def _openvino_graphs(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Each ONNX graph as that of OpenVINO: its XML and its weights, in single precision.

    Raises
    ------
    MissingExtraError
        When OpenVINO is not installed.
    """
    with explain_missing():
        core = openvino_core()
    made: dict[str, bytes] = {}
    for name, content in graphs.items():
        made |= _saved(core.read_model(model=content), name.removesuffix(".onnx"), is_half=False)
    return made


def half_openvino_graphs(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Graphs of OpenVINO with their weights stored in half precision."""
    core = openvino_core()
    made: dict[str, bytes] = {}
    for name, content in graphs.items():
        if name.endswith(".xml"):
            stem = name.removesuffix(".xml")
            read = core.read_model(model=content, weights=graphs[f"{stem}.bin"])
            made |= _saved(read, stem, is_half=True)
    return made


def _saved(model: openvino.Model, stem: str, *, is_half: bool) -> dict[str, bytes]:
    """The two files of a graph of OpenVINO, by name."""
    without_telemetry()
    import openvino

    with tempfile.TemporaryDirectory(prefix="blemish-export-") as folder:
        path = Path(folder) / f"{stem}.xml"
        openvino.save_model(model, path, compress_to_fp16=is_half)
        return {one.name: one.read_bytes() for one in (path, path.with_suffix(".bin"))}


def _renamed(member: ExportedMember) -> ExportedMember:
    """``member`` with the names of OpenVINO's files in place of ONNX's."""
    if isinstance(member, ExportedNetwork):
        return member.model_copy(update={"graph": member.graph.replace(".onnx", ".xml")})
    if member.kind != "memory bank":
        return member
    banks = []
    for bank in member.banks:
        own = bank.extractor
        if own.graph is not None:
            own = own.model_copy(update={"graph": own.graph.replace(".onnx", ".xml")})
        search = None if bank.search is None else bank.search.replace(".onnx", ".xml")
        banks.append(bank.model_copy(update={"extractor": own, "search": search}))
    return member.model_copy(update={"banks": tuple(banks)})
