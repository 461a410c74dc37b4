"""Damaged or foreign exported folders, and runtimes that are missing or too old: one line each."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from blemish.errors import ImageError, MissingExtraError, ModelError
from blemish.export.parts import Parts
from blemish.inspection.detector import Detector, load
from blemish.storage.model_folder import MODEL_FILE

GRAPH = "network-0.onnx"


@pytest.fixture
def folder(exported: tuple[Detector, Path], tmp_path: Path) -> Path:
    """A copy of an exported folder, to be damaged at will."""
    return Path(shutil.copytree(exported[1], tmp_path / "model"))


def refused(folder: Path, words: str) -> str:
    with pytest.raises(ModelError, match=words) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def vouched(folder: Path, graph: bytes) -> Path:
    """Put ``graph`` in place of the network, as if the export had made it."""
    (folder / GRAPH).write_bytes(graph)
    content: dict[str, Any] = json.loads((folder / MODEL_FILE).read_text())
    content.pop("content_sha256")
    content["export"]["graphs"][GRAPH] = hashlib.sha256(graph).hexdigest()
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / MODEL_FILE).write_text(json.dumps({**content, "content_sha256": digest}))
    return folder


def graph(output: str = "planes", *, opset: int = 18, outputs: int = 1, planes: int = 5) -> bytes:
    """A graph that repeats its tiles."""
    names = [f"{output}{number or ''}" for number in range(outputs)]
    made = helper.make_graph(
        [helper.make_node("Concat", ["tiles"] * planes, [name], axis=1) for name in names],
        "other",
        [helper.make_tensor_value_info("tiles", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def test_a_missing_graph(folder: Path) -> None:
    (folder / GRAPH).unlink()
    assert GRAPH in refused(folder, "cannot be read .*; copy the whole model folder")


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_a_truncated_graph(folder: Path, keep: int) -> None:
    (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes()[:keep])
    assert GRAPH in refused(folder, "is incomplete|was edited|does not fit|copy")


def test_a_foreign_graph(folder: Path) -> None:
    (folder / GRAPH).write_bytes(graph())
    assert GRAPH in refused(folder, "copy")


def test_a_graph_that_is_none(folder: Path) -> None:
    assert "ONNX Runtime" in refused(vouched(folder, b"not a graph"), "cannot be read by ONNX Runtime")


def test_a_runtime_that_is_too_old_for_the_operators(folder: Path) -> None:
    """Operators of a far future stand for a runtime of the past."""
    refused(
        vouched(folder, graph(opset=999)), "cannot be read by ONNX Runtime .*upgrade ONNX Runtime, or export"
    )


def test_a_graph_of_two_outputs(folder: Path) -> None:
    refused(vouched(folder, graph(outputs=2)), "has 2 outputs instead of one")


def test_a_graph_whose_output_has_another_shape(folder: Path, good: Path) -> None:
    detector = load(vouched(folder, graph(planes=5)))
    with pytest.raises(ModelError, match=r"gives \(\d+, 5, 32, 32\) for tiles .* belongs") as caught:
        detector.inspect(min(good.iterdir()))
    assert GRAPH in str(caught.value)


def test_a_graph_of_another_input(folder: Path, good: Path) -> None:
    content = onnx.load_model_from_string(graph(planes=2))
    content.graph.input[0].name = "pixels"
    del content.graph.node[0].input[:]
    content.graph.node[0].input.extend(["pixels", "pixels"])
    detector = load(vouched(folder, content.SerializeToString()))
    with pytest.raises(ModelError, match="does not take what this model gives it"):
        detector.inspect(min(good.iterdir()))


def test_an_array_that_is_missing(exported_posed: tuple[Detector, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load as load_arrays
    from safetensors.numpy import save as save_arrays

    folder = Path(shutil.copytree(exported_posed[1], tmp_path / "model"))
    weights = folder / "model.safetensors"
    arrays = load_arrays(weights.read_bytes())
    del arrays["scales"]
    weights.write_bytes(save_arrays(arrays))
    content = json.loads((folder / MODEL_FILE).read_text())
    content.pop("content_sha256")
    content["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / MODEL_FILE).write_text(json.dumps({**content, "content_sha256": digest}))
    refused(folder, "is no complete export .*scales")


def test_an_image_of_another_depth(folder: Path, tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((40, 48), np.uint16))
    with pytest.raises(ImageError, match=r"deep\.tif: is 16-bit, the model was fitted on 8-bit"):
        load(folder).inspect(tmp_path / "deep.tif")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``without(name)``: as if the package were not installed."""

    def hide(hidden: str) -> None:
        real = builtins.__import__

        def imported(name: str, *args: Any, **options: Any) -> Any:
            if name.split(".")[0] == hidden:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)
            return real(name, *args, **options)

        monkeypatch.setattr(builtins, "__import__", imported)

    return hide


def test_openvino_that_is_not_installed(
    fitted: tuple[Detector, Path],
    fitted_parts: Parts,
    tmp_path: Path,
    without: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from blemish.export.export_model import exported_detector
    from blemish.observer import Observer
    from blemish.runtime import sessions

    exported_detector(fitted[0], "openvino", tmp_path, Observer(), fitted_parts).save(tmp_path)
    monkeypatch.setattr(sessions, "openvino_core", sessions.openvino_core.__wrapped__)
    without("openvino")
    with pytest.raises(MissingExtraError, match=r"openvino is not installed; .*\[openvino\]"):
        load(tmp_path)


def test_a_graph_for_openvino_cannot_name_files_of_this_machine(tmp_path: Path) -> None:
    """ONNX, which OpenVINO reads as well, can: the weights of a graph may lie in any file."""
    from blemish.runtime.sessions import open_session

    path = tmp_path / "secret.bin"
    path.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value=str(path))
    value = helper.make_tensor_value_info("tiles", TensorProto.FLOAT, [4])
    planes = helper.make_tensor_value_info("planes", TensorProto.FLOAT, [4])
    made = helper.make_graph(
        [helper.make_node("Add", ["tiles", "w"], ["planes"])], "other", [value], [planes], [outside]
    )
    content = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()
    with pytest.raises(ModelError, match="is no graph of OpenVINO"):
        open_session("openvino", content, b"", path=tmp_path / "network-0.xml")
    with pytest.raises(ModelError, match="cannot be read by ONNX Runtime"):
        open_session("onnx", content, path=tmp_path / "network-0.onnx")


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_detector_may_be_used_by_several_threads(
    runtime: Any, posed: tuple[Detector, Path], posed_parts: Parts, bolts: Path, tmp_path: Path
) -> None:
    """In a process of its own, with a limit: two first calls of OpenVINO at once would wait for each other for ever."""
    from blemish.export.export_model import exported_detector
    from blemish.observer import Observer

    exported_detector(posed[0], runtime, tmp_path, Observer(), posed_parts).save(tmp_path)
    code = (
        "import sys, blemish\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from pathlib import Path\n"
        "detector = blemish.load(sys.argv[1])\n"
        "images = sorted(Path(sys.argv[2]).iterdir())[:6] * 2\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(lambda path: detector.inspect(path).score, images))\n"
        "print(found == [detector.inspect(path).score for path in images])\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path, bolts],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr


def test_ctrl_c_is_a_request_after_models_of_openvino_came_and_went(
    fitted: tuple[Detector, Path], fitted_parts: Parts, tmp_path: Path
) -> None:
    """In a process of its own, which each core of OpenVINO could leave without a stack for its signal handlers."""
    from blemish.export.export_model import exported_detector
    from blemish.observer import Observer

    exported_detector(fitted[0], "openvino", tmp_path, Observer(), fitted_parts).save(tmp_path)
    code = (
        "import gc, signal, sys, blemish\n"
        "from blemish.interruption import interruptible\n"
        "first = blemish.load(sys.argv[1])\n"
        "second = blemish.load(sys.argv[1])\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "with interruptible() as asked:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print(asked())\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr


def test_without_torch_a_model_in_torch_names_the_export(
    fitted: tuple[Detector, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("blemish.detectors.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        MissingExtraError, match=r"torch .*or run blemish export where torch is installed"
    ) as caught:
        load(fitted[1])
    assert str(fitted[1]) in str(caught.value)
