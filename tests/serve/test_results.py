"""Tables of the server's benchmarks: those of their committed files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serve.tables import cost_table, fuzz_table, load_table, memory_table

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "serve-cost": cost_table,
    "serve-fuzz": fuzz_table,
    "serve-load": load_table,
    "serve-memory": memory_table,
}


@pytest.mark.parametrize("name", [name for name in TABLES if (RESULTS / f"{name}.json").is_file()])
def test_tables_are_those_of_their_files(name: str) -> None:
    document = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == TABLES[name](document)


def test_generated_requests_were_enough_and_none_was_a_fault_of_the_server() -> None:
    document = json.loads((RESULTS / "serve-fuzz.json").read_text(encoding="utf-8"))
    assert document["requests"] >= 10_000
    assert document["server_errors"] == 0
    assert document["failures"] == []
    counted = sum(sum(statuses.values()) for statuses in document["routes"].values())
    assert counted == document["requests"]


def test_the_table_of_load_has_every_figure() -> None:
    row = {
        "images": "texture",
        "images_a_second": {"one by one": 7.04, "threads": 7.5, "server": 6.6},
        "share_of_the_library": 0.88,
        "milliseconds": {"p50": 4100.4, "p99": 5000.0, "one client, p50": 150.0, "one client, p99": 170.0},
    }
    text = load_table({"command": "c", "machine": "m", "threads": 2, "throughput": [row]})
    assert "| texture | 7.0 | 7.5 | 6.6 | 88 % | 4100 | 5000 | 150 | 170 |" in text


def test_the_table_of_memory_has_its_samples_at_their_requests() -> None:
    text = memory_table({"command": "c", "requests": 10_000, "mib": list(range(101, 141))})
    assert "| requests | 1,000 | 2,000 | 4,000 | 6,000 | 8,000 | 10,000 |" in text
    assert "| memory, MiB | 104 | 108 | 116 | 124 | 132 | 140 |" in text
