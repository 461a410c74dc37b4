"""Native code that ends its process costs the one file, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.errors import ImageError
from blemish.jpeg.file import recode
from blemish.jpeg.native_process import NativeCodeError, NativeProcess, optimise

ENDING = sorted((Path(__file__).parents[1] / "faults" / "files").glob("lossless_*.jpg"))

# Answers like the module itself: ends, refuses, waits for ever, or gives back what it got.
ANSWERING = """
import os, sys, time
from blemish.jpeg.native_process import _read, _write
while (block := _read(sys.stdin.buffer)) is not None:
    if block[1] == b"end":
        os._exit(1)
    if block[1] == b"wait":
        time.sleep(600)
    _write(sys.stdout.buffer, b"\\1" if block[1] == b"refuse" else b"\\0", block[1])
"""


@pytest.fixture
def answering() -> Iterator[Callable[..., NativeProcess]]:
    """Start a process that answers; it ends with the test."""
    started: list[NativeProcess] = []

    def start(seconds: float = 20.0) -> NativeProcess:
        started.append(NativeProcess([sys.executable, "-c", ANSWERING], seconds))
        return started[-1]

    yield start
    for process in started:
        process.close()


def jpeg(seed: int) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 40, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return file.getvalue()


def test_an_end_or_a_refusal_is_an_error_of_that_data_alone(answering: Callable[..., NativeProcess]) -> None:
    process = answering()
    assert process.run(b"first") == b"first"
    with pytest.raises(NativeCodeError, match="it ends the decoder"):
        process.run(b"end")
    assert process.run(b"") == b""
    with pytest.raises(NativeCodeError, match="refuse"):
        process.run(b"refuse")
    large = os.urandom(300_000)
    assert process.run(large) == large


def test_data_that_takes_too_long_is_given_up(answering: Callable[..., NativeProcess]) -> None:
    process = answering(seconds=2.0)
    with pytest.raises(NativeCodeError, match="it takes over 2 s"):
        process.run(b"wait")
    assert process.run(b"next") == b"next"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_forked_process_starts_one_of_its_own(answering: Callable[..., NativeProcess]) -> None:
    process = answering()
    assert process.run(b"before") == b"before"
    child = os.fork()
    if child == 0:
        os._exit(0 if process.run(b"forked") == b"forked" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert process.run(b"after") == b"after"


def test_optimised_files_hold_the_same_pixels() -> None:
    for seed in range(2):
        data = jpeg(seed)
        smaller = optimise(data)
        assert len(smaller) < len(data)
        with Image.open(BytesIO(data)) as before, Image.open(BytesIO(smaller)) as after:
            assert np.array_equal(np.asarray(before), np.asarray(after))


@pytest.mark.parametrize("path", ENDING, ids=lambda path: path.name)
def test_files_that_end_the_optimiser_are_refused_and_the_next_one_is_done(path: Path) -> None:
    before = jpeg(0)
    with suppress(ImageError):  # the optimiser reads one of them after all
        recode(path.read_bytes(), name=path.name)
    assert len(recode(before)) < len(before)
