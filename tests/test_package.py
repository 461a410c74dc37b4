from __future__ import annotations

import subprocess
import sys

import pytest

import blemish

BLOCK_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


def python(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_importing_blemish_costs_neither_torch_nor_numpy() -> None:
    heavy = {"torch", "numpy", "PIL", "scipy", "pydantic", "lightning", "rich", "typer"}
    loaded = python("import blemish, sys; print(*{name.split('.')[0] for name in sys.modules})")
    assert "blemish" in loaded.split()
    assert not heavy & set(loaded.split())


def test_rooms_that_run_without_torch() -> None:
    out = python(
        BLOCK_TORCH
        + "import blemish.data.image, blemish.data.windowed, blemish.preprocessing.transform, blemish.decision, blemish.report, blemish.cli.app, blemish.recipes\n"
        "from blemish.recipes import load_recipe; print(load_recipe('ssim-ae').name)"
    )
    assert out == "ssim-ae\n"


def test_without_torch_the_line_that_installs_it_is_told() -> None:
    out = python(
        BLOCK_TORCH + "import blemish\n"
        "for name in ('fit', 'load', 'similarity'):\n"
        "    try: getattr(blemish, name)\n"
        "    except blemish.BlemishError as error: print(type(error).__name__, error)\n"
        "sys.argv = ['blemish', 'fit', 'good', '--out', 'model']\n"
        "from blemish.__main__ import main\n"
        "sys.stderr = sys.stdout\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code)\n"
    )
    line = "torch is not installed; type in the project's folder: pip install -e '.[train]'"
    assert out.splitlines() == [f"MissingExtraError {line}"] * 3 + [f"blemish: {line}", "2"]


@pytest.mark.parametrize("asked", [None, "ACTIVE"])
def test_threads_of_the_command_line_sleep_while_they_wait_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if asked:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    out = python(
        "import os, sys\n"
        "sys.argv = ['blemish', '--help']\n"
        "from blemish.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])\n"
    )
    assert out.splitlines()[-1] == f"False {asked or 'PASSIVE'}"


def test_public_names() -> None:
    assert sorted(blemish.__all__) == blemish.__all__ == dir(blemish)
    for name in blemish.__all__:
        assert getattr(blemish, name) is not None
    assert blemish.fit.__module__ == "blemish.training.fit"
    assert blemish.similarity.__name__ == "blemish.similarity"
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = blemish.fitt
