"""Files of the page, and its messages in all languages that there are catalogues of."""

from __future__ import annotations

import json
import mimetypes
import re
from functools import cache
from pathlib import Path

PAGE, MESSAGES = Path(__file__).parent / "page", Path(__file__).parent / "messages"
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


@cache
def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type of each file of the page, by its name below the folder; read once."""
    return {
        path.relative_to(PAGE).as_posix(): (path.read_bytes(), media_type(path))
        for path in sorted(PAGE.rglob("*"))
        if path.suffix in _TYPES
    }


def media_type(path: Path) -> str:
    """Media type by the suffix; not that of the machine's own table, which Windows lets programs change."""
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


@cache
def catalogue(language: str) -> dict[str, str]:
    """Messages of a language by their keys.

    Raises
    ------
    KeyError
        When there is no catalogue of it.
    """
    path = MESSAGES / f"{language}.json"
    if not LANGUAGE.fullmatch(language) or not path.is_file():
        raise KeyError(language)
    messages: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return messages


def languages() -> list[dict[str, str]]:
    """Code and own name of each language, English first; a catalogue that is put beside the others is found."""
    codes = sorted((path.stem for path in MESSAGES.glob("*.json")), key=lambda code: (code != "en", code))
    return [{"code": code, "name": catalogue(code)["language.name"]} for code in codes]
