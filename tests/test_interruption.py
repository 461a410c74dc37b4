from __future__ import annotations

import os
import signal
import threading

import pytest

from blemish.interruption import interruptible


def press_ctrl_c(times: int) -> bool:
    with interruptible() as pressed:
        assert not pressed()
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        return pressed()


def test_the_first_ctrl_c_is_a_request_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert press_ctrl_c(1)
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c(2)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_caught() -> None:
    answers: list[bool] = []

    def work() -> None:
        with interruptible() as pressed:
            answers.append(pressed())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
