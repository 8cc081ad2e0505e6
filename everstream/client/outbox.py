"""What is published but not yet acknowledged: a state machine without I/O, for one `publisher`, which holds a lock and
passes the time.

In: messages, and how the attempts to send a batch have ended. Out: the next batch, statistics, warnings. One batch of a
topic is sent at a time, and again and again, unchanged and with the same number, until its end is known: so the service
can tell a repetition, and the order is kept. What is not in a batch yet may be dropped if there is too much.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from everstream.client.backoff import Backoff
from everstream.client.errors import EverstreamError, ProducerFenced, Unavailable

MAX_BATCH_MESSAGES = 1000
MAX_BATCH_BYTES = 512 << 10
MAX_IDLE_TOPICS = 1000
"""Whose numbers are remembered. A topic that was forgotten begins a new epoch."""
LAZY_BYTES = 512
"""How much a message counts that is made when it is sent."""
_LEAST_BATCH_BYTES = 1024
_SPLIT = ("body_too_large", "http_413")

Body = bytes | Callable[[], bytes]


class Stats(NamedTuple):
    """Numbers of messages, but for `waiting_bytes`. `dropped`: because too many were waiting. `refused`: by the
    service. `waiting`: not yet acknowledged."""

    published: int
    acknowledged: int
    dropped: int
    refused: int
    waiting: int
    waiting_bytes: int


class Batch(NamedTuple):
    """`first`: the number of its first message, in the order in which all were published."""

    topic: str
    epoch: int
    seq: int
    parts: tuple[bytes, ...]
    first: int
    counted_bytes: int

    @property
    def body(self) -> bytes:
        return b"[%b]" % b",".join(self.parts)


class _Message(NamedTuple):
    body: Body
    counted_bytes: int
    due: float


class _Topic:
    def __init__(self, name: str, epoch: int, backoff: Backoff) -> None:
        self.name = name
        self.unsent: OrderedDict[int, _Message] = OrderedDict()
        self.batches: deque[Batch] = deque()
        """Those that were begun: only the first one is sent."""
        self.epoch = epoch
        self.seq = 0
        self.backoff = backoff
        self.ready_at = 0.0
        self.reported: set[str] = set()

    @property
    def is_empty(self) -> bool:
        return not self.unsent and not self.batches

    def due(self) -> float:
        """When its next batch may be sent."""
        return self.ready_at if self.batches else max(self.ready_at, next(iter(self.unsent.values())).due)

    def renew(self, epoch: int) -> None:
        """Begin an epoch, in which the numbers start over."""
        self.epoch, self.seq = epoch, 0


class Outbox:
    """`warnings`: for the log; whoever writes them takes them out."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.warnings: deque[str] = deque()
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._max_batch_bytes = MAX_BATCH_BYTES
        self._topics: OrderedDict[str, _Topic] = OrderedDict()
        self._begun: OrderedDict[str, _Topic] = OrderedDict()
        self._active: OrderedDict[str, _Topic] = OrderedDict()
        self._unsent: OrderedDict[int, _Topic] = OrderedDict()
        self._least_epoch = 0
        self._backoff = Backoff(None)
        self._ready_at = 0.0
        self._published = self._acknowledged = self._dropped = self._refused = 0
        self._waiting = self._waiting_bytes = 0
        self._has_reported_drops = False

    @property
    def stats(self) -> Stats:
        counts = (self._published, self._acknowledged, self._dropped, self._refused)
        return Stats(*counts, self._waiting, self._waiting_bytes)

    def has_room(self) -> bool:
        """Whether a batch more would not come near the bounds."""
        return self._waiting * 2 < self._max_messages and self._waiting_bytes * 2 < self._max_bytes

    def oldest(self) -> int:
        """The number of the oldest message that waits; if none does, that of the next one."""
        begun = (topic.batches[0].first for topic in self._begun.values())
        return min(chain(begun, (next(iter(self._unsent), self._published),)))

    def check(self, body: Body) -> None:
        """Raises ValueError."""
        if _size(body) > self._max_bytes:
            raise ValueError(f"a message of {_size(body)} bytes is above the {self._max_bytes} that may wait")

    def add(self, name: str, body: Body, due: float = 0.0) -> None:
        """`body`: the JSON of a message, or what makes it; see `check`. `due`: not to be sent before."""
        size = _size(body)
        topic = self._topic(name)
        topic.unsent[self._published] = _Message(body, size, due)
        self._unsent[self._published] = topic
        self._active[name] = topic
        self._published += 1
        self._count(1, size)
        self._drop_oldest()

    def next(self, now: float) -> Batch | float | None:
        """A batch to send, or when to ask again; None: nothing waits."""
        if not self._active:
            return None
        if self._ready_at > now:
            return self._ready_at
        ready = next((topic for topic in self._in_order() if topic.due() <= now), None)
        if ready is None:
            return min(topic.due() for topic in self._active.values())
        return self._begin(ready, now)

    def settle(self, batch: Batch, error: EverstreamError | None, now: float) -> float | None:
        """Take the end of an attempt; None: it was acknowledged. Returns the delay of the next attempt, if waiting may
        help."""
        topic = self._begun[batch.topic]
        if error is None or error.status is not None:
            self._backoff.progressed()
        if error is None:
            self._acknowledge(topic)
        elif isinstance(error, Unavailable | ProducerFenced):
            return self._wait(topic, error, now)
        elif len(batch.parts) > 1 and (error.status == 400 or error.code in _SPLIT):
            self._split(topic, batch, error)
        else:
            self._refuse(topic, batch, error)
        if topic.is_empty:
            self._rest(topic)
        return None

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            self._topics[name] = _Topic(name, self._least_epoch, Backoff(None))
        self._topics.move_to_end(name)
        return self._topics[name]

    def _in_order(self) -> Iterator[_Topic]:
        """First what was begun, so that not much is begun while the service is away; then each topic in turn."""
        return chain(self._begun.values(), self._active.values())

    def _begin(self, topic: _Topic, now: float) -> Batch:
        """The topic's first batch, made of what is due if there is none. It has the topic's current numbers."""
        if not topic.batches:
            topic.batches.append(self._fill(topic, now))
            self._begun[topic.name] = topic
        self._active.move_to_end(topic.name)
        topic.batches[0] = topic.batches[0]._replace(epoch=topic.epoch, seq=topic.seq)
        return topic.batches[0]

    def _fill(self, topic: _Topic, now: float) -> Batch:
        parts: list[bytes] = []
        first, counted, size = next(iter(topic.unsent)), 0, 0
        while topic.unsent and len(parts) < MAX_BATCH_MESSAGES:
            number, message = next(iter(topic.unsent.items()))
            if parts and (message.due > now or size + message.counted_bytes > self._max_batch_bytes):
                break
            body = message.body if isinstance(message.body, bytes) else message.body()
            parts.append(body)
            counted += message.counted_bytes
            size += len(body) + 1
            del topic.unsent[number], self._unsent[number]
        return Batch(topic.name, topic.epoch, topic.seq, tuple(parts), first, counted)

    def _acknowledge(self, topic: _Topic) -> None:
        batch = self._leave(topic)
        topic.seq += 1
        topic.reported.clear()
        topic.backoff.progressed()
        self._acknowledged += len(batch.parts)

    def _refuse(self, topic: _Topic, batch: Batch, error: EverstreamError) -> None:
        self._leave(topic)
        # An earlier attempt may have been the service's last of this number.
        topic.renew(topic.epoch + 1)
        self._refused += len(batch.parts)
        if error.code not in topic.reported:
            topic.reported.add(error.code)
            self.warnings.append(f"messages for the topic {topic.name} are refused, and dropped: {error}")

    def _split(self, topic: _Topic, batch: Batch, error: EverstreamError) -> None:
        """Send both halves by themselves: one message alone may be the reason."""
        topic.renew(topic.epoch + 1)
        if error.status != 400:
            self._max_batch_bytes = max(len(batch.body) // 2, _LEAST_BATCH_BYTES)
        half = len(batch.parts) // 2
        first = batch._replace(parts=batch.parts[:half], counted_bytes=batch.counted_bytes // 2)
        rest = batch._replace(parts=batch.parts[half:], counted_bytes=batch.counted_bytes - first.counted_bytes)
        topic.batches[0] = rest
        topic.batches.appendleft(first)

    def _wait(self, topic: _Topic, error: Unavailable | ProducerFenced, now: float) -> float:
        if isinstance(error, ProducerFenced):
            topic.renew(max(topic.epoch, error.epoch) + 1)
        cause = error if isinstance(error, Unavailable) else Unavailable(error.code, error.message, status=error.status)
        # Without a response, other topics would have none either.
        delay = (self._backoff if error.status is None else topic.backoff).delay(cause, now)
        if error.status is None:
            self._ready_at = now + delay
        else:
            topic.ready_at = now + delay
        return delay

    def _leave(self, topic: _Topic) -> Batch:
        """Remove the topic's first batch, whose end is known."""
        batch = topic.batches.popleft()
        if not topic.batches:
            del self._begun[topic.name]
        self._count(-len(batch.parts), -batch.counted_bytes)
        return batch

    def _rest(self, topic: _Topic) -> None:
        """Nothing of the topic waits. If many topics are at rest, forget the one that was for longest."""
        del self._active[topic.name]
        self._topics.move_to_end(topic.name)
        if len(self._topics) - len(self._active) > MAX_IDLE_TOPICS:
            found = next(each for each in self._topics.values() if each.is_empty)
            self._least_epoch = max(self._least_epoch, found.epoch + 1)
            del self._topics[found.name]

    def _count(self, messages: int, size: int) -> None:
        self._waiting += messages
        self._waiting_bytes += size
        if not self._waiting:
            self._has_reported_drops = False

    def _drop_oldest(self) -> None:
        while self._unsent and (self._waiting > self._max_messages or self._waiting_bytes > self._max_bytes):
            number, topic = self._unsent.popitem(last=False)
            message = topic.unsent.pop(number)
            if not isinstance(message.body, bytes):
                # Its maker waits for that.
                message.body()
            self._count(-1, -message.counted_bytes)
            self._dropped += 1
            if topic.is_empty:
                self._rest(topic)
            if not self._has_reported_drops:
                self._has_reported_drops = True
                self.warnings.append(
                    f"more than {self._max_messages} messages or {self._max_bytes} bytes wait to be published: the "
                    "oldest are dropped"
                )


def _size(body: Body) -> int:
    return len(body) if isinstance(body, bytes) else LAZY_BYTES
