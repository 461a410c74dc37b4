"""Work in parallel threads: every chunk once, equal results, and unchanged settings of torch."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator

import pytest
import torch

from blemish.similarity import ssim, ssim_map
from blemish.similarity.threads import side_by_side

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_chunk_is_visited_once_by_threads_of_one_core() -> None:
    visited: list[int] = []
    cores: set[int] = set()

    def visit(chunks: Iterator[int]) -> None:
        for chunk in chunks:
            visited.append(chunk)
            cores.add(torch.get_num_threads())

    side_by_side(visit, range(100), CPU)
    assert sorted(visited) == list(range(100))
    assert cores == {1}


def test_the_thread_setting_of_torch_is_unchanged() -> None:
    side_by_side(lambda chunks: list(chunks) and None, [1, 2, 3], CPU)
    elsewhere: list[int] = []
    newcomer = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
    newcomer.start()
    newcomer.join()
    assert torch.get_num_threads() == 2
    assert elsewhere == [2]


def test_an_exception_in_a_thread_is_raised() -> None:
    def fail(chunks: Iterator[int]) -> None:
        raise MemoryError(f"no room for {next(chunks)}")

    with pytest.raises(MemoryError, match="no room"):
        side_by_side(fail, [1, 2, 3], CPU)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_one_thread_and_two_give_the_same(mode) -> None:
    x = torch.rand(5, 3, 60, 70)
    y = (x + 0.1).requires_grad_()
    with mode():
        two = ssim_map(x, y, data_range=1.0), ssim(x, y, data_range=1.0)
        torch.set_num_threads(1)
        one = ssim_map(x, y, data_range=1.0), ssim(x, y, data_range=1.0)
    torch.testing.assert_close(one, two)


def test_gradients_of_one_thread_and_two_are_the_same() -> None:
    x = torch.rand(5, 3, 60, 70)
    gradients = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        y = (x + 0.1).requires_grad_()
        (ssim_map(x, y, data_range=1.0).square().mean() + ssim(x, y, data_range=1.0).sum()).backward()
        gradients.append(y.grad)
    torch.testing.assert_close(*gradients)


def similarity_in_a_worker(answers: multiprocessing.Queue) -> None:
    torch.set_num_threads(2)
    x = torch.zeros(4, 1, 32, 32)
    answers.put(ssim(x, x, data_range=1.0).tolist())


def test_a_forked_process_starts_its_own_threads() -> None:
    x = torch.zeros(4, 1, 32, 32)
    ssim(x, x, data_range=1.0)
    forked = multiprocessing.get_context("fork")
    answers = forked.Queue()
    worker = forked.Process(target=similarity_in_a_worker, args=(answers,), daemon=True)
    worker.start()
    assert answers.get(timeout=60) == [1.0] * 4
    worker.join()
