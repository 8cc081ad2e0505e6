"""From the model's output to the reader's bytes, under any interleaving: the log's scripts in a real Valkey, writers,
cursors and the encoder, with everything between them lost, late, repeated or cut.

No time and no threads: each step is one of the rules below, so a failure shrinks to a short list of them.
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

from everstream import log, sse
from everstream.appender import Writer
from everstream.cursor import Cursor
from everstream.engine_log import Batch, EngineLog
from everstream.follower import Live
from everstream.web_log import READ_BYTES, WebLog
from tests.sse_client import TERMINAL, Decoder
from tests.stack import Stack

LENGTH = 20
"""Tokens of the whole answer. Whoever generates it says the same, as in float32 at temperature 0."""
BOUND_BYTES = 60
PAGE_BYTES = 40

FATES = st.sampled_from(["arrives", "arrives", "arrives", "answer lost", "request lost"])
_names = itertools.count()


class Engine:
    """What an engine process does for one generation: its writer, and the append that is under way."""

    def __init__(self, history, first_token):
        self.writer = Writer("", len(history) + 1, lambda _: None, lambda _: None)
        self.said = first_token
        self.under_way = None


class Client:
    """An EventSource, its connection, and the cursor on the other end of it."""

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
        self.encoder = sse.Events(self.generation)
        self.web.submit(self.generation, log.Job({}), "model")
        self.heard = self.web.subscribe()
        next(self.heard)
        self.published = []
        self.entries = []
        self.engines = [Engine([], 0)]
        self.heirs = []
        self.clients = [Client() for _ in range(viewers)]
        self.fences = itertools.count(2)
        self.may_stop = may_stop == 3
        for count in takeovers:
            self.work(self.engines[-1], count, "arrives")
            self.fence(self.entries, "arrives")

    @property
    def working(self):
        return [engine for engine in self.engines if not engine.writer.closed]

    def await_(self, coroutine):
        return self.runner.run(coroutine)

    def read(self, client):
        return self.web.read([(self.generation, client.cursor.begin_read())], PAGE_BYTES)[0]

    def log_now(self):
        return self.web.read([(self.generation, 0)], READ_BYTES)[0].entries

    # Engines: any number of them believe that the generation is theirs.

    @precondition(lambda self: self.working)
    @rule(data=st.data(), count=st.integers(0, 3), fate=FATES)
    def an_engine_works(self, data, count, fate):
        """The model says something, and it is appended as `Appender` does: sent again until it is answered."""
        self.work(data.draw(st.sampled_from(self.working)), count, fate)

    def work(self, engine, count, fate):
        for _ in range(min(count, LENGTH - engine.said)):
            engine.writer.put(log.encode_entry("", {"text": f"t{engine.said} "}))
            engine.said += 1
        if engine.said == LENGTH:
            engine.writer.end("done", {"finish_reason": "stop"})
        if not (engine.under_way or engine.writer._gathered):
            return
        if engine.under_way is None:
            batch = engine.writer.take()
            engine.under_way = Batch(self.generation, batch.first, batch.entries, batch.final)
        if fate == "request lost":
            return
        refused = self.send(engine.under_way)
        if fate == "arrives":
            engine.under_way = None
            engine.writer.settle(refused=refused)

    def send(self, batch):
        refused = self.await_(self.engine_log.append([batch])) != set()
        self.entries = self.log_now()
        # The channel keeps its order, so after this marker nothing of the append is still to come.
        self.web._client.publish(self.web._keys.live, '[["marker",1,[]]]')
        for _, first, entries in itertools.chain.from_iterable(
            itertools.takewhile(lambda message: message[0][0] != "marker", self.heard)
        ):
            self.published.append(Live(first, log.split_entries(entries)))
        return refused

    @precondition(lambda self: self.entries and not self.entries[-1].is_terminal)
    @rule()
    def another_engine_reads_the_log(self):
        """The first half of a takeover; the log may go on before the second."""
        self.heirs.append(self.entries)

    @precondition(lambda self: self.heirs)
    @rule(data=st.data(), fate=FATES)
    def another_engine_fences_the_log(self, data, fate):
        self.fence(data.draw(st.sampled_from(self.heirs[-2:])), fate)

    def fence(self, history, fate):
        fence = log.encode_entry("resumed", {"attempt": 2}), str(next(self.fences)).encode()
        batch = Batch(self.generation, len(history) + 1, [fence])
        if fate == "request lost":
            return
        refused = self.send(batch)
        if fate == "answer lost":
            # It asks again, with the same words.
            assert self.send(batch) == refused
        if not refused:
            self.engines.append(Engine(self.entries, sum(entry.event == log.TOKEN for entry in self.entries)))

    @precondition(lambda self: self.may_stop and len(self.entries) > LENGTH // 2)
    @rule()
    def it_is_stopped(self):
        """Which ends it at once, as nobody has claimed it here: so it may come between any two appends."""
        self.web.stop(self.generation)
        self.entries = self.log_now()

    # The channel and the readers.

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def a_message_arrives(self, data):
        """Any one, in any order, as often as it likes; others never do."""
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

    # What must hold after each step.

    @invariant()
    def the_log_is_one_answer_told_once(self):
        entries = getattr(self, "entries", [])
        assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
        said = [json.loads(entry.data)["text"] for entry in entries if entry.event == log.TOKEN]
        assert said == [f"t{n} " for n in range(len(said))]
        ends = [entry.n for entry in entries if entry.is_terminal]
        assert ends in ([], [len(entries)])
        if ends and entries[-1].event == "done":
            assert len(said) == LENGTH

    @invariant()
    def what_a_client_has_is_a_prefix_of_the_log(self):
        for client in getattr(self, "clients", []):
            told = [(event.id, event.data) for event in client.events]
            logged = [(f"{self.generation}.{entry.n}", entry.data.decode()) for entry in self.entries]
            assert told == logged[: len(told)]

    def teardown(self):
        """However it went: someone takes over and says the rest, and whoever comes back gets all of it."""
        if not hasattr(self, "web"):
            return
        self.another_engine_ends_it()
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
        self.what_a_client_has_is_a_prefix_of_the_log()
        self.the_log_is_one_answer_told_once()
        assert self.web.lookup([self.generation])[0].state == self.clients[0].events[-1].type
        assert len(self.clients[0].events) == len(self.entries)
        self.await_(self.engine_log.close())
        self.runner.close()
        self.heard.close()
        self.web.close()

    def another_engine_ends_it(self):
        history = self.entries
        if history and history[-1].is_terminal:
            return
        writer = Writer("", len(history) + 1, lambda _: None, lambda _: None)
        for n in range(sum(entry.event == log.TOKEN for entry in history), LENGTH):
            writer.put(log.encode_entry("", {"text": f"t{n} "}))
        writer.end("done", {"finish_reason": "stop"})
        batch = writer.take()
        assert not self.send(Batch(self.generation, batch.first, batch.entries, batch.final))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("protocol"), EVERSTREAM_MAX_QUEUED="100000")
    try:
        stack.start_valkey()
        yield stack
    finally:
        stack.stop()


def test_the_protocol(stack):
    Protocol.stack = stack
    run_state_machine_as_test(
        Protocol,
        settings=hypothesis_settings(max_examples=200, stateful_step_count=100),
    )
