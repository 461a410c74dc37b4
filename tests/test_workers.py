from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from math import factorial
from pathlib import Path

import pytest

from blemish.errors import BlemishError, Stopped, UsageError
from blemish.observer import Observer
from blemish.workers import cores, each


class Counting(Observer):
    """Records its calls; asks for a stop once ``stop_after`` results are in."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.counts: list[tuple[int, int]] = []

    def count(self, done: int, total: int) -> None:
        self.counts.append((done, total))

    def should_stop(self) -> bool:
        return self.stop_after is not None and len(self.counts) >= self.stop_after


# Worker processes import their function by name, and do not know the modules of the tests.
PROCESS = "__import__('os').getpid()"
DEATH = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_once_and_in_the_processes_asked_for(workers: int) -> None:
    observer = Counting()
    tasks = [f"{number}, {PROCESS}" for number in range(7)]
    found = list(each(eval, tasks, workers=workers, observer=observer))
    assert sorted(number for number, _ in found) == list(range(7))
    assert all((process == os.getpid()) == (workers == 1) for _, process in found)
    assert observer.counts == [(n, 7) for n in range(1, 8)]


def test_a_worker_process_has_one_core_for_itself() -> None:
    asked = ["__import__('blemish.workers', fromlist=['cores']).cores()"] * 3
    assert list(each(eval, asked, workers=2)) == [1, 1, 1]


def test_cores_are_those_that_this_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores() == 7


@pytest.mark.parametrize("workers", [1, 2])
def test_stop_keeps_what_was_in_hand(workers: int) -> None:
    observer = Counting(stop_after=2)
    with pytest.raises(Stopped, match="of 50, which are finished"):
        list(each(factorial, range(50), workers=workers, observer=observer))
    assert 2 <= len(observer.counts) <= 2 + 2 * workers


def test_stop_after_the_last_task_is_no_stop() -> None:
    assert list(each(factorial, range(2), observer=Counting(stop_after=2))) == [1, 1]


def test_killed_worker_is_one_line() -> None:
    with pytest.raises(BlemishError, match="fewer --workers"):
        list(each(eval, [DEATH] * 2, workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_no_tasks(workers: int) -> None:
    nothing: list[int] = []
    assert list(each(factorial, nothing, workers=workers)) == []


def test_no_workers() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        list(each(factorial, range(2), workers=0))


def test_a_task_that_ends_its_process_costs_no_other() -> None:
    tasks = ["1", DEATH, *map(str, range(2, 9)), DEATH, "9"]
    observer = Counting()
    found = list(each(eval, tasks, workers=2, observer=observer, lost=len))
    assert sorted(found) == [*range(1, 10), len(DEATH), len(DEATH)]
    assert observer.counts[-1] == (len(tasks), len(tasks))


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_that_are_no_longer_needed_are_passed_over(workers: int) -> None:
    found = list(each(factorial, range(6), workers=workers, unwanted=lambda task: task % 2 == 1))
    assert sorted(found) == [1, 2, 24]


def runs(process: str) -> bool:
    """False too of a process that has ended and is not waited for, as in containers without an init."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_of_a_killed_process_end(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "from blemish.workers import each\n"
        "if __name__ == '__main__':\n"
        f"    for found in each(eval, [{PROCESS!r}] + ['__import__(\"time\").sleep(60)'] * 2, workers=2):\n"
        "        print(found, flush=True)\n",
        encoding="utf-8",
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        worker = int(main.stdout.readline())
        children = Path(f"/proc/{main.pid}/task/{main.pid}/children").read_text(encoding="ascii").split()
        assert str(worker) in children
        main.send_signal(signal.SIGKILL)
        main.wait()
    until = time.monotonic() + 30
    while (running := [child for child in children if runs(child)]) and time.monotonic() < until:
        time.sleep(0.05)
    assert running == []
