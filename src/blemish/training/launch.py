"""Start of the processes that fit one model together, and their end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from blemish.errors import BlemishError, Stopped, UsageError
from blemish.observer import Observer
from blemish.training.processes import (
    LostProcessError,
    OtherProcessError,
    Place,
    Processes,
    lost_is_one_line,
)
from blemish.workers import end_with_parent

Work = Callable[[Processes, Observer], object]

READY = "ready"
LAST_WORDS = 20.0
"""Seconds that a process is waited for after another one is lost, or after the work is done."""


def place_of_this(processes: int, nodes: int) -> Place:
    """Place of the process that a user started: the first of its machine.

    Where there are several machines, ``NODE_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` name the machine and the first
    one, as in other programs on torch.

    Raises
    ------
    UsageError
        For numbers below 1, or where these variables are missing or wrong.
    """
    for option, value in (("processes", processes), ("nodes", nodes)):
        if value < 1:
            raise UsageError(f"{option} is {value}; give at least 1")
    if processes * nodes > 1 and not torch.distributed.is_available():
        raise UsageError("this build of torch has no torch.distributed; fit in one process")
    if nodes == 1:
        port = find_free_network_port() if processes > 1 else 0
        return Place(0, processes, 0, 1, "127.0.0.1", port)
    names = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    found = [os.environ.get(name, "") for name in names]
    missing = [name for name, value in zip(names, found, strict=True) if not value]
    if missing:
        raise UsageError(
            f"{nodes} nodes: start the same command on each, with {', '.join(missing)} set in the environment "
            f"(NODE_RANK from 0 to {nodes - 1}, address and port of the machine of NODE_RANK 0)"
        )
    try:
        node, port = int(found[0]), int(found[2])
    except ValueError:
        raise UsageError(
            f"NODE_RANK={found[0]}, MASTER_PORT={found[2]}: both are whole numbers; correct them"
        ) from None
    if not 0 <= node < nodes:
        raise UsageError(f"NODE_RANK={node}: the machines have numbers from 0 to {nodes - 1}; correct it")
    return Place(0, processes, node, nodes, found[1], port)


@contextmanager
def launched(place: Place, work: Work) -> Iterator[Processes]:
    """The processes of a fit; those beside this one on its machine run ``work`` as soon as this one connects.

    Parameters
    ----------
    place: of this process.
    work: what this process does in the block; it is pickled, and its processes import the main module, which must not
        start the work again (``if __name__ == "__main__":``).

    Raises
    ------
    BlemishError
        When another process failed: its error, or how it ended.
    """
    if place.count == 1:
        yield Processes(place)
        return
    started = _Started(place, work)
    processes = Processes(place, started.begin)
    threads = torch.get_num_threads()
    torch.set_num_threads(_threads(place))
    done = False
    try:
        with lost_is_one_line():
            yield processes
        done = True
    except LostProcessError as error:
        raise started.reason(error) from None
    finally:
        torch.set_num_threads(threads)
        processes.disconnect()
        started.end(done=done)


def _threads(place: Place) -> int:
    return max(1, torch.get_num_threads() // place.on_machine)


class _Started:
    """The processes beside this one on its machine."""

    def __init__(self, place: Place, work: Work) -> None:
        self._place, self._work = place, work
        self._running: list[tuple[BaseProcess, Connection]] = []

    def begin(self) -> None:
        """Start them, and wait until all are about to connect.

        Raises
        ------
        BlemishError
            When one ended before.
        """
        # Forking a process that has loaded torch can leave locks held for ever.
        context = multiprocessing.get_context("spawn")
        for local in range(1, self._place.on_machine):
            ours, theirs = context.Pipe(duplex=False)
            place, threads = replace(self._place, local=local), _threads(self._place)
            process: BaseProcess = context.Process(
                target=_run,
                args=(place, self._work, theirs, threads),
                daemon=False,  # it may have workers
            )
            process.start()
            theirs.close()
            self._running.append((process, ours))
        for running, pipe in self._running:
            wait([pipe, running.sentinel])
            words = _words(pipe)
            if words != READY:
                raise _as_error(words, running)

    def reason(self, error: LostProcessError) -> BlemishError:
        """Why a process was lost: the error that one of this machine met, or else ``error``."""
        for process, pipe in self._running:
            if wait([pipe, process.sentinel], LAST_WORDS):
                words = _words(pipe)
                if words is None:  # the pipe of a killed process closes before its exit code is known
                    process.join(LAST_WORDS)
                if words is not None or process.exitcode not in (None, 0, 1):
                    return _as_error(words, process)
        return error

    def end(self, *, done: bool) -> None:
        """Wait for them where the work is ``done``; end them where it is not."""
        for process, pipe in self._running:
            if done:
                process.join(LAST_WORDS)
            if process.is_alive():
                process.terminate()
                process.join(LAST_WORDS)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
        self._running.clear()


def _words(pipe: Connection) -> object:
    with suppress(EOFError, OSError):
        if pipe.poll():
            return pipe.recv()
    return None


def _as_error(words: object, process: BaseProcess) -> BlemishError:
    if isinstance(words, BlemishError):
        return words
    process.join(LAST_WORDS)
    if isinstance(words, str):
        raise RuntimeError(f"{process.name} of the fit failed:\n{words}")
    code = process.exitcode or 0
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return BlemishError(
        f"process {process.name} of the fit ended ({how}), most likely for want of memory; fit with fewer processes, or a "
        "smaller training.batch"
    )


def _run(place: Place, work: Work, pipe: Connection, threads: int) -> None:
    """Run ``work`` in a process of its own; its error goes to ``pipe``."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process of the terminal; the first decides
    end_with_parent()
    torch.set_num_threads(threads)
    processes = Processes(place, lambda: pipe.send(READY))
    code = 1
    try:
        with lost_is_one_line():
            work(processes, Observer())
        processes.disconnect()
        code = 0
    except (LostProcessError, OtherProcessError):
        pass  # said by the process that it began in
    except Stopped:
        code = 0
    except BlemishError as error:
        pipe.send(error)
    except BaseException:  # a defect of Blemish: the process that the user started shows it
        pipe.send(traceback.format_exc())
    finally:
        pipe.close()
        os._exit(code)  # a group with a lost process may keep its destructors waiting
