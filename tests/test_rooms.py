"""The plan of the package: which room imports which, without circles, and how names and modules are kept apart."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import blemish

ROOT = Path(blemish.__file__).parent
LONGEST = 450  # lines of a module

ROOMS = (
    "_version", "errors", "limits", "extras", "observer", "interruption", "workers", "storage",
    "data", "preprocessing", "decision",
    "layers", "similarity", "recipes", "models", "detectors", "runtime",
    "report", "training", "inspection", "evaluation", "export", "serve",
    "sklearn", "jpeg", "scale", "demo", "checks", "cli", "panels", "__main__",
)  # fmt: skip
"""The rooms of the package in the order of the design: each imports only rooms before it, or its exceptions."""

EXCEPTIONS = {
    ("training", "inspection"): "fit gives a Detector",
}
"""Pairs of rooms of which the first may import the second, which comes after it, and why."""

FOR_TYPES = {
    ("observer", "training"): "the observer is given the progress of a training",
}
"""Pairs of rooms of which the first may name types of the second, which comes after it, in annotations alone."""

PUBLIC = (
    "BlemishError", "Detector", "__version__", "calibrate", "evaluate", "extract_features", "fit", "inspect",
    "inspect_folder", "load", "load_recipe", "read_features", "similarity",
)  # fmt: skip
"""The public names of the package, as the API reference lists them."""

VAGUE = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}


class Import(NamedTuple):
    """One module of the package that another imports."""

    importer: str
    imported: str
    when: Literal["loaded", "called", "checked"]
    """At the top of the module, within a function, or for type checkers alone."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported_modules(importer: str, node: ast.AST) -> Iterator[str]:
    """The modules of the package that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in MODULES)
    elif isinstance(node, ast.ImportFrom):
        package = MODULES[importer].name == "__init__.py"
        above = importer.split(".")[: len(importer.split(".")) - node.level + package] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            name = f"{module}.{alias.name}"
            if name in MODULES:
                yield name
            elif module in MODULES:
                yield module


def imports_within(
    importer: str, node: ast.AST, when: Literal["loaded", "called", "checked"]
) -> Iterator[Import]:
    for name in imported_modules(importer, node):
        yield Import(importer, name, when)
    types = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
    within = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        if child in types:
            yield from imports_within(importer, child, "checked")
        else:
            yield from imports_within(importer, child, "called" if within and when == "loaded" else when)


IMPORTS = [found for name, tree in TREES.items() for found in imports_within(name, tree, "loaded")]


def room(module: str) -> str:
    """``blemish.data.image`` is in ``data``; the package itself, which only gives names, in none."""
    return module.partition(".")[2].partition(".")[0]


def climbs(*, for_types: bool) -> dict[tuple[str, str], set[str]]:
    """Imports of rooms that come after the importer's, by the two rooms."""
    order = {name: number for number, name in enumerate(ROOMS)}
    found = defaultdict(set)
    for importer, imported, when in IMPORTS:
        here, there = room(importer), room(imported)
        if here and there and (when == "checked") is for_types and order[there] > order[here]:
            found[here, there].add(f"{importer} imports {imported}")
    return found


def test_the_imports_of_the_package_are_found() -> None:
    assert len(IMPORTS) > 2 * len(MODULES)
    assert Import("blemish.storage.run_folder", "blemish.errors", "loaded") in IMPORTS
    assert Import("blemish.observer", "blemish.errors", "loaded") in IMPORTS
    assert {found.when for found in IMPORTS} == {"loaded", "called", "checked"}
    for statement, expected in {
        "from blemish.data import image": ["blemish.data.image"],
        "from blemish.data.image import read_image, resize": ["blemish.data.image"] * 2,
        "import blemish.errors": ["blemish.errors"],
        "from . import image": ["blemish.data.image"],
        "from .image import read_image": ["blemish.data.image"],
        "from ..errors import FileError": ["blemish.errors"],
        "import numpy": [],
    }.items():
        assert list(imported_modules("blemish.data.maps", ast.parse(statement).body[0])) == expected, (
            statement
        )


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room(name) for name in MODULES} - {""} <= set(ROOMS)
    assert len(set(ROOMS)) == len(ROOMS)


def test_rooms_import_only_rooms_before_them() -> None:
    found = climbs(for_types=False)
    wrong = sorted(line for pair, lines in found.items() if pair not in EXCEPTIONS for line in lines)
    assert wrong == []
    assert set(EXCEPTIONS) <= set(found), "an exception that nothing needs any more"


def test_annotations_name_types_of_rooms_before_theirs() -> None:
    found = climbs(for_types=True)
    allowed = {**EXCEPTIONS, **FOR_TYPES}
    wrong = sorted(line for pair, lines in found.items() if pair not in allowed for line in lines)
    assert wrong == []
    assert set(FOR_TYPES) <= set(found), "an exception that nothing needs any more"


@pytest.mark.parametrize("lowest", ["errors", "observer", "interruption", "storage", "data", "preprocessing"])
def test_the_lowest_rooms_have_no_exception(lowest: str) -> None:
    assert not [pair for pair in EXCEPTIONS if pair[0] == lowest]


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules each of which imports all others of its set, through others or not (Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(edges.get(name, ())):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            start = stack.index(name)
            members = sorted(stack[start:])
            del stack[start:]
            if len(members) > 1 or name in edges.get(name, ()):
                found.append(members)

    for name in sorted(edges):
        if name not in number:
            visit(name)
    return sorted(found)


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c", "a"}, "c": {"d"}, "d": {"c"}, "e": {"e"}}) == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]


@pytest.mark.parametrize("moments", [("loaded",), ("loaded", "called")], ids=" and ".join)
def test_no_modules_import_each_other(moments: tuple[str, ...]) -> None:
    edges: dict[str, set[str]] = defaultdict(set)
    for importer, imported, when in IMPORTS:
        if when in moments and importer != imported:
            edges[importer].add(imported)
    assert circles(edges) == []


def test_no_class_name_is_defined_twice() -> None:
    homes = defaultdict(list)
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_module_is_long() -> None:
    lengths = {name: path.read_text(encoding="utf-8").count("\n") for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name for name in MODULES if name.rpartition(".")[2].strip("_") in VAGUE] == []


def test_the_public_names_are_those_of_the_list() -> None:
    assert tuple(sorted(PUBLIC)) == PUBLIC
    assert tuple(blemish.__all__) == PUBLIC
    assert tuple(dir(blemish)) == PUBLIC
