from __future__ import annotations

import signal
import threading

import pytest

from blemish.interruption import interruptible


def request(number: signal.Signals, times: int) -> bool:
    with interruptible() as asked:
        assert not asked()
        for _ in range(times):
            signal.raise_signal(number)  # to this thread, whatever others there are
        return asked()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_request_is_kept_in_mind_and_the_second_interrupts(number: signal.Signals) -> None:
    def own(*_: object) -> None:
        raise AssertionError("the request was not caught")

    before = signal.signal(number, own)  # the tests themselves may run where a signal is ignored
    try:
        assert request(number, 1)
        with pytest.raises(KeyboardInterrupt):
            request(number, 2)
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


def test_an_ignored_end_of_the_terminal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        assert not request(signal.SIGHUP, 1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_is_caught() -> None:
    answers: list[bool] = []

    def work() -> None:
        with interruptible() as pressed:
            answers.append(pressed())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
