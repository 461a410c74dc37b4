"""Time of every view of a simulated week of history, a million decisions at three cameras."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from blemish.decision.regions import Region
from blemish.serve.contracts import NewDecision, NewVerdict
from blemish.serve.history import History, HistoryFilter
from blemish.serve.history.database import DATABASE_FILE

BEGIN = datetime(2026, 3, 2, tzinfo=timezone.utc)
WEEK = timedelta(days=7)
AT_ONCE = 500
JUDGED = 5000
LIMIT = 0.2
"""Seconds that the median of each view may take."""


def simulated(rows: int, seed: int) -> Iterator[NewDecision]:
    """A week of decisions: three sources, a new version of the model in the middle, 2 % rejected, a clock put back once."""
    rng = np.random.default_rng(seed)
    begun = 0
    while begun < rows:
        count = min(100_000, rows - begun)
        scores = rng.gamma(8.0, 0.05, count)
        rejected = rng.random(count) < 0.02
        scores[rejected] += 0.6
        sources, p_values = rng.integers(3, size=count), rng.random(count)
        for place in range(count):
            number = begun + place
            share = number / rows
            moment = BEGIN + WEEK * share - timedelta(hours=share > 0.6)
            is_anomalous = bool(scores[place] > 0.8)
            source = f"camera {sources[place] + 1}"
            region = Region(x=101, y=57, width=23, height=19, area=301, peak=1.93, mean=1.21)
            yield NewDecision(
                request=f"{number:08x}-7a61-4c1e-9b2f-{number * 2654435761 % 2**48:012x}",
                time=moment,
                model="housing",
                model_sha256=("a" if share < 0.5 else "b") * 64,
                source=source,
                name=f"{source}/{moment:%Y-%m-%d}/IMG_{number:07}.png",
                image_sha256=f"{number * 0x9E3779B97F4A7C15 % 2**256:064x}",
                size=(1024, 768),
                score=float(scores[place]),
                threshold=0.8,
                pixel_threshold=1.4,
                p_value=float(p_values[place]),
                is_anomalous=is_anomalous,
                regions=(region, region) if is_anomalous else (),
                seconds=0.041,
            )
        begun += count


def views(history: History, rows: int) -> dict[str, Callable[[], Any]]:
    """Each view of the page by its name."""
    day = {"since": BEGIN + timedelta(days=3, minutes=7), "until": BEGIN + timedelta(days=4, minutes=13)}
    of_camera = {"model": "housing", "source": "camera 2"}
    rare, common, absent = f"IMG_{rows // 3:07}", "camera 1/", "nothing of this name"

    def page(before: int | None = None, **wanted: Any) -> Callable[[], Any]:
        return lambda: history.page(HistoryFilter(**wanted), before, 50)

    def count(at_most: int | None = None, **wanted: Any) -> Callable[[], Any]:
        return lambda: history.count(HistoryFilter(**wanted), at_most=at_most)

    def scores(**wanted: Any) -> Callable[[], Any]:
        return lambda: history.scores(HistoryFilter(**wanted), 1000)

    def what_if(threshold: float, **wanted: Any) -> Callable[[], Any]:
        return lambda: history.what_if(HistoryFilter(**wanted), threshold)

    return {
        "history, newest": page(),
        "history, in the middle": page(rows // 2),
        "filter: rejected": page(is_anomalous=True),
        "filter: one camera": page(**of_camera),
        "filter: one camera, rejected, in the middle": page(rows // 2, is_anomalous=True, **of_camera),
        "filter: first version of the model": page(model_sha256="a" * 64),
        "filter: one day": page(**day),
        "filter: one day, one camera, rejected": page(is_anomalous=True, **day, **of_camera),
        "filter: wrong decisions": page(verdict="wrong"),
        "filter: rejected without a verdict": page(is_anomalous=True, verdict="none"),
        "filter: score above 1.5": page(least_score=1.5),
        "filter: accepted above 0.7": page(least_score=0.7, is_anomalous=False),
        "search: one image": page(text=rare),
        "search: a third of all": page(text=common),
        "search: none": page(text=absent),
        "search: two letters": page(text="IM"),
        "decision with its verdicts": lambda: (history.decision(rows // 2), history.verdicts(rows // 2)),
        "count: all": count(),
        "count: rejected": count(is_anomalous=True),
        "count: one day, one camera": count(**day, **of_camera),
        "count: without a verdict": count(verdict="none"),
        "count: search, up to 10,000": count(10_000, text=common),
        "count: accepted above 0.7, up to 10,000": count(10_000, least_score=0.7, is_anomalous=False),
        "scores: week": scores(),
        "scores: one day": scores(**day),
        "scores: one camera": scores(**of_camera),
        "scores: one day, one camera": scores(**day, **of_camera),
        "scores: rejected": scores(is_anomalous=True),
        "scores: search": scores(text=rare[:-2]),
        "what if: 0.78": what_if(0.78),
        "what if: 0.85, one day": what_if(0.85, **day),
        "what if: 0.5": what_if(0.5),
        "what if: 0.2, one camera": what_if(0.2, **of_camera),
    }


def history_figures(rows: int, repeats: int, seed: int = 0) -> dict[str, Any]:
    """Fill a history and measure its views; seconds, and memory of this process in MB."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        with History.open(home) as history:
            filling = _fill(history, rows, seed)
        busy = os.getloadavg()[0]
        with History.open(home) as history:  # as after a start of the server
            figures = _measured(views(history, rows), repeats)
            before = _memory()
            for view in itertools.chain.from_iterable([views(history, rows).values()] * 5):
                view()
            after = _memory()
        size = sum(path.stat().st_size for path in home.glob(f"{DATABASE_FILE}*"))
    return {
        "rows": rows,
        "filling": filling,
        "bytes_a_row": round(size / rows),
        "limit": LIMIT,
        "load_average": round(busy, 2),
        "views": figures,
        "memory_mb": {"after_views": before, "after_five_times_more": after},
    }


def _fill(history: History, rows: int, seed: int) -> dict[str, float]:
    source, seconds = simulated(rows, seed), 0.0
    while some := list(itertools.islice(source, AT_ONCE)):
        begun = time.perf_counter()
        history.add(some)
        seconds += time.perf_counter() - begun
    step = max(1, rows // JUDGED)
    for number in range(1, rows + 1, step):
        history.add_verdict(number, NewVerdict(is_right=number // step % 10 > 0))
    return {"at_once": AT_ONCE, "decisions_a_second": round(rows / seconds)}


def _measured(found: dict[str, Callable[[], Any]], repeats: int) -> list[dict[str, Any]]:
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats):
        for name, view in found.items():
            begun = time.perf_counter()
            view()
            seconds[name].append(time.perf_counter() - begun)
    return [
        {
            "view": name,
            "median": round(statistics.median(values), 4),
            "p95": round(float(np.quantile(values, 0.95)), 4),
            "first": round(values[0], 4),
        }
        for name, values in seconds.items()
    ]


def _memory() -> float:
    """Resident memory in MB."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def history_table(document: dict[str, Any]) -> str:
    """Markdown of the figures."""
    lines = ["| view | median, ms | 95 %, ms |", "|---|---|---|"]
    lines += [
        f"| {row['view']} | {1000 * row['median']:.0f} | {1000 * row['p95']:.0f} |"
        for row in document["views"]
    ]
    memory, filling = document["memory_mb"], document["filling"]
    slow = [row["view"] for row in document["views"] if row["median"] > document["limit"]]
    lines += [
        "",
        f"{document['rows']:,} decisions of {document['bytes_a_row']} bytes each, stored "
        f"{filling['at_once']} at a time, {filling['decisions_a_second']:,} a second. "
        f"Views whose median is above {1000 * document['limit']:.0f} ms: {', '.join(slow) or 'none'}. "
        f"Memory: {memory['after_views']} MB, and {memory['after_five_times_more']} MB after five times as many views. "
        f"Load average at the start: {document['load_average']}.",
    ]
    return "\n".join(lines) + "\n"
