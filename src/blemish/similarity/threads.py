"""Chunks of work side by side, each thread with torch on one core to itself.

torch's own threads meet after every operation. Where an operation takes microseconds the meeting costs more
than the work, and on a machine with other work a hundred times more; here threads meet once, at the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

T = TypeVar("T")


def _one_core() -> None:
    torch.get_num_threads()  # the first call in a thread adopts the process's number; the next one stays
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="similarity", initializer=_one_core)
    everyone = threading.Barrier(threads)
    for started in [pool.submit(everyone.wait) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(
        threads
    )  # the number is each thread's own, but a new thread adopts the last one set
    return pool


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # the forked process has none of the threads


def side_by_side(work: Callable[[Iterator[T]], None], chunks: Sequence[T], device: torch.device) -> None:
    """Call ``work`` in as many threads as torch may use, each taking chunks from one iterator until none is left.

    ``work`` runs without gradients; a single chunk, and any on another device than the CPU, in the calling thread.
    """
    threads = min(torch.get_num_threads(), len(chunks))
    shared = iter(chunks)
    if device.type != "cpu" or threads == 1:
        work(shared)
        return
    inference = torch.is_inference_mode_enabled()

    def take_part() -> None:
        with torch.inference_mode() if inference else torch.no_grad():
            work(shared)

    for part in [_pool(torch.get_num_threads()).submit(take_part) for _ in range(threads)]:
        part.result()
