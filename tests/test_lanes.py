"""What takes long holds up neither the event loop nor what is short; what is cancelled is not begun."""

import asyncio
import threading

import pytest

from everstream.lanes import SHORT_TEXT_BYTES, Lanes
from everstream.log import LONG_TEXT_BYTES

WAIT_S = 60
SHORT, LONGER, LONGEST = SHORT_TEXT_BYTES, LONG_TEXT_BYTES, LONG_TEXT_BYTES + 1


@pytest.fixture
def released():
    """What held work waits for; at the latest the test's end sets it."""
    event = threading.Event()
    yield event
    event.set()


def run(test):
    async def main():
        async with asyncio.timeout(WAIT_S):
            await test(Lanes())

    asyncio.run(main())


@pytest.mark.parametrize("size", [LONGER, LONGEST])
def test_the_event_loop_goes_on_meanwhile(released, size):
    async def test(lanes):
        work = asyncio.create_task(lanes.run(size, lambda: released.wait(WAIT_S)))
        await asyncio.sleep(0)
        released.set()
        assert await work

    run(test)


def test_a_short_text_waits_for_nothing(released):
    async def test(lanes):
        held = [asyncio.create_task(lanes.run(size, released.wait)) for size in (LONGER, LONGEST) for _ in range(100)]
        await asyncio.sleep(0)
        assert await lanes.run(SHORT, threading.get_ident) == threading.get_ident()
        assert not any(task.done() for task in held)
        released.set()
        await asyncio.gather(*held)

    run(test)


def test_a_longer_text_does_not_wait_for_the_longest(released):
    async def test(lanes):
        held = [asyncio.create_task(lanes.run(LONGEST, released.wait)) for _ in range(100)]
        await asyncio.sleep(0)
        assert await lanes.run(LONGER, lambda: "done") == "done"
        assert not any(task.done() for task in held)
        released.set()
        await asyncio.gather(*held)

    run(test)


def test_cancelled_work_ends_at_once_and_what_waits_is_not_begun(released):
    begun = []

    def work(n):
        begun.append(n)
        released.wait(WAIT_S)

    async def test(lanes):
        tasks = [asyncio.create_task(lanes.run(LONGEST, lambda n=n: work(n))) for n in range(50)]
        while not begun:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
        )
        waited = len(begun)
        released.set()
        await lanes.run(LONGEST, lambda: None)
        assert len(begun) == waited < 50

    run(test)


def test_what_the_work_raises_is_raised(released):
    async def test(lanes):
        for size in (SHORT, LONGER, LONGEST):
            with pytest.raises(ZeroDivisionError):
                await lanes.run(size, lambda: 1 / 0)

    run(test)
