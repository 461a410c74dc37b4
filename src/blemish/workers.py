"""Run one function over many tasks, in worker processes or in this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from blemish.errors import BlemishError, Stopped, UsageError
from blemish.observer import Observer

T = TypeVar("T")
R = TypeVar("R")


_in_worker = False


def cores() -> int:
    """Cores that this process may use: in a worker process its share of one, else those it is bound to."""
    if _in_worker:
        return 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each(
    work: Callable[[T], R],
    tasks: Sequence[T],
    *,
    workers: int = 1,
    observer: Observer | None = None,
    lost: Callable[[T], R] | None = None,
    unwanted: Callable[[T], bool] | None = None,
) -> Iterator[R]:
    """Results of ``work`` on every task, as they are finished; the observer gets the count after each.

    Parameters
    ----------
    work: a function of a module, which worker processes import by name; tasks and results are pickled.
    workers: processes; with 1 everything runs in this one, in order. More than 1 need a main module that can
        be imported without starting the work again (``if __name__ == "__main__":``).
    lost: gives the result of a task whose process ends each time that it is tried, also with no other at work.
    unwanted: whether a task is no longer needed; asked before it is begun, and it then has no result.

    Raises
    ------
    Stopped
        When the observer asked to stop; results of running tasks are yielded first.
    BlemishError
        When a worker process was killed, and there is no ``lost``.
    """
    if workers < 1:
        raise UsageError(f"{workers} workers; give at least 1")
    observer = observer or Observer()
    passed_over = unwanted or (lambda task: False)
    found = (
        (work(task) for task in tasks if not passed_over(task))
        if workers == 1
        else _elsewhere(work, tasks, workers, observer, lost, passed_over)
    )
    for done, result in enumerate(found, start=1):
        yield result
        observer.count(done, len(tasks))
        if workers == 1 and done < len(tasks) and observer.should_stop():
            raise _stopped(done, len(tasks))


def _elsewhere(
    work: Callable[[T], R],
    tasks: Sequence[T],
    workers: int,
    observer: Observer,
    lost: Callable[[T], R] | None,
    unwanted: Callable[[T], bool],
) -> Iterator[R]:
    left = deque(tasks)
    done = 0
    stopping = False
    while left and not stopping:
        suspects: list[T] = []  # at work when a process ended
        with _pool(min(workers, len(left))) as pool:
            running: dict[Future[R], T] = {}
            try:
                while True:
                    # One task more than there are processes, so that none waits and a stop comes soon.
                    while left and len(running) <= workers and not (suspects or stopping):
                        task = left.popleft()
                        if unwanted(task):
                            done += 1
                            continue
                        try:
                            running[pool.submit(work, task)] = task
                        except BrokenProcessPool:
                            suspects.append(task)
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        task = running.pop(future)
                        if isinstance(future.exception(), BrokenProcessPool):
                            suspects.append(task)
                            continue
                        done += 1
                        yield future.result()
                    if not stopping and observer.should_stop():
                        stopping = True
                        running = {future: task for future, task in running.items() if not future.cancel()}
            finally:
                # However the loop ended, by an interrupt too: tasks that have not begun are not waited for.
                for future in running:
                    future.cancel()
        if suspects and lost is None:
            raise BlemishError(
                "a worker process was killed, most likely for want of memory; run again with fewer --workers"
            )
        for task in suspects if not stopping else ():
            done += 1
            yield _alone(work, task, lost)
    if done < len(tasks):
        raise _stopped(done, len(tasks))


def _alone(work: Callable[[T], R], task: T, lost: Callable[[T], R] | None) -> R:
    """Result of a task in a process of its own, or that of a lost one."""
    with _pool(1) as pool:
        try:
            return pool.submit(work, task).result()
        except BrokenProcessPool:
            assert lost is not None
            return lost(task)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Forking a process that has loaded torch or Numba can leave locks held for ever.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare)


def _prepare() -> None:
    """Prepare a worker process: Ctrl-C is left to the main process, and one core is this process's share."""
    global _in_worker
    _in_worker = True
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # SIGTERM ends it, as the pool itself may want to
    for variable in ("OMP_NUM_THREADS", "VIPS_CONCURRENCY"):
        os.environ.setdefault(variable, "1")


def end_with_parent() -> None:
    """End this process when the one that started it has ended, however it did: nothing is left to work for.

    A worker of a pool would wait for tasks for ever, because it holds the other end of its own pipe.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def _stopped(done: int, total: int) -> Stopped:
    return Stopped(f"stopped after {done} of {total}, which are finished")
