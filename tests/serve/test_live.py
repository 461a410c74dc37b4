"""Live events: in order, without waiting for slow pages, and ended when the server stops."""

from __future__ import annotations

import asyncio
import threading

from blemish.serve.live import WAITING, Live, LiveEvent


def test_events_of_other_threads_come_in_order() -> None:
    live = Live()

    async def look() -> list[LiveEvent | None]:
        with live.subscribed() as subscription:
            thread = threading.Thread(
                target=lambda: [live.publish("decision", {"n": n}, n) for n in range(5)] and live.close()
            )
            thread.start()
            found = [one async for one in subscription.events(10)]
            thread.join()
        return found

    found = asyncio.run(look())
    assert [one.number for one in found if one] == [0, 1, 2, 3, 4]
    assert len(live) == 0
    live.publish("line", {})  # to nobody


def test_a_slow_page_misses_the_oldest_events_and_holds_nobody_up() -> None:
    live = Live()

    async def look() -> list[int | None]:
        with live.subscribed() as subscription:
            for number in range(WAITING + 10):
                live.publish("decision", {}, number)
            await asyncio.sleep(0)
            live.close()
            return [one.number async for one in subscription.events(10) if one]

    assert asyncio.run(look()) == list(range(11, WAITING + 10))


def test_a_page_that_comes_after_the_end_is_ended() -> None:
    live = Live()
    live.close()

    async def look() -> int:
        with live.subscribed() as subscription:
            return len([one async for one in subscription.events(10)])

    assert asyncio.run(look()) == 0


def test_silence_is_said_so_that_a_connection_can_be_tried() -> None:
    live = Live()

    async def look() -> None:
        with live.subscribed() as subscription:
            async for event in subscription.events(0.01):
                assert event is None
                break

    asyncio.run(look())
