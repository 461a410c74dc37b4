"""Profiles of a call: shares of its time by operation of torch, and by function of the package."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

import blemish

ROOT = str(Path(blemish.__file__).parent)
MOST = 10
"""Rows of a table."""


def profiled(call: Callable[[], object]) -> dict[str, Any]:
    """Largest costs of ``call``, which is called three times: alone, and under each of two profilers.

    ``operations`` have their own time, without that of others that they call; ``functions`` of the package have theirs
    with everything that they call, so that their shares overlap.
    """
    begun = time.perf_counter()
    call()
    seconds = time.perf_counter() - begun
    with torch_profile(activities=[ProfilerActivity.CPU]) as operations:
        call()
    events = [event for event in operations.key_averages() if event.self_cpu_time_total > 0]
    total = sum(event.self_cpu_time_total for event in events)
    events.sort(key=lambda event: -event.self_cpu_time_total)
    functions = cProfile.Profile()
    functions.runcall(call)
    found: dict[Any, Any] = pstats.Stats(functions).stats  # type: ignore[attr-defined]
    own = [
        (f"{Path(file).relative_to(ROOT).as_posix()}: {name}", calls, cumulative)
        for (file, _, name), (_, calls, _, cumulative, _) in found.items()
        if file.startswith(ROOT) and not name.startswith("<")
    ]
    own.sort(key=lambda row: -row[2])
    whole = max((row[2] for row in own), default=1.0)
    return {
        "seconds": round(seconds, 3),
        "operations": [
            {
                "name": event.key,
                "calls": event.count,
                "share": round(event.self_cpu_time_total / total, 4),
            }
            for event in events[:MOST]
        ],
        "functions": [
            {"name": name, "calls": calls, "share": round(cumulative / whole, 4)}
            for name, calls, cumulative in own[: 3 * MOST]
        ],
    }
