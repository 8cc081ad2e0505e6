"""What the Python client publishes: each message once and in order, whatever happens to the requests."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.client.errors import ProducerFenced, RequestRefused, Unavailable
from everstream.client.outbox import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, MAX_IDLE_TOPICS, Batch, Outbox
from everstream.client.shared_outbox import SharedOutbox

LOST = Unavailable("connection_lost", "lost")


def outbox(max_messages=10_000, max_bytes=1 << 30):
    return Outbox(max_messages, max_bytes)


def refusal(status, code="refused"):
    return RequestRefused(code, "no", status=status)


def put(box, topic, *numbers):
    for number in numbers:
        box.add(topic, str(number).encode())


def numbers_of(batch):
    return json.loads(batch.body)


class Server:
    """A producer's state as Durable Streams has it (PROTOCOL.md, section 5.2.1)."""

    def __init__(self, poison=()):
        self.messages = {}
        self.producers = {}
        self.poison = set(poison)

    def post(self, batch):
        """Returns what the client is told."""
        numbers = numbers_of(batch)
        if self.poison & set(numbers):
            return refusal(400)
        epoch, last = self.producers.get(batch.topic, (batch.epoch, -1))
        if batch.epoch < epoch:
            return self.fence(epoch)
        last = -1 if batch.epoch > epoch else last
        if batch.seq > last + 1:
            return self.fence(0)
        if batch.seq == last + 1:
            self.producers[batch.topic] = batch.epoch, batch.seq
            self.messages.setdefault(batch.topic, []).extend(numbers)
        return None

    def fence(self, epoch):
        error = ProducerFenced("fenced", "no", status=409)
        error.epoch = epoch
        return error


def send_all(box, server, now=0.0):
    for _ in range(100_000):
        found = box.next(now)
        if found is None:
            return now
        if not isinstance(found, Batch):
            now = found
            continue
        box.settle(found, server.post(found), now)
    raise AssertionError("it does not end")


@given(st.data())
def test_each_message_once_and_in_order(data):
    """Also if requests are lost before and after they took effect, and if some messages are refused."""
    poison = data.draw(st.sets(st.integers(0, 60), max_size=3))
    box, server, published, now = outbox(), Server(poison), {"a": [], "b": []}, 0.0
    for number in range(data.draw(st.integers(1, 60))):
        topic = data.draw(st.sampled_from("ab"))
        put(box, topic, number)
        published[topic].append(number)
        for _ in range(data.draw(st.integers(0, 2))):
            found = box.next(now)
            if not isinstance(found, Batch):
                now = now if found is None else found
                continue
            outcome = data.draw(st.sampled_from(["answered", "answer lost", "request lost", "busy"]))
            if outcome == "busy":
                error = Unavailable("busy", "no", status=503)
            else:
                error = LOST if outcome == "request lost" else server.post(found)
                error = LOST if outcome == "answer lost" else error
            box.settle(found, error, now)
    send_all(box, server, now)
    for topic, numbers in published.items():
        assert server.messages.get(topic, []) == [number for number in numbers if number not in poison]
    stats = box.stats
    assert (stats.waiting, stats.waiting_bytes, stats.dropped) == (0, 0, 0)
    assert stats.published == stats.acknowledged + stats.refused
    assert stats.refused == len(poison & {number for numbers in published.values() for number in numbers})


def test_retry_is_the_same_batch():
    box = outbox()
    put(box, "a", 1, 2)
    first = box.next(0.0)
    box.settle(first, LOST, 0.0)
    put(box, "a", 3)
    assert box.next(100.0) == first
    box.settle(first, None, 100.0)
    second = box.next(100.0)
    assert (numbers_of(second), second.epoch, second.seq) == ([3], 0, 1)


def test_batches_are_bounded():
    box = outbox()
    put(box, "a", *range(MAX_BATCH_MESSAGES + 1))
    assert len(box.next(0.0).parts) == MAX_BATCH_MESSAGES
    box = outbox()
    for _ in range(3):
        box.add("a", b"1" * (MAX_BATCH_BYTES // 2 - 1))
    assert len(box.next(0.0).parts) == 2


def test_message_above_a_batch_is_sent_alone():
    box = outbox()
    put(box, "a", 1)
    box.add("a", b'"%b"' % (b"x" * MAX_BATCH_BYTES))
    server = Server()
    send_all(box, server)
    assert [type(each) for each in server.messages["a"]] == [int, str]
    assert server.producers["a"] == (0, 1)


def test_batch_that_is_too_large_is_split():
    class Small(Server):
        def post(self, batch):
            return refusal(413, "body_too_large") if len(batch.body) > 1200 else super().post(batch)

    box, server = outbox(), Small()
    put(box, "a", *range(1000, 3000))
    send_all(box, server)
    assert server.messages["a"] == list(range(1000, 3000))
    put(box, "a", *range(3000, 3500))
    assert len(box.next(0.0).body) <= 2048


def test_server_that_lost_its_state_of_the_producer():
    box, server = outbox(), Server()
    put(box, "a", 1)
    send_all(box, server)
    server.producers.clear()
    put(box, "a", 2)
    send_all(box, server)
    assert server.messages["a"] == [1, 2]


def test_fenced_producer_begins_a_higher_epoch():
    box, server = outbox(), Server()
    server.producers["a"] = (7, 3)
    put(box, "a", 1)
    send_all(box, server)
    assert (server.messages["a"], server.producers["a"]) == ([1], (8, 0))


def test_oldest_are_dropped_but_not_what_may_have_been_sent():
    box, server = outbox(max_messages=5), Server()
    put(box, "a", 1, 2)
    box.settle(box.next(0.0), LOST, 0.0)
    put(box, "b", 3)
    put(box, "a", 4, 5, 6, 7)
    assert (box.stats.waiting, box.stats.dropped) == (5, 2)
    assert len(box.warnings) == 1 and "5 messages" in box.warnings[0]
    send_all(box, server)
    assert server.messages == {"a": [1, 2, 5, 6, 7]}


def test_drops_are_reported_again_after_the_buffer_was_empty():
    box, server = outbox(max_messages=1), Server()
    put(box, "a", 1, 2, 3)
    send_all(box, server)
    put(box, "a", 4, 5)
    assert (box.stats.dropped, len(box.warnings)) == (3, 2)
    assert server.messages["a"] == [3]


def test_bytes_are_bounded_too():
    box = outbox(max_bytes=100)
    for _ in range(3):
        box.add("a", b"1" * 40)
    assert (box.stats.waiting_bytes, box.stats.dropped) == (80, 1)
    with pytest.raises(ValueError, match="101 bytes"):
        box.check(b"1" * 101)


@pytest.mark.parametrize("status", [401, 403, 404, 409, 413])
def test_refused_batch_is_dropped_with_one_warning(status):
    box = outbox()
    put(box, "a", 1, 2)
    box.settle(box.next(0.0), refusal(status), 0.0)
    put(box, "a", 3)
    again = box.next(0.0)
    assert numbers_of(again) == [3]
    # An earlier attempt may have taken effect: its number must not be used for other messages.
    assert (again.epoch, again.seq) == (1, 0)
    box.settle(again, refusal(status), 0.0)
    assert box.stats.refused == 3
    assert list(box.warnings) == ["messages for the topic a are refused, and dropped: no (refused)"]


def test_refusals_are_reported_again_after_a_success():
    box = outbox()
    for error in (refusal(404), None, refusal(404)):
        put(box, "a", 1)
        box.settle(box.next(0.0), error, 0.0)
    assert len(box.warnings) == 2


def test_busy_topic_does_not_hold_others_up():
    box = outbox()
    put(box, "a", 1)
    box.settle(box.next(0.0), Unavailable("topic_busy", "no", status=503), 0.0)
    put(box, "b", 2)
    assert box.next(0.0).topic == "b"


def test_service_that_is_away_begins_no_more_batches():
    """So that most of what waits may still be dropped."""
    box = outbox()
    put(box, "a", 1)
    put(box, "b", 2)
    box.settle(box.next(0.0), LOST, 0.0)
    assert isinstance(box.next(0.0), float)
    assert box.next(100.0).topic == "a"


def test_topics_take_turns():
    box = outbox()
    put(box, "a", *range(3 * MAX_BATCH_MESSAGES))
    put(box, "b", 1)
    sent = []
    for _ in range(4):
        batch = box.next(0.0)
        sent.append(batch.topic)
        box.settle(batch, None, 0.0)
    assert sent == ["a", "b", "a", "a"]


def test_message_that_is_made_when_it_is_due():
    box, made = outbox(), []

    def make():
        made.append(1)
        return b"1"

    box.add("a", make, 5.0)
    put(box, "a", 2)
    assert (box.next(0.0), made) == (5.0, [])
    assert numbers_of(box.next(5.0)) == [1, 2]
    assert made == [1]


def test_dropped_message_is_made_all_the_same():
    box, made = outbox(max_messages=1), []
    box.add("a", lambda: made.append(1) or b"1")
    put(box, "a", 2)
    assert (made, box.stats.dropped) == ([1], 1)


def test_forgotten_topics_begin_a_new_epoch():
    """Or the service would take what they send for repetitions."""
    box, server = outbox(max_messages=10 * MAX_IDLE_TOPICS), Server()
    topics = [f"t{n}" for n in range(MAX_IDLE_TOPICS + 3)]
    for topic in [*topics, *topics]:
        put(box, topic, 1)
        send_all(box, server)
    assert set(map(tuple, server.messages.values())) == {(1, 1)}
    assert len(box._topics) <= MAX_IDLE_TOPICS


def test_oldest_tells_what_is_still_waiting():
    box = outbox()
    assert box.oldest() == 0
    put(box, "a", 1, 2)
    put(box, "b", 3)
    assert box.oldest() == 0
    box.settle(box.next(0.0), None, 0.0)
    assert box.oldest() == 2
    box.settle(box.next(0.0), None, 0.0)
    assert box.oldest() == 3


def test_publishing_in_the_middle_of_another_use():
    """As a signal handler does, which has its thread's lock."""
    box = SharedOutbox(outbox())

    def make():
        for number in (2, 3):
            box.add("a", str(number).encode(), 0.0)
        assert box.stats.published == 1
        return b"1"

    box.add("a", make, 0.0)
    first = box.next(0.0)
    assert (numbers_of(first), box.stats.published) == ([1], 3)
    box.settle(first, None, 0.0)
    assert numbers_of(box.next(0.0)) == [2, 3]
