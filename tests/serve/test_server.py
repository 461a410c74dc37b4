"""Opening a server: what a killed one left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from blemish.storage.leftovers import temporary_name
from tests.serve.serving import Serve


@pytest.mark.parametrize("folder", ["", "line", "models/waves", "models/waves/versions", "fits/1"])
def test_temporary_files_of_a_killed_server_go_when_it_opens(
    serve: Serve, tmp_path: Path, folder: str
) -> None:
    (killed := subprocess.Popen([sys.executable, "-c", ""])).wait()
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    left = tmp_path / folder / f".part-{temporary_name().split('-')[1]}-{killed.pid}-0123456789ab.jsonl"
    own = left.with_name(temporary_name(".jsonl"))
    for made in (left, own):
        made.touch()
    with serve(home=tmp_path):
        assert not left.exists()
        assert own.exists(), "a part of this process is writing it"


def test_temporary_files_go_beside_the_description_of_the_line(serve: Serve, tmp_path: Path) -> None:
    (killed := subprocess.Popen([sys.executable, "-c", ""])).wait()
    left = tmp_path / f".part-{temporary_name().split('-')[1]}-{killed.pid}-0123456789ab.yaml"
    left.touch()
    (line := tmp_path / "line.yaml").write_text("version: 1\n")
    with serve(home=tmp_path / "home", line=line):
        assert not left.exists()
