"""Files of the page: whole, from this package alone, and nothing that a strict content security policy stops."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import blemish
from blemish.serve.page_files import MESSAGES, PAGE, page_files

FILES = sorted(path for path in PAGE.rglob("*") if path.is_file())
ELSEWHERE = re.compile(r"(?:https?:)?//(?!www\.w3\.org/)[a-z0-9.-]+\.[a-z]{2,}", re.IGNORECASE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PAGE).as_posix())
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    assert ELSEWHERE.findall(path.read_text(encoding="utf-8")) == []


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"\sstyle=|<style|\son\w+=|javascript:", html) == []
    for script in re.findall(r"<script([^>]*)>(.*?)</script>", html, re.S):
        assert "src=" in script[0]
        assert script[1] == ""


def test_scripts_write_no_markup() -> None:
    """Names of images come from anywhere, and are only ever set as text."""
    for path in PAGE.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert (
            re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
            == []
        ), path.name
        assert re.findall(r"[\"']style[\"']\s*[:,]|[{,]\s*style:\s[^\"]*[:;]|cssText", text) == [], path.name


def test_everything_that_is_named_is_served() -> None:
    served = page_files()
    assert set(served) == {path.relative_to(PAGE).as_posix() for path in FILES}
    for path in PAGE.rglob("*.js"):
        for name in re.findall(r"from \"(\.[^\"]+)\"", path.read_text(encoding="utf-8")):
            target = (path.parent / name).resolve().relative_to(PAGE.resolve()).as_posix()
            assert target in served, f"{path.name} imports {name}"
    for name in re.findall(r"(?:src|href)=\"(page/[^\"]+)\"", (PAGE / "index.html").read_text("utf-8")):
        assert name.removeprefix("page/") in served
    assert served["app.js"][1].startswith("text/javascript")


def test_names_that_scripts_import_are_exported() -> None:
    exported = {
        path: set(
            re.findall(r"^export (?:async )?(?:const|function|class) (\w+)", path.read_text("utf-8"), re.M)
        )
        for path in PAGE.rglob("*.js")
    }
    missing = []
    for path in exported:
        text = path.read_text(encoding="utf-8")
        for names, target in re.findall(r"^import \{([^}]*)\} from \"([^\"]+)\"", text, re.M):
            wanted = {name.split(" as ")[0].strip() for name in names.split(",")}
            missing += [
                f"{path.name}: {name}" for name in wanted - exported[(path.parent / target).resolve()]
            ]
            used = re.sub(r"^import .*$", "", text, flags=re.M)
            missing += [
                f"{path.name}: {name} is not used" for name in wanted if not re.search(rf"\b{name}\b", used)
            ]
    assert missing == []


def test_every_file_is_in_the_wheel() -> None:
    text = (Path(blemish.__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"\[tool\.setuptools\.package-data\]\nblemish = \[(.*?)\]", text, re.S)
    assert block is not None
    root = Path(blemish.__file__).parent
    packed = {
        path
        for pattern in re.findall(r'"([^"]+)"', block[1])
        for path in root.glob(pattern)
        if path.is_file()
    }
    assert {*FILES, *MESSAGES.glob("*.json")} - packed == set()
