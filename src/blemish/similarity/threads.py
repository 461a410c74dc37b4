"""Process chunks of work in parallel threads, each with single-threaded torch.

torch's own threads synchronise after every operation. For an operation of microseconds this costs more than the
work, and a hundred times more on a busy machine; here the threads synchronise once, at the end.
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


def _use_one_core() -> None:
    # The first call in a thread adopts the number of the process; a number set later stays.
    torch.get_num_threads()
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="similarity", initializer=_use_one_core)
    barrier = threading.Barrier(threads)
    for started in [pool.submit(barrier.wait) for _ in range(threads)]:
        started.result()
    # Every thread has its own number, but a new thread adopts the number that was set last.
    torch.set_num_threads(threads)
    return pool


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads


def side_by_side(work: Callable[[Iterator[T]], None], chunks: Sequence[T], device: torch.device) -> None:
    """Call ``work`` in as many threads as torch may use; all take chunks from one iterator until none is left.

    ``work`` runs without gradients. A single chunk, or any chunks on a device other than the CPU, are processed in
    the calling thread.
    """
    threads = min(torch.get_num_threads(), len(chunks))
    shared = iter(chunks)
    if device.type != "cpu" or threads == 1:
        work(shared)
        return
    inference = torch.is_inference_mode_enabled()

    def run_share() -> None:
        with torch.inference_mode() if inference else torch.no_grad():
            work(shared)

    for future in [_pool(torch.get_num_threads()).submit(run_share) for _ in range(threads)]:
        future.result()
