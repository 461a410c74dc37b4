"""Sessions: graphs as functions of arrays, computed by ONNX Runtime or OpenVINO."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from blemish.detectors.contracts import Floats
from blemish.errors import ModelError
from blemish.extras import explain_missing, one_line
from blemish.runtime.record import RUNTIME_WORDS, RuntimeName
from blemish.runtime.telemetry import without_telemetry

Session = Callable[[Mapping[str, Floats]], Floats]
"""Arrays by the names of a graph's inputs to its only output."""

_ONE_AT_A_TIME = threading.Lock()
"""Of OpenVINO's calls, each of which takes all its threads."""
THREADS_VARIABLE = "OMP_NUM_THREADS"
"""Environment variable of the number of threads, as of torch and numpy."""


def open_session(runtime: RuntimeName, graph: bytes, weights: bytes | None = None, *, path: Path) -> Session:
    """The function that ``graph`` is.

    Parameters
    ----------
    graph: ONNX, or the XML of an OpenVINO graph.
    weights: of an OpenVINO graph.
    path: of the file, for errors.

    Raises
    ------
    MissingExtraError
        When the runtime is not installed.
    ModelError
        When the runtime cannot read the graph: it is damaged, or the runtime is too old for its operators.
    """
    with explain_missing():
        opened = {"onnx": _onnx, "openvino": _openvino}[runtime]
        try:
            return opened(graph, weights, path)
        except (ImportError, ModelError):
            raise
        except Exception as error:  # both runtimes raise classes of their own, and bare RuntimeError
            raise ModelError(
                path,
                f"cannot be read by {RUNTIME_WORDS[runtime]} {_version(runtime)} ({one_line(error)[:200]})",
                f"upgrade {RUNTIME_WORDS[runtime]}, or export the model again",
            ) from None


def threads() -> int:
    """Threads that a model may take: as :data:`THREADS_VARIABLE` says, or one for each core of this process."""
    value = os.environ.get(THREADS_VARIABLE, "")
    if value.isdecimal() and int(value) > 0:
        return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(runtime: RuntimeName) -> str:
    from importlib import metadata

    return metadata.version("onnxruntime" if runtime == "onnx" else "openvino")


def _onnx(graph: bytes, weights: bytes | None, path: Path) -> Session:
    without_telemetry()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors, which are raised as well
    options.intra_op_num_threads = threads()
    # Threads that wait in a loop take the cores from members that compute at the same time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    outputs = [one.name for one in session.get_outputs()]
    _check_outputs(outputs, path)

    def run(inputs: Mapping[str, Floats]) -> Floats:
        try:
            (found,) = session.run(outputs, dict(inputs))
        except Exception as error:  # a bare RuntimeError, or classes that are not public
            raise _failed(path, error) from None
        return np.asarray(found, np.float32)

    return run


def _openvino(graph: bytes, weights: bytes | None, path: Path) -> Session:
    # OpenVINO also reads ONNX, where a graph may name files of this machine as its weights.
    if not graph.lstrip().startswith(b"<"):
        raise ModelError(path, "is no graph of OpenVINO", "copy the whole folder again, or export again")
    core = openvino_core()
    # By default the precision depends on the processor, and so would the score.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_NUM_THREADS"] = threads()
    read = core.read_model(model=graph, weights=weights or b"")
    _check_outputs([one.any_name for one in read.outputs], path)
    compiled = core.compile_model(read, "CPU", settings)

    def run(inputs: Mapping[str, Floats]) -> Floats:
        # Its Python interface is not made for several threads: two first calls at once wait for each other for ever.
        with _ONE_AT_A_TIME:
            try:
                return np.array(compiled(dict(inputs))[0], np.float32)
            except RuntimeError as error:
                raise _failed(path, error) from None

    return run


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """The one core of OpenVINO in this process.

    Each core gives the process a stack for signal handlers, and puts back the former one when it ends. Of two that end in
    another order than they began, the stack that stays is gone, and the next Ctrl-C ends the process.
    """
    without_telemetry()
    import openvino

    return openvino.Core()


def _check_outputs(names: list[str], path: Path) -> None:
    if len(names) != 1:
        raise ModelError(
            path, f"has {len(names)} outputs instead of one", "copy the whole folder again, or export again"
        )


def _failed(path: Path, error: Exception) -> ModelError:
    return ModelError(
        path,
        f"does not take what this model gives it ({one_line(error)[:200]})",
        "copy the whole folder again, or export again",
    )
