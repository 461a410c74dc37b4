"""Tables of the counts of fault hunts, as Markdown beside their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_COUNTS = (
    "hits", "restarts", "lost", "doubled", "differing", "refused", "unresumed", "unclear", "left_overs"
)  # fmt: skip
_HUNTS = {
    "kills": "kills that hit",
    "full_disks": "full disks",
    "changed_inputs": "changed inputs",
}
_FILES = ("fine", "refused", "wrong", "uncaught", "exit", "hang", "over_300_mb")


def hunts_table(document: Mapping[str, Any]) -> str:
    """A table for each hunt of ``benchmarks.faults``, with a row for each job and one for all."""
    return "\n".join(_hunt_table(words, document[hunt]) for hunt, words in _HUNTS.items())


def _hunt_table(words: str, hunt: Mapping[str, Any]) -> str:
    head = ["job", words, *_COUNTS[1:]]
    rows = [[name, *(counts[key] for key in _COUNTS)] for name, counts in hunt["jobs"].items()]
    return _table(head, [*rows, ["all", *(hunt["total"][key] for key in _COUNTS)]])


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
