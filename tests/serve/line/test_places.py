"""Places of a line: none that feeds it its own output, none twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blemish.errors import ServeError
from blemish.serve.line.description import parse_line
from blemish.serve.line.places import check_places


def check(base: Path, sources: list[dict[str, Any]], sinks: list[dict[str, Any]], home: str = "home") -> None:
    check_places(parse_line({"sources": sources, "sinks": sinks}, "x"), base, base / home)


def folder(path: str, **more: Any) -> dict[str, Any]:
    return {"name": "in", "type": "folder", "path": path, **more}


def rejects(path: str, name: str = "rejects") -> dict[str, Any]:
    return {"name": name, "type": "folder", "path": path}


@pytest.mark.parametrize(
    ("source", "sink", "home", "words"),
    [
        (folder("parts"), "parts", "home", "'sinks[0].path' lies in the folder of 'sources[0]'"),
        (folder("parts"), "parts/../parts", "home", "'sinks[0].path' lies in the folder of 'sources[0]'"),
        (folder("parts", recursive=True), "parts/out", "home", "'sinks[0].path' lies in the folder of 'sources[0]'"),
        (folder(".", recursive=True), "../out", "home", "the home folder of the server lies in the folder of"),
        (folder("parts", after="move", move_to="parts"), "out", "home", "'sources[0].move_to' is its own folder"),
    ],
)  # fmt: skip
def test_a_line_that_would_inspect_what_it_writes_is_refused(
    tmp_path: Path, source: dict[str, Any], sink: str, home: str, words: str
) -> None:
    with pytest.raises(ServeError) as error:
        check(tmp_path, [source], [rejects(sink)], home)
    assert str(error.value).startswith(words)


def test_a_link_to_the_folder_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "parts")
    with pytest.raises(ServeError, match="would inspect what the line writes"):
        check(tmp_path, [folder("parts")], [rejects("link")])


def test_folders_beside_each_other_and_below_one_that_is_not_searched_are_taken(tmp_path: Path) -> None:
    check(tmp_path, [folder("parts")], [rejects("parts/rejects")])
    check(tmp_path, [folder("parts", recursive=True)], [rejects("parts-rejected")])
    check(tmp_path, [folder(".")], [rejects("rejects")])
    check(tmp_path, [folder("parts", recursive=True, after="move", move_to="parts/done")], [])


def test_two_sinks_cannot_write_to_one_place(tmp_path: Path) -> None:
    table = {"type": "csv", "path": "a.csv"}
    with pytest.raises(ServeError, match=r"'sinks\[1\].path' is that of 'sinks\[0\]'; give each its own"):
        check(tmp_path, [], [{"name": "a", **table}, {"name": "b", **table, "path": "./a.csv"}])
    with pytest.raises(ServeError, match=r"'sinks\[1\].port' is that of 'sinks\[0\]'; give each its own"):
        check(tmp_path, [], [{"name": "a", "type": "opcua-server"}, {"name": "b", "type": "opcua-server"}])
    check(tmp_path, [], [rejects("out", "a"), rejects("out", "b")])
