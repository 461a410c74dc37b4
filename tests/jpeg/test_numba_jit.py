from __future__ import annotations

import os
from pathlib import Path

import pytest

from blemish.jpeg import numba_jit as compiling


def double(x: float) -> float:
    return 2 * x


def test_compiled_functions_give_what_python_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "CACHED", False)
    assert compiling.compiled(double)(2.5) == double(2.5)


def test_a_folder_that_is_read_only_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiling._writable(tmp_path)
    assert compiling._writable(tmp_path / "__pycache__")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not compiling._writable(tmp_path)
