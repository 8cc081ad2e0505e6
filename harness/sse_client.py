"""An SSE decoder that follows the standard (WHATWG HTML 9.2.6), and an EventSource that can be cut at any byte."""

import http.client
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TERMINAL = {"done", "cancelled", "failed"}
SILENCE_S = 60
READ_TIMEOUT_S = 240
"""Limit for one `read`: heartbeats would otherwise keep a stream without events open forever."""
RECONNECTS = 1000


@dataclass
class Event:
    type: str
    data: str
    id: str

    @property
    def json(self):
        return json.loads(self.data)


@dataclass
class Decoder:
    """Bytes in, complete events out. As the standard requires, an incomplete event is discarded."""

    last_id: str = ""
    comments: list[str] = field(default_factory=list)
    retry_ms: int | None = None
    ignored: list[str] = field(default_factory=list)
    """Lines that the standard tells readers to ignore; no server sends one on purpose."""
    _bytes: bytes = b""
    _type: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        self._bytes += chunk
        *lines, self._bytes = re.split(rb"\r\n|\n|\r", self._bytes)
        return [event for line in lines if (event := self._line(line.decode())) is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            self.comments.append(line[1:].strip())
            return None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry_ms = int(value)
        else:
            self.ignored.append(line)
        return None

    def _dispatch(self) -> Event | None:
        if self._id is not None:
            self.last_id = self._id
        data, event_type = self._data, self._type
        self._data, self._type, self._id = [], "", None
        return Event(event_type or "message", "\n".join(data), self.last_id) if data else None


@dataclass
class Connection:
    """One GET of an event stream."""

    status: int
    headers: http.client.HTTPMessage
    events: list[Event]
    decoder: Decoder
    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    bytes_read: int = 0

    @property
    def local_port(self):
        return self.connection.sock.getsockname()[1]

    def read(self, until=lambda connection: False, max_bytes=None):
        """Read until `until` returns true, `max_bytes` have arrived, or the server ends the stream. Returns self."""
        deadline = time.monotonic() + READ_TIMEOUT_S
        while not until(self) and (max_bytes is None or self.bytes_read < max_bytes):
            room = 65536 if max_bytes is None else max_bytes - self.bytes_read
            chunk = self.response.read1(room)
            if not chunk:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"{self} is still open after {READ_TIMEOUT_S} s")
            self.bytes_read += len(chunk)
            self.events += self.decoder.feed(chunk)
        return self

    def read_until_cut(self):
        """Read a stream whose connection breaks before the final chunk. Returns self."""
        try:
            self.read()
        except (http.client.IncompleteRead, ConnectionError):
            return self
        raise AssertionError("the stream ended cleanly")

    def close(self):
        self.response.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(url, last_id="", headers=None, timeout=SILENCE_S, *, http_version="HTTP/1.1", body=None):
    """With a `body`, which is sent as JSON, by POST."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    connection._http_vsn_str = http_version
    request_headers = {"Accept": "text/event-stream", **(headers or {})}
    if last_id:
        request_headers["Last-Event-ID"] = last_id
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if body is None:
        connection.request("GET", target, headers=request_headers)
    else:
        request_headers["Content-Type"] = "application/json"
        connection.request("POST", target, json.dumps(body), request_headers)
    response = connection.getresponse()
    return Connection(response.status, response.headers, [], Decoder(last_id=last_id), response, connection)


def read_all(url, last_id="", **options):
    """All events up to the end of the stream."""
    with connect(url, last_id, **options) as stream:
        return stream.read().events


def follow_to_the_end(url, last_id="", max_bytes=None):
    """Reconnect as EventSource does, until the terminal event. Returns all events and the number of connections.

    With `max_bytes` the client drops each connection after that many bytes.
    """
    events = []
    for connections in range(1, RECONNECTS):
        with suppress(ConnectionError), connect(url, last_id=last_id) as stream:
            events += stream.read(max_bytes=max_bytes).events
            last_id = stream.decoder.last_id
        if is_over(events):
            return events, connections
    raise AssertionError(f"no terminal event within {RECONNECTS} connections; the last events are {events[-3:]}")


def is_over(events):
    return bool(events) and events[-1].type in TERMINAL


def text_of(events):
    return "".join(event.json["text"] for event in events if event.type == "message")


def assert_whole(events):
    """Ids are contiguous from 0, no event is repeated, and the only terminal event comes last."""
    numbered = [event for event in events if event.type != "queued"]
    assert [event.type for event in numbered if event.type in TERMINAL] == [numbered[-1].type]
    numbers = [int(event.id.rpartition(".")[2]) for event in numbered]
    assert numbers == list(range(len(numbered)))
    assert len({event.id.partition(".")[0] for event in numbered}) == 1
