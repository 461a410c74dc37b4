"""Telemetry of the runtimes: off before they are imported, unless the user's own variable says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blemish.inspection.detector import Detector

PROGRAM = """
import os, sys
seen = {}
def look(event, given):
    if event == "import" and given[0] in ("onnxruntime", "openvino"):
        seen.setdefault(given[0], os.environ.get("ORT_DISABLE_TELEMETRY"))
    if event == "socket.connect":
        seen["connected"] = given[1]
sys.addaudithook(look)
from blemish.inspection.detector import load
load(sys.argv[1])
if len(sys.argv) > 2:
    from blemish.runtime.sessions import openvino_core
    openvino_core()
print(seen, sys.modules.get("openvino_telemetry"))
"""


def run(*words: str, **environment: str) -> str:
    names = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={**names, **environment}
    ).stdout.strip()


def test_it_is_off_before_a_runtime_is_imported(exported: tuple[Detector, Path]) -> None:
    assert run(str(exported[1])) == "{'onnxruntime': '1'} None"


def test_a_variable_of_the_user_stays(exported: tuple[Detector, Path]) -> None:
    assert run(str(exported[1]), ORT_DISABLE_TELEMETRY="0") == "{'onnxruntime': '0'} None"


def test_openvino_does_without_it(exported: tuple[Detector, Path]) -> None:
    pytest.importorskip("openvino")
    assert run(str(exported[1]), "openvino") == "{'onnxruntime': '1', 'openvino': '1'} None"
