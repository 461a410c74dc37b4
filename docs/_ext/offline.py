"""Fails the build when a page would load a script, a style sheet, a font or an image from the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"'](?:https?:)?//[^\"']*"
    r"|<link\b(?=[^>]*\brel=[\"'](?:stylesheet|preload|preconnect|icon)\b)[^>]*\bhref=[\"'](?:https?:)?//[^\"']*",
    re.IGNORECASE,
)
IMPORTED = re.compile(r"(?:@import\s+(?:url\()?|url\()\s*[\"']?(?:https?:)?//[^\"')]*", re.IGNORECASE)


def loaded_from_elsewhere(folder: Path) -> list[str]:
    """What pages and style sheets below ``folder`` load from the network, as ``FILE: REFERENCE``."""
    found = []
    for pattern, suffix in ((LOADED, "html"), (IMPORTED, "css"), (IMPORTED, "html")):
        for path in sorted(folder.rglob(f"*.{suffix}")):
            references = pattern.findall(path.read_text(encoding="utf-8"))
            found += [f"{path.relative_to(folder)}: {reference}" for reference in references]
    return found


def check(app: Sphinx, error: Exception | None) -> None:
    """Raise after a build whose pages need the network."""
    if error is None and app.builder.format == "html" and (found := loaded_from_elsewhere(Path(app.outdir))):
        raise SphinxError("the site must open offline, and loads from the network:\n" + "\n".join(found))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
