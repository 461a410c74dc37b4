"""Benchmarks, which are run by hand: what they import from the package is there."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))


def imported(path: Path) -> list[tuple[str, str]]:
    """Modules of this project that a file imports, with the name that it takes from each."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").partition(".")[0] in ("blemish", "studies")
        for alias in node.names
        if node.module
    ]


def is_there(module: str, name: str) -> bool:
    if hasattr(import_module(module), name):
        return True
    try:
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def test_the_imports_of_benchmarks_are_found() -> None:
    assert ("blemish.inspection.document", "versions") in imported(ROOT / "benchmarks" / "demo.py")
    assert is_there("blemish.inspection.document", "versions")
    assert is_there("blemish.preprocessing", "pose")
    assert not is_there("blemish.inspection.document", "version")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_that_a_benchmark_imports_are_in_the_package(path: Path) -> None:
    assert [pair for pair in imported(path) if not is_there(*pair)] == []
