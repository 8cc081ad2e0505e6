"""From the model's output to the reader's bytes under any interleaving.

The log's scripts in a real Valkey, writers, cursors and the encoder, while everything between them is lost, late,
repeated or cut. There are no clocks and no threads: each step is a rule below, so a failure shrinks to a short list.
"""

import asyncio
import itertools
import json

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from everstream.engine.appender import Writer
from everstream.log.engine_log import EMPTY, EngineLog
from everstream.log.entries import TOKEN, encode_entry
from everstream.log.records import Job
from everstream.log.web_log import READ_BYTES, WebLog
from everstream.web.cursor import Cursor
from everstream.web.event_encoder import EventEncoder
from everstream.web.live_batch import LiveBatch
from harness.sse_client import TERMINAL, Decoder
from harness.stack import Stack

LENGTH = 20
"""Tokens in the whole answer. Every engine generates the same ones, as in float32 at temperature 0."""
BOUND_BYTES = 60
PAGE_BYTES = 40

FATES = st.sampled_from(["arrives", "arrives", "arrives", "reply lost", "request lost"])
_names = itertools.count()


class Engine:
    """One engine's state for a generation: its writer, and the append in flight."""

    def __init__(self, generation, history, first_token):
        self.writer = Writer(generation, lambda _: None, lambda _: None, history)
        self.generated = first_token
        self.in_flight = None


class Client:
    """An EventSource, its connection, and the server's cursor for it."""

    def __init__(self):
        self.events = []
        self.connect()

    def connect(self):
        last_id = self.events[-1].id if self.events else ""
        self.decoder = Decoder(last_id=last_id)
        self.on_the_wire = b""
        self.cursor = Cursor(int(last_id.rpartition(".")[2]) if last_id else 0, BOUND_BYTES)
        self.page = None

    @property
    def is_over(self):
        return bool(self.events) and self.events[-1].type in TERMINAL


class Protocol(RuleBasedStateMachine):
    stack = None

    @initialize(
        viewers=st.integers(1, 2), takeovers=st.lists(st.integers(1, 4), max_size=3), may_stop=st.integers(0, 3)
    )
    def start(self, viewers, takeovers, may_stop):
        self.web = WebLog(self.stack.settings)
        self.runner = asyncio.Runner()
        self.engine_log = EngineLog(self.stack.settings, "")
        self.generation = f"{next(_names):032x}"
        self.encoder = EventEncoder(self.generation)
        self.web.submit(self.generation, Job({}), "model", "")
        self.subscription = self.web.subscribe()
        next(self.subscription)
        self.published = []
        self.entries = []
        self.engines = [Engine(self.generation, EMPTY, 0)]
        self.histories = []
        self.clients = [Client() for _ in range(viewers)]
        self.fences = itertools.count(2)
        self.may_stop = may_stop == 3
        for count in takeovers:
            self.work(self.engines[-1], count, "arrives")
            self.fence(self.history(), "arrives")

    @property
    def working(self):
        return [engine for engine in self.engines if not engine.writer.closed]

    def await_(self, coroutine):
        return self.runner.run(coroutine)

    def read(self, client):
        return self.web.read([(self.generation, client.cursor.begin_read())], PAGE_BYTES)[0]

    def history(self):
        """As an engine reads the log."""
        return self.await_(self.engine_log.history(self.generation))

    def read_log(self):
        return self.web.read([(self.generation, 0)], READ_BYTES)[0].entries

    # Engines: any number of them may believe that they own the generation.

    @precondition(lambda self: self.working)
    @rule(data=st.data(), count=st.integers(0, 3), fate=FATES)
    def an_engine_works(self, data, count, fate):
        """The model generates tokens, which are appended as by `Appender`: resent until there is a reply."""
        self.work(data.draw(st.sampled_from(self.working)), count, fate)

    def work(self, engine, count, fate):
        for _ in range(min(count, LENGTH - engine.generated)):
            engine.writer.put(encode_entry("", {"text": f"t{engine.generated} "}))
            engine.generated += 1
        if engine.generated == LENGTH:
            engine.writer.end("done", {"finish_reason": "stop"})
        if not (engine.in_flight or engine.writer._gathered):
            return
        if engine.in_flight is None:
            engine.in_flight = engine.writer.take()
        if fate == "request lost":
            return
        refused = self.send(engine.in_flight)
        if fate == "arrives":
            engine.in_flight = None
            engine.writer.refuse() if refused else engine.writer.settle()

    def send(self, batch):
        refused = self.await_(self.engine_log.append([batch])) != set()
        self.entries = self.read_log()
        # The channel is ordered, so no message of this append can follow the marker.
        self.web._client.publish(self.web._keys.live, '[["marker",1,[]]]')
        for _, first, entries in itertools.chain.from_iterable(
            itertools.takewhile(lambda message: message[0][0] != "marker", self.subscription)
        ):
            self.published.append(LiveBatch(first, entries))
        return refused

    @precondition(lambda self: self.entries and not self.entries[-1].is_terminal)
    @rule()
    def another_engine_reads_the_log(self):
        """The first half of a takeover; the log may grow before the second."""
        self.histories.append(self.history())

    @precondition(lambda self: self.histories)
    @rule(data=st.data(), fate=FATES)
    def another_engine_fences_the_log(self, data, fate):
        self.fence(data.draw(st.sampled_from(self.histories[-2:])), fate)

    def fence(self, history, fate):
        fence = encode_entry("resumed", {"attempt": 2}), str(next(self.fences)).encode()
        batch = history.followed_by(self.generation, *fence)
        if fate == "request lost":
            return
        refused = self.send(batch)
        if fate == "reply lost":
            # It repeats the identical append.
            assert self.send(batch) == refused
        if not refused:
            tokens = sum(entry.event == TOKEN for entry in self.entries)
            self.engines.append(Engine(self.generation, self.history(), tokens))

    @precondition(lambda self: self.may_stop and len(self.entries) > LENGTH // 2)
    @rule()
    def generation_is_stopped(self):
        """It ends at once, because nobody has claimed it here, so this may fall between any two appends."""
        self.web.stop(self.generation)
        self.entries = self.read_log()

    # The channel and the readers.

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def a_message_arrives(self, data):
        """Messages arrive in any order, any number of times, or never."""
        live = data.draw(st.sampled_from(self.published))
        client = data.draw(st.sampled_from(self.clients))
        chunk = live.chunk(self.encoder)
        if chunk and client.cursor.skip(live.first, live.last):
            client.on_the_wire += chunk.partition(b"\r\n")[2][:-2]
        else:
            for entry in live.entries:
                client.cursor.offer(entry)

    @rule(data=st.data())
    def a_read_begins(self, data):
        client = data.draw(st.sampled_from(self.clients))
        if client.page is None:
            client.page = self.read(client)

    @rule(data=st.data(), fails=st.booleans())
    def a_read_ends(self, data, fails):
        client = data.draw(st.sampled_from(self.clients))
        page, client.page = client.page, None
        if page is not None and fails:
            client.cursor.end_read([], to_the_end=False)
        elif page is not None:
            at_the_end = not page.entries or page.entries[-1].n == page.top
            client.cursor.end_read(page.entries, to_the_end=at_the_end)

    @rule(data=st.data())
    def entries_are_sent(self, data):
        client = data.draw(st.sampled_from(self.clients))
        if client.page is None:
            client.on_the_wire += b"".join(self.encoder.entry(entry) for entry in client.cursor.take())

    @rule(data=st.data())
    def bytes_arrive(self, data):
        client = data.draw(st.sampled_from(self.clients))
        count = data.draw(st.integers(0, len(client.on_the_wire)))
        client.events += client.decoder.feed(client.on_the_wire[:count])
        client.on_the_wire = client.on_the_wire[count:]

    @rule(data=st.data())
    def a_connection_is_cut_and_made_again(self, data):
        data.draw(st.sampled_from(self.clients)).connect()

    # Invariants.

    @invariant()
    def log_holds_the_answer_once(self):
        entries = getattr(self, "entries", [])
        assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
        texts = [json.loads(entry.data)["text"] for entry in entries if entry.event == TOKEN]
        assert texts == [f"t{n} " for n in range(len(texts))]
        ends = [entry.n for entry in entries if entry.is_terminal]
        assert ends in ([], [len(entries)])
        if ends and entries[-1].event == "done":
            assert len(texts) == LENGTH

    @invariant()
    def client_events_are_a_prefix_of_the_log(self):
        for client in getattr(self, "clients", []):
            received = [(event.id, event.data) for event in client.events]
            logged = [(f"{self.generation}.{entry.n}", entry.data.decode()) for entry in self.entries]
            assert received == logged[: len(received)]

    def teardown(self):
        """In the end another engine generates the rest, and every client that reconnects gets all of it."""
        if not hasattr(self, "web"):
            return
        self.another_engine_finishes()
        for client in self.clients:
            for _ in self.entries:
                if client.is_over:
                    break
                client.connect()
                page = self.read(client)
                client.cursor.end_read(page.entries, to_the_end=False)
                for entry in client.cursor.take():
                    client.events += client.decoder.feed(self.encoder.entry(entry))
            assert client.is_over
        self.client_events_are_a_prefix_of_the_log()
        self.log_holds_the_answer_once()
        assert self.web.lookup([self.generation])[0].state == self.clients[0].events[-1].type
        assert len(self.clients[0].events) == len(self.entries)
        self.await_(self.engine_log.close())
        self.runner.close()
        self.subscription.close()
        self.web.close()

    def another_engine_finishes(self):
        history = self.history()
        if history.entries and history.entries[-1].is_terminal:
            return
        writer = Writer(self.generation, lambda _: None, lambda _: None, history)
        for n in range(sum(entry.event == TOKEN for entry in history.entries), LENGTH):
            writer.put(encode_entry("", {"text": f"t{n} "}))
        writer.end("done", {"finish_reason": "stop"})
        assert not self.send(writer.take())


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("protocol"), EVERSTREAM_MAX_QUEUED="100000")
    try:
        stack.start_valkey()
        yield stack
    finally:
        stack.stop()


def test_protocol(stack):
    Protocol.stack = stack
    run_state_machine_as_test(
        Protocol,
        settings=hypothesis_settings(max_examples=200, stateful_step_count=100),
    )
