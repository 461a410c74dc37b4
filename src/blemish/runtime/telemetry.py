"""Telemetry of the runtimes, which is off: nothing leaves the machine that nobody asked to send.

The packages of ONNX Runtime send events to Microsoft since 1.32, and the converters of OpenVINO to Google Analytics, both
unless that is switched off before they are imported.
"""

from __future__ import annotations

import os
import sys

ONNX_VARIABLE = "ORT_DISABLE_TELEMETRY"
"""Of ONNX Runtime: with 1 it makes neither an uploader nor a number for this machine."""


def without_telemetry() -> None:
    """Switch telemetry off in this process and those that it starts; before a runtime is imported.

    A variable of the environment that is set already stays as it is.
    """
    os.environ.setdefault(ONNX_VARIABLE, "1")
    # OpenVINO does without the package where it cannot be imported, and has no other switch for one process.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
