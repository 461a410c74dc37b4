"""Results of the benchmarks of the server as Markdown."""

from __future__ import annotations

from typing import Any


def load_table(document: dict[str, Any]) -> str:
    """Throughput and latency."""
    lines = [
        f"`{document['command']}`, on {document['machine']}, {document['threads']} threads:",
        "",
        "| images | library one by one, images/s | library in threads | server, 32 clients | share of the better | p50, ms | "
        "p99, ms | one client p50, ms | p99, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in document["throughput"]:
        rates, own = row["images_a_second"], row["milliseconds"]
        figures = [f"{rates[key]:.1f}" for key in ("one by one", "threads", "server")]
        figures.append(f"{100 * row['share_of_the_library']:.0f} %")
        figures += [f"{own[key]:.0f}" for key in ("p50", "p99", "one client, p50", "one client, p99")]
        lines.append(f"| {row['images']} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def cost_table(document: dict[str, Any]) -> str:
    """Processor time for one image."""
    lines = [
        f"`{document['command']}`, on {document['machine']}, {document['threads']} threads:",
        "",
        "| images | library in threads, ms of processor time an image | server, 32 clients | more than the library |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in document["processor_time"]:
        own = row["processor_milliseconds"]
        figures = own["library"], own["server"], row["more_milliseconds"]
        lines.append(f"| {row['images']} | {' | '.join(f'{one:.1f}' for one in figures)} |")
    return "\n".join(lines) + "\n"


def memory_table(document: dict[str, Any]) -> str:
    """Memory after equal numbers of requests."""
    samples, requests = document["mib"], document["requests"]
    places = [round(share * len(samples)) for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)]
    lines = [
        f"`{document['command']}`:",
        "",
        f"| requests | {' | '.join(f'{place * requests // len(samples):,}' for place in places)} |",
        f"| --- |{' ---: |' * len(places)}",
        f"| memory, MiB | {' | '.join(f'{samples[place - 1]:.0f}' for place in places)} |",
    ]
    return "\n".join(lines) + "\n"


def fuzz_table(document: dict[str, Any]) -> str:
    """Answers to generated requests, by route."""
    lines = [
        f"`{document['command']}`: {document['requests']:,} requests, {document['server_errors']} answers of 500 or more, "
        f"{len(document['failures'])} that the description does not have.",
        "",
        "| route | requests | 2xx | 4xx | 5xx |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for route, statuses in sorted(document["routes"].items()):
        by_class = {kind: sum(n for status, n in statuses.items() if status[0] == kind) for kind in "245"}
        total = sum(statuses.values())
        lines.append(f"| `{route}` | {total} | {by_class['2']} | {by_class['4']} | {by_class['5']} |")
    return "\n".join(lines) + "\n"
