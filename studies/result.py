"""Result of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StudyResult:
    """Figures as they stand in the JSON, the Markdown table made from them, and the files written."""

    figures: dict[str, Any]
    table: str
    files: tuple[Path, ...]
