"""Export of a fitted detector to a folder that is inspected with without torch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from blemish.errors import UsageError
from blemish.export.graphs import OPSET
from blemish.export.parity import compared
from blemish.export.parts import Parts, parts_of
from blemish.extras import explain_missing
from blemish.inspection.detector import Detector, load
from blemish.observer import Observer
from blemish.runtime.model import ExportedModel, assembled, sha256
from blemish.runtime.record import RUNTIME_WORDS, Export, ExportedMember, ExportedNetwork, RuntimeName
from blemish.storage.model_folder import refuse_finished_model
from blemish.storage.run_lock import owned


def export_model(
    model: str | Path,
    out: str | Path,
    *,
    to: RuntimeName = "onnx",
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
    images: good images that the model was fitted on, to compare on those of its calibration; without them it is
        compared on generated images.
    overwrite: replace a model that is already in ``out``.

    Raises
    ------
    ExportError
        When the exported model does not agree with the one in torch; nothing is written then.
    UsageError
        When a part of the model cannot be exported, or ``out`` holds a model.
    FileError, MissingExtraError
        In one line that names the file or package, and the remedy.
    """
    observer = observer or Observer()
    with owned(out):
        folder = Path(out)
        if not overwrite:
            refuse_finished_model(folder)
        detector = load(model)
        exported = exported_detector(detector, to, folder, observer)
        observer.stage("Comparing the exported model with the one in torch")
        parity = compared(detector, exported, None if images is None else Path(images), observer)
        exported = _with_export(exported, parity=parity)
        exported.save(folder)
    return exported


def exported_detector(detector: Detector, to: RuntimeName, folder: Path, observer: Observer) -> Detector:
    """``detector`` with its anomaly model in another runtime; nothing is compared or written yet.

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
    parts = parts_of(detector.model, detector.file.preprocessing.channels)
    graphs = parts.graphs if to == "onnx" else openvino_graphs(parts.graphs)
    members = parts.members if to == "onnx" else tuple(map(_renamed, parts.members))
    return assembled_detector(detector, parts, members, graphs, to, folder)


def assembled_detector(
    detector: Detector,
    parts: Parts,
    members: tuple[ExportedMember, ...],
    graphs: Mapping[str, bytes],
    to: RuntimeName,
    folder: Path,
) -> Detector:
    """The detector of ``members`` and ``graphs``, with the facts and the decision of ``detector``."""
    from safetensors.numpy import save

    record = Export(
        runtime=to,
        opset=OPSET,
        weights_sha256=detector.file.weights_sha256,
        graphs={name: sha256(content) for name, content in graphs.items()},
        members=members,
        names=parts.names,
        combination=getattr(detector.model, "combination", None),
    )
    # The digest of this file stands for the model, so it depends on the graphs as well.
    # Of an array that is not contiguous it would keep the values in the order of the memory.
    arrays = {name: np.ascontiguousarray(values) for name, values in parts.arrays.items()}
    weights = save(arrays, metadata=dict(record.graphs))
    model = assembled(record, weights, graphs, detector.score, folder)
    file = detector.file.model_copy(update={"export": record, "weights_sha256": sha256(weights)})
    return Detector(model, file)


def _with_export(detector: Detector, **changes: object) -> Detector:
    file, model = detector.file, detector.model
    assert file.export is not None
    assert isinstance(model, ExportedModel)
    return detector.with_file(file.model_copy(update={"export": file.export.model_copy(update=changes)}))


def openvino_graphs(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Each ONNX graph as that of OpenVINO: its XML and its weights, in single precision.

    Raises
    ------
    MissingExtraError
        When OpenVINO is not installed.
    """
    with explain_missing():
        import openvino

    core = openvino.Core()
    made: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="blemish-export-") as folder:
        for name, content in graphs.items():
            path = Path(folder) / name.replace(".onnx", ".xml")
            read = core.read_model(model=content)
            openvino.save_model(read, path, compress_to_fp16=False)
            made[path.name] = path.read_bytes()
            made[path.with_suffix(".bin").name] = path.with_suffix(".bin").read_bytes()
    return made


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
