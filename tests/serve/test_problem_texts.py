"""Texts of problems: each that the server raises has a message, which gives it back with its values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import blemish.serve
from blemish.serve.page_files import catalogue
from blemish.serve.problem_texts import PREFIX, problem_text

SERVE = Path(blemish.serve.__file__).parent
OF_THE_START = {
    "settings.py",
    "http_server.py",
    "logs.py",
    "schema.py",
    "backup.py",
    "verdicts.py",
    "weekly_report.py",
    "open_line.py",
}
"""Modules whose errors end a start or a command, and so are never on the page."""
AT_THE_START = (
    # Of modules that have others as well.
    "there is no model to serve", "history is in use", "there is no history", "a history is kept in", "the URL of the history",
    "cannot be read (X); check the path", "is not UTF-8 text", "is not valid YAML", "is no threshold that", "is no mask that",
    "there is no GenTL producer", "the GenTL producers", "X: cannot be moved to",
)  # fmt: skip
HELPERS = {"nearest": "did you mean 'X'?", "_there_are": "there are X", "_words": "the disk gives errors; free some space and check the disk, then start again", "_line": "X"}  # fmt: skip
"""What functions give that end a text."""
OF_FILES = ("FileError", "ImageError", "ModelError", "NoImageError", "TooManyPixelsError")


def text_of(node: ast.AST) -> str | None:
    """A string with X for each value; None where it is not written out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    found = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            found += str(part.value)
        else:
            assert isinstance(part, ast.FormattedValue)
            call = part.value.func if isinstance(part.value, ast.Call) else None
            name = getattr(call, "id", getattr(call, "attr", ""))
            found += HELPERS.get(name, "X")
    return found


def raised() -> Iterator[tuple[str, list[str]]]:
    """Problems and remedies that are written out where the server raises or answers with them, and where that is."""
    for path in sorted(SERVE.rglob("*.py")):
        if path.name in OF_THE_START or path.parent.name == "report_texts":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("Problem", "Refusal"):
                texts = [text_of(one) for one in (*node.args[1:3], *(word.value for word in node.keywords))]
            elif name in OF_FILES:
                texts = [text_of(one) for one in node.args[1:]]
                texts[:1] = [f"X: {text}" for text in texts[:1] if text]
            elif name.endswith("Error") and name not in ("ValueError", "OSError", "TimeoutError", "KeyError"):
                texts = list(((text_of(node.args[0]) if node.args else None) or "").partition("; ")[::2])
            else:
                continue
            # Of a text that comes whole from elsewhere, its own raise is looked at.
            pieces = [text for text in texts if text and text.replace("X", "").strip(": ")]
            if pieces and not any(start in piece for start in AT_THE_START for piece in pieces):
                yield f"{path.relative_to(SERVE)}:{node.lineno}", pieces


def test_every_problem_that_the_server_raises_has_a_message() -> None:
    found = list(raised())
    assert len(found) > 90
    missing = [f"{where} {text}" for where, texts in found for text in texts if problem_text(text) is None]
    assert "\n".join(missing) == ""


def test_a_message_gives_its_text_back() -> None:
    keys = [key for key in catalogue("en") if key.startswith(PREFIX)]
    assert len(keys) > 150
    for key in keys:
        names = re.findall(r"\{(\w+)\}", catalogue("en")[key])
        values = {name: f"<{name}>" for name in names}
        text = catalogue("en")[key]
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        found = problem_text(text)
        assert found is not None, key
        assert (found.key, found.values) == (key, values)


def test_other_texts_have_none() -> None:
    for text in (None, "", "the key is wrong.", "x" * 5000, "there is no fit 3; see the list of fits"):
        assert problem_text(text) is None
