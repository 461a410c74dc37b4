"""Rows of the table that were measured earlier: by tables with other lengths, by the studies, by other methods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from benchmarks.detection.drawing import grouped

PEERS = Path(__file__).with_name("peers.json")
STUDIES = Path(__file__).parents[2] / "studies" / "results"


class Source(BaseModel):
    """Where the figures of a row come from."""

    kind: Literal["measured here", "a study here", "trivial baseline", "measured", "published"]
    """``measured`` and ``published``: by others, here and in their own paper."""
    budget: str | None = None
    """Length of every training of a table, such as 5m, where the table sets one."""
    file: str | None = None
    """File of a study's results."""
    reference: str | None = None

    def in_words(self) -> str:
        """The source as a cell of the table."""
        detail = f"{self.budget} of training" if self.budget else self.file or self.reference
        return f"{self.kind}: {detail}" if detail else self.kind


def source_of(row: dict[str, Any]) -> Source:
    return Source.model_validate(row["source"])


def sourced(**facts: str | None) -> dict[str, Any]:
    """A checked :class:`Source` as rows keep it."""
    return Source.model_validate(facts).model_dump(exclude_none=True)


def own_rows(path: Path) -> list[dict[str, Any]]:
    """Rows that the table in ``path`` has measured itself."""
    document = json.loads(path.read_text(encoding="utf-8"))
    own = Source(kind="measured here", budget=document["budget"])
    return [row for row in document["rows"] if source_of(row) == own]


def of_other_tables(out: Path, dataset: str, budget: str | None) -> list[dict[str, Any]]:
    """Rows on ``dataset`` of the tables in ``out`` with another budget of training."""
    rows = [row for path in sorted(out.glob(f"detection-table-{dataset}*.json")) for row in own_rows(path)]
    return [row for row in rows if row["dataset"] == dataset and source_of(row).budget != budget]


def rows_before(path: Path) -> list[dict[str, Any]]:
    """Rows that the table in ``path``, which is about to be replaced, has measured."""
    return own_rows(path) if path.exists() else []


def with_seeds_before(row: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``row`` with the figures that ``earlier`` rows have of the same recipe with other seeds."""
    for other in earlier:
        if (other["dataset"], other["name"]) == (row["dataset"], row["name"]):
            stay = [place for place, seed in enumerate(other["seeds"]) if seed not in row["seeds"]]
            of_seeds = [key for key, values in row.items() if isinstance(values, list)]
            # A table from before a column was added has nothing for it.
            before = {key: other.get(key, [None] * len(other["seeds"])) for key in of_seeds}
            return row | {key: [before[key][place] for place in stay] + row[key] for key in of_seeds}
    return row


def of_studies(dataset: str) -> list[dict[str, Any]]:
    """Rows from the committed results of studies and evaluations on ``dataset``."""
    rows: list[dict[str, Any]] = []
    for path in sorted(STUDIES.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("dataset") != dataset:
            continue
        runs = [row for row in document.get("rows", [document]) if {"recipe", "image"} <= row.keys()]
        for recipe, some in grouped(runs, "recipe"):
            row = {
                "dataset": dataset,
                "name": recipe,
                "source": sourced(kind="a study here", file=path.name),
                "image_auroc": [one["image"]["all"]["figures"]["auroc"]["value"] for one in some],
                "seconds": [
                    one["training_seconds"] if "training_seconds" in one else one["training"]["seconds"]
                    for one in some
                ],
            }
            for key, figure in (("pixel_auroc", "auroc"), ("aupro_30", "aupro_30")):
                row[key] = [one["pixel"][figure] for one in some]
            # The same fit at another threshold has the same figures.
            if not any({**row, "source": one["source"]} == one for one in rows):
                rows.append(row)
    return rows


def of_others(dataset: str) -> list[dict[str, Any]]:
    """Rows of other methods on ``dataset``: measured here with their own code, or published."""
    peers = json.loads(PEERS.read_text(encoding="utf-8")).get(dataset, [])
    return [{"dataset": dataset, **peer, "source": sourced(**peer["source"])} for peer in peers]
