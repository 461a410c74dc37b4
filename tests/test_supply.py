"""Locked requirements and licences: they agree with pyproject.toml, constraints.txt and what is installed."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

pytest.importorskip("tomllib")  # Python 3.11, as the locks

from supply import licences, lock

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The locks, constraints.txt and pyproject.toml in a folder of their own."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock, "FOLDER", tmp_path / "requirements")
    return tmp_path


def test_locks_agree_with_constraints_and_pyproject() -> None:
    assert lock.problems() == []


@pytest.mark.parametrize("name", lock.LOCKS)
def test_every_requirement_of_a_lock_has_a_version_and_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    found = lock.entries(text)
    assert found.keys() == lock.pins(text).keys()
    assert len(found) > 20
    assert min(found.values()) >= 1


def test_the_core_is_locked_without_torch() -> None:
    core, train = (
        lock.pins((ROOT / "requirements" / f"{name}.txt").read_text()) for name in ("core", "train")
    )
    assert "torch" not in core
    assert core.items() < train.items()
    assert {"torch", "lightning"} <= train.keys()
    assert {"numpy", "onnxruntime"} <= core.keys()


def change(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"), count=1)
    assert count == 1
    path.write_text(text, encoding="utf-8")


def test_a_lock_that_is_out_of_date_is_named_with_its_package(copied: Path) -> None:
    change(copied / "constraints.txt", r"(?m)^numpy==.*$", "numpy==2.0.1")
    change(copied / "pyproject.toml", r'"typer>=', '"another-package",\n    "typer>=')
    change(
        copied / "requirements" / "core.txt", r"(?s)(\nidna|\njinja2)(==\S+ )\\\n.*?(?=    # via)", r"\1\2\n"
    )
    (copied / "requirements" / "supply.txt").unlink()
    found = lock.problems()
    assert all(line.endswith("make lock") for line in found)
    for name in ("core", "train", "dev"):
        path = copied / "requirements" / f"{name}.txt"
        version = lock.pins(path.read_text())["numpy"]
        assert f"{path}: numpy is {version}, in constraints.txt 2.0.1; make lock" in found
        assert f"{path}: another-package is missing; make lock" in found
    assert f"{copied / 'requirements' / 'core.txt'}: jinja2 has no hash; make lock" in found
    assert f"{copied / 'requirements' / 'supply.txt'}: is missing; make lock" in found


def test_no_dependency_has_a_licence_that_is_unknown_or_not_allowed() -> None:
    assert licences.refused(licences.licences()) == []


def test_the_page_lists_every_package_that_is_installed_with_its_licence() -> None:
    rows = re.findall(
        r"^\| (\S+) \| (\S+) \| ([^|]+) \| ([^|]+) \|", licences.PAGE.read_text(encoding="utf-8"), re.M
    )
    stated = {name: (expression, part) for name, _, expression, part in rows[1:]}
    found = licences.licences()
    assert {one.package: (one.expression, ", ".join(one.parts)) for one in found}.items() <= stated.items()
    assert {name for name, (_, part) in stated.items() if part == "core"} >= {"numpy", "onnxruntime", "scipy"}


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-2.0-only", False),
        ("GPL-2.0-only OR MIT AND Zlib", True),
        ("GPL-2.0-only AND MIT OR Apache-2.0", True),
        ("(MIT OR GPL-2.0-only) AND Zlib", False),
        ("(MIT OR Zlib) AND ISC", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("unknown", False),
    ],
)
def test_allowed_expressions(expression: str, allowed: bool) -> None:
    assert licences.is_allowed(expression) is allowed


def licence(expression: str, package: str = "new", part: str = "dev") -> licences.Licence:
    return licences.Licence(package, "1", expression, (part,))


def test_a_licence_that_is_not_allowed_is_named() -> None:
    assert licences.refused([licence("MIT"), licence("LGPL-3.0-only", "psycopg", "postgresql")]) == []
    assert licences.refused([licence("AGPL-3.0-only"), licence(licences.UNKNOWN, "other")]) == [
        "new (dev): AGPL-3.0-only is not in ALLOWED",
        "other (dev): unknown is not in ALLOWED",
    ]
    changed = [licence("GPL-3.0-only", "psycopg", "postgresql"), licence("LGPL-3.0-only", "psycopg", "core")]
    assert licences.refused(changed) == [
        "psycopg (postgresql): is GPL-3.0-only, and was LGPL-3.0-only when it was allowed",
        "psycopg (core): is an exception, and the core has none",
    ]


def installed(folder: Path, *lines: str) -> metadata.Distribution:
    """Metadata of a package of its own."""
    info = folder / "thing-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", "Name: thing", "Version: 1", *lines, ""])
    )
    return metadata.Distribution.at(info)


@pytest.mark.parametrize(
    ("lines", "expression"),
    [
        (["License-Expression: mit and apache-2.0"], "MIT AND Apache-2.0"),
        (["License: Apache 2.0"], "Apache-2.0"),
        (["License: a text of its own", "Classifier: License :: OSI Approved :: MIT License"], "MIT"),
        (["Classifier: License :: OSI Approved :: BSD License"], licences.UNKNOWN),  # of two clauses or three
        (["Classifier: License :: OSI Approved :: MIT License", "Classifier: License :: Public Domain"], licences.UNKNOWN),
        ([], licences.UNKNOWN),
    ],
)  # fmt: skip
def test_licences_are_read_from_metadata(lines: list[str], expression: str, tmp_path: Path) -> None:
    assert licences.expression_of(installed(tmp_path, *lines)) == expression


def test_exceptions_and_stated_licences_are_of_packages_that_are_used() -> None:
    used = {one.package for one in licences.licences()}
    locked = set(lock.pins((ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")))
    assert {canonicalize_name(name) for name in {**licences.EXCEPTIONS, **licences.STATED}} <= used | locked
