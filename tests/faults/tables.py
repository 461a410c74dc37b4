"""Tables of the counts of fault hunts, as Markdown beside their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_KILLS = ("kills", "recovered", "lost", "doubled", "wrong", "refused", "unresumed", "left_overs")
_FILES = ("fine", "refused", "wrong", "uncaught", "exit", "hang", "over_300_mb")


def kills_table(document: Mapping[str, Any]) -> str:
    """A row for each scenario of a kill hunt, and one for all."""
    rows = [[name, *(counts[key] for key in _KILLS)] for name, counts in document["scenarios"].items()]
    sums = [sum(int(row[place]) for row in rows) for place in range(1, len(_KILLS) + 1)]
    return _table(["scenario", *_KILLS], [*rows, ["all", *sums]])


def files_table(document: Mapping[str, Any]) -> str:
    """A row for each target of a hunt by damaged files, and one for all."""
    counts = document["counts"]
    rows = [
        [name, sum(of.values()) - of["over_300_mb"], *(of[key] for key in _FILES)]
        for name, of in counts.items()
    ]
    return _table(["target", "files", *_FILES], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(str(cell).replace('_', ' ') for cell in cells)} |"

    ruler = f"|{'|'.join(['---'] + ['---:'] * (len(head) - 1))}|"
    return "\n".join([line(head), ruler, *map(line, rows)]) + "\n"
