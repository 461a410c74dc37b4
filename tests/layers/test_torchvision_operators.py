"""Operators are declared for the whole process, so each case runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys

DECLARED = "[name for name in ('nms', 'qnms') if hasattr(torch.ops.torchvision, name)]"


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_can_be_imported_after_blemish_and_its_networks_work() -> None:
    assert (
        output_of(
            "import blemish.layers, torch, torchvision\n"
            "with torch.device('meta'):\n"
            "    print(tuple(torchvision.models.vgg16().features(torch.zeros(1, 3, 32, 32)).shape))\n"
            f"print({DECLARED})"
        )
        == "(1, 512, 1, 1)\n['nms', 'qnms']"
    )


def test_nothing_is_declared_where_the_library_of_torchvision_loads() -> None:
    """The library would declare the same operators, and torch ends the process at the second declaration."""
    loaded, declared = output_of(
        "import os, torch\n"
        "torch.ops.load_library = lambda path: print(os.path.basename(os.path.dirname(path)))\n"
        f"import blemish.layers\nprint({DECLARED})"
    ).splitlines()
    assert (loaded, declared) == ("torchvision", "[]")


def test_operators_are_declared_where_the_library_cannot_be_loaded_or_is_missing() -> None:
    refuse = "def refuse(path): raise OSError\ntorch.ops.load_library = refuse"
    # The class is one of Python's own finders, so everything else must still be found.
    hide = "PathFinder.find_spec = lambda name, *rest: None if name == '_C' else found(name, *rest)"
    for breakage in (refuse, hide):
        assert (
            output_of(
                "import torch\nfrom importlib.machinery import PathFinder\nfound = PathFinder.find_spec\n"
                f"{breakage}\nimport blemish.layers\nprint({DECLARED})"
            )
            == "['nms', 'qnms']"
        )


def test_without_torchvision_nothing_is_loaded_or_declared() -> None:
    assert (
        output_of(
            "import sys, torch\nsys.modules['torchvision'] = None\ntorch.ops.load_library = print\n"
            f"import blemish.layers\nprint({DECLARED})"
        )
        == "[]"
    )
