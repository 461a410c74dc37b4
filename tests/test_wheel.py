"""Content of the wheel, as pyproject.toml selects it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "blemish"


@pytest.fixture(scope="module")
def setuptools_table() -> Any:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def committed_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "src/blemish"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).exists()]


def test_every_data_file_of_the_package_is_in_the_wheel(setuptools_table: Any) -> None:
    patterns = setuptools_table["package-data"]
    assert patterns.keys() == {"blemish"}
    matched = {path for pattern in patterns["blemish"] for path in PACKAGE.glob(pattern)}
    data = {path for path in committed_files() if path.suffix != ".py"}
    assert {path.suffix for path in data} >= {".yaml", ".json", ".typed", ".html", ".css", ".js"}
    assert data <= matched, sorted(str(path) for path in data - matched)


def test_no_pattern_of_the_wheel_is_without_a_file(setuptools_table: Any) -> None:
    for pattern in setuptools_table["package-data"]["blemish"]:
        assert any(PACKAGE.glob(pattern)), pattern


def test_every_folder_with_modules_is_a_package(setuptools_table: Any) -> None:
    assert setuptools_table["packages"]["find"] == {"where": ["src"]}
    for folder in {path.parent for path in committed_files() if path.suffix == ".py"}:
        assert (folder / "__init__.py").is_file(), folder


def test_studies_benchmarks_and_tests_stay_out_of_the_wheel() -> None:
    assert [path.name for path in (ROOT / "src").iterdir() if (path / "__init__.py").is_file()] == ["blemish"]
