"""Long texts delay neither the event loop nor short texts, and cancelled work never starts."""

import asyncio
import threading

import pytest

from everstream.contract.prompt_bound import LONG_TEXT_BYTES
from everstream.llm.tokenizer_pool import SHORT_TEXT_BYTES, TokenizerPool

WAIT_S = 60
SHORT, LONGER, LONGEST = SHORT_TEXT_BYTES, LONG_TEXT_BYTES, LONG_TEXT_BYTES + 1


@pytest.fixture
def released():
    """Held work waits for this event, which is set when the test ends at the latest."""
    event = threading.Event()
    yield event
    event.set()


def run(test):
    async def main():
        async with asyncio.timeout(WAIT_S):
            await test(TokenizerPool())

    asyncio.run(main())


@pytest.mark.parametrize("size", [LONGER, LONGEST])
def test_event_loop_keeps_running(released, size):
    async def test(pool):
        work = asyncio.create_task(pool.run(size, lambda: released.wait(WAIT_S)))
        await asyncio.sleep(0)
        released.set()
        assert await work

    run(test)


def test_short_text_does_not_wait(released):
    async def test(pool):
        held = [asyncio.create_task(pool.run(size, released.wait)) for size in (LONGER, LONGEST) for _ in range(100)]
        await asyncio.sleep(0)
        assert await pool.run(SHORT, threading.get_ident) == threading.get_ident()
        assert not any(task.done() for task in held)
        released.set()
        await asyncio.gather(*held)

    run(test)


def test_longer_text_does_not_wait_for_the_longest(released):
    async def test(pool):
        held = [asyncio.create_task(pool.run(LONGEST, released.wait)) for _ in range(100)]
        await asyncio.sleep(0)
        assert await pool.run(LONGER, lambda: "done") == "done"
        assert not any(task.done() for task in held)
        released.set()
        await asyncio.gather(*held)

    run(test)


def test_cancelled_work_ends_at_once_and_queued_work_never_starts(released):
    started = []

    def work(n):
        started.append(n)
        released.wait(WAIT_S)

    async def test(pool):
        tasks = [asyncio.create_task(pool.run(LONGEST, lambda n=n: work(n))) for n in range(50)]
        while not started:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
        )
        before = len(started)
        released.set()
        await pool.run(LONGEST, lambda: None)
        assert len(started) == before < 50

    run(test)


def test_errors_of_the_work_are_raised(released):
    async def test(pool):
        for size in (SHORT, LONGER, LONGEST):
            with pytest.raises(ZeroDivisionError):
                await pool.run(size, lambda: 1 / 0)

    run(test)
