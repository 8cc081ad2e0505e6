"""Which close outputs are joined, which are not, and when they are flushed. Time is advanced by hand."""

import asyncio
import json

from everstream.engine.coalescer import Coalescer, FlushClocks
from everstream.log.entries import encode_json


class Clock:
    """An event loop's time, advanced by hand."""

    def __init__(self, loop):
        self.now = 100.0
        loop.time = lambda: self.now

    async def advance(self, seconds):
        self.now += seconds
        # One turn of the loop for the timers that are due, one for their effects.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class Generation:
    """A coalescer and the entries it emits."""

    def __init__(self, clock, max_output_bytes=1000):
        self.coalescer = Coalescer(clock, self._keep, max_output_bytes)
        self.entries = []

    def _keep(self, output, resume):
        self.entries.append((json.loads(output), json.loads(resume or b"null")))

    def send(self, text, *tokens, **more):
        output, resume = encode_json({"text": text, **more}), encode_json(tokens) if tokens else b""
        may_join = bool(tokens) and isinstance(text, str) and not more
        self.coalescer.put(output, resume, may_join)

    @property
    def texts(self):
        return [output["text"] for output, _ in self.entries]


def coalesced(script, flush_ms=16, max_output_bytes=1000):
    """The entries that `script(generation, advance)` makes a coalescer emit."""

    async def main():
        clock = Clock(asyncio.get_running_loop())
        generation = Generation(FlushClocks().of(flush_ms), max_output_bytes)
        await script(generation, clock.advance)
        return generation.entries

    return asyncio.run(main())


def test_outputs_within_flush_ms_are_joined_except_the_first():
    async def script(generation, advance):
        generation.send("a", 1)
        generation.send('b"\n', 2, 3)
        generation.send("\u2028c", 4)
        await advance(0.017)
        generation.send("d", 5)
        generation.coalescer.flush()

    assert coalesced(script) == [
        ({"text": "a"}, [1]),
        ({"text": 'b"\n\u2028c'}, [2, 3, 4]),
        ({"text": "d"}, [5]),
    ]


def test_held_output_is_flushed_when_nothing_follows():
    async def script(generation, advance):
        generation.send("a", 1)
        generation.send("b", 2)
        await advance(0.017)
        # Long after the last output, so it is emitted at once.
        await advance(1)
        generation.send("c", 3)

    assert coalesced(script) == [({"text": "a"}, [1]), ({"text": "b"}, [2]), ({"text": "c"}, [3])]


def test_generations_flush_together_on_the_next_output():
    """The first output of the next period flushes held outputs; no timer does so between two model steps."""

    async def main():
        clock, flush_clock = Clock(asyncio.get_running_loop()), FlushClocks().of(100)
        generations = [Generation(flush_clock), Generation(flush_clock)]
        for text, delay_s in (("a", 0.01), ("b", 0.06), ("c", 0.06), ("d", 0.06), ("e", 0.06)):
            await clock.advance(delay_s)
            for generation in generations:
                generation.send(text, ord(text))
        return [generation.texts for generation in generations]

    assert asyncio.run(main()) == [["a", "bc", "de"], ["a", "bc", "de"]]


def test_each_generation_is_flushed_at_its_own_deadline():
    async def main():
        clock, flush_clock = Clock(asyncio.get_running_loop()), FlushClocks().of(100)
        first, second = Generation(flush_clock), Generation(flush_clock)

        def texts():
            return ["".join(generation.texts) for generation in (first, second)]

        await clock.advance(0.01)
        first.send("a", 1)
        second.send("a", 1)
        await clock.advance(0.01)
        first.send("b", 2)
        await clock.advance(0.05)
        second.send("b", 2)
        await clock.advance(0.051)
        seen = [texts()]
        await clock.advance(0.05)
        # The clock forgets generations that hold nothing.
        return [*seen, texts()], flush_clock._holding

    assert asyncio.run(main()) == ([["ab", "a"], ["ab", "ab"]], {})


def test_outputs_that_cannot_be_joined_keep_their_order():
    async def script(generation, advance):
        generation.send("a", 1)
        generation.send("b", 2)
        generation.send("c", 3, logprob=-1)
        generation.send("d")
        generation.send("e", 4)
        generation.send(7, 5)
        generation.send("f", 6)
        generation.coalescer.flush()

    assert coalesced(script) == [
        ({"text": "a"}, [1]),
        ({"text": "b"}, [2]),
        ({"text": "c", "logprob": -1}, [3]),
        ({"text": "d"}, None),
        ({"text": "e"}, [4]),
        ({"text": 7}, [5]),
        ({"text": "f"}, [6]),
    ]


def test_joined_outputs_stay_within_max_output_bytes():
    async def script(generation, advance):
        for token in range(20):
            generation.send("x" * 90, token)
        generation.coalescer.flush()

    entries = coalesced(script)
    assert "".join(output["text"] for output, _ in entries) == "x" * 1800
    assert [token for _, tokens in entries for token in tokens] == list(range(20))
    assert 3 <= len(entries) <= 4


def test_without_flush_ms_each_output_is_an_entry():
    async def script(generation, advance):
        generation.send("a", 1)
        generation.send("b", 2)

    assert coalesced(script, flush_ms=0) == [({"text": "a"}, [1]), ({"text": "b"}, [2])]


def test_discarded_outputs_are_never_emitted():
    async def script(generation, advance):
        generation.send("a", 1)
        generation.send("b", 2)
        generation.coalescer.discard()
        await advance(1)

    assert coalesced(script) == [({"text": "a"}, [1])]
