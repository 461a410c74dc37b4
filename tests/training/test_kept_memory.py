"""Memory that training keeps between its steps."""

from __future__ import annotations

import ctypes
import platform
import resource
import subprocess
import sys

import pytest

from blemish.training import kept_memory as module
from blemish.training.kept_memory import kept_memory

STEPS = """
import resource
import torch
from blemish.training.kept_memory import kept_memory

def step():
    parts = [torch.ones(2**20) for _ in range(40)]  # 4 MiB each, all freed together
    return sum(float(part[0]) for part in parts)

with kept_memory():
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


@glibc
def test_a_step_gets_the_memory_of_the_last_one_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    faults = [int(line) for line in done.stdout.split()]
    assert faults[0] > 160 * 2**20 / resource.getpagesize() / 2
    assert faults[-1] < faults[0] / 10


@glibc
def test_it_is_given_back_afterwards() -> None:
    page = resource.getpagesize()

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * page

    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    size, count = 4 * 2**20, 40
    with kept_memory():
        blocks = [library.malloc(size) for _ in range(count)]
        for block in blocks:
            library.memset(block, 1, size)
        used = resident()
        for block in blocks:
            library.free(block)
        assert resident() > used - size * count / 2
    assert resident() < used - size * count / 2


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        pass

    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: Other())
    with kept_memory():
        pass

    def absent(name: None) -> None:
        raise TypeError("no such handle on Windows")

    monkeypatch.setattr(module.ctypes, "CDLL", absent)
    with kept_memory():
        pass
