"""Results of the benchmarks of archives as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

PLANNED = 10**8
"""Images of the plan on paper."""


def kills_table(document: dict[str, Any]) -> str:
    """Counts of jobs whose processes were killed."""
    columns = {
        "images": "images",
        "worker_kills": "kills of workers",
        "driver_kills": "kills of the driver",
        "records": "records",
        "lost": "lost",
        "doubled": "doubled",
        "errors": "damaged images, each with its record",
        "other_scores": "scores unlike those of an undisturbed inspection",
    }
    lines = [
        f"`{document['command']}`, {document['nodes']} node processes of one core and a head:",
        "",
        f"| {' | '.join(columns.values())} |",
        f"|{' ---: |' * len(columns)}",
        *(f"| {' | '.join(f'{run[key]:,}' for key in columns)} |" for run in document["runs"]),
    ]
    return "\n".join(lines) + "\n"


def throughput_table(document: dict[str, Any]) -> str:
    """Throughput by workers, the costs of one image, and what they amount to for very many."""
    lines = [
        f"`{document['command']}`, on {document['machine']}; recipe `{document['recipe']}`, {document['images']:,} images "
        f"of {document['size']} × {document['size']} pixels; medians of {document['rounds']} rounds, with their range:",
        "",
        "| work | workers | images/s | against one worker |",
        "| --- | ---: | ---: | ---: |",
    ]
    for work, by_workers in document["images_per_second"].items():
        one = by_workers["1"]
        for workers, rates in by_workers.items():
            ratios = [rate / base for rate, base in zip(rates, one, strict=True)]
            lines.append(
                f"| {work} | {workers} | {_range(rates, '.3g')} | {_range(ratios, '.2f') if workers != '1' else '1'} |"
            )
    lines += [
        "",
        "| cost of one image | " + " | ".join(document["costs"]) + " |",
        "| --- |" + " ---: |" * len(document["costs"]),
    ]
    words = {
        "worker_cpu_seconds": "CPU time of its worker, s",
        "driver_cpu_seconds": "CPU time of the driver, s",
        "bytes_read": "bytes read",
        "bytes_of_records": "bytes of records written",
        "bytes_of_files": "bytes of files written",
    }
    for key, name in words.items():
        values = [costs[key] for costs in document["costs"].values()]
        lines.append(
            f"| {name} | {' | '.join(f'{value:,.3g}' if value < 1 else f'{value:,.0f}' for value in values)} |"
        )
    lines += [
        "",
        f"| {PLANNED:,} such images | " + " | ".join(document["costs"]) + " |",
        "| --- |" + " ---: |" * len(document["costs"]),
    ]
    for name, value in PLAN.items():
        lines.append(
            f"| {name} | {' | '.join(f'{value(costs):,.3g}' for costs in document['costs'].values())} |"
        )
    return "\n".join(lines) + "\n"


PLAN = {
    "core-hours of workers": lambda costs: PLANNED * costs["worker_cpu_seconds"] / 3600,
    "core-hours of the driver, which has one core": lambda costs: (
        PLANNED * costs["driver_cpu_seconds"] / 3600
    ),
    "read from disks or over the network, TB": lambda costs: PLANNED * costs["bytes_read"] / 1e12,
    "records, GB": lambda costs: PLANNED * costs["bytes_of_records"] / 1e9,
    "files, TB": lambda costs: PLANNED * costs["bytes_of_files"] / 1e12,
    "most images/s that one driver takes": lambda costs: 1 / costs["driver_cpu_seconds"],
}
"""Figures of the plan, from the costs of one image."""


def _range(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
