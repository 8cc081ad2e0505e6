"""Clients of topics: publishers that repeat a request until it is acknowledged, and followers that reconnect as an
EventSource does."""

import http.client
import threading
from contextlib import suppress
from urllib.parse import quote

import requests

from harness.sse_client import connect
from harness.stack import wait_for

TIMEOUT_S = 30
ACKNOWLEDGED_S = 60
OWN_EVENTS = ("open", "ping", "reset", "closed", "failed", "busy")


def topic_url(stack, name="", **query):
    given = "&".join(f"{key}={quote(str(each), safe='')}" for key, value in query.items() for each in many(value))
    return f"{stack.url}/topics{'/' + name if name else ''}{'?' + given if given else ''}"


def many(value):
    return value if isinstance(value, list) else [value]


def publish(stack, name, *values, headers=None, **options):
    """Returns the acknowledgement."""
    body = [{"data": value, **options} for value in values]
    answer = requests.post(topic_url(stack, name), json=body, headers=headers, timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


def publish_surely(stack, name, value):
    """Repeated until it is acknowledged; its id keeps it from being published twice."""

    def is_acknowledged():
        with suppress(requests.RequestException):
            body = {"data": value, "id": f"id-{value}"}
            return requests.post(topic_url(stack, name), json=body, timeout=TIMEOUT_S).status_code == 200
        return False

    wait_for(is_acknowledged, ACKNOWLEDGED_S, "an acknowledgement")


def close(stack, name):
    url = f"{stack.url}/v1/stream/{name}"
    answer = requests.post(url, headers={"Stream-Closed": "true"}, timeout=TIMEOUT_S)
    assert answer.status_code == 204, answer.text


def messages(events):
    return [event for event in events if event.type not in OWN_EVENTS]


def values(events):
    return [event.json for event in messages(events)]


def read_some(url, count, last_id="", **options):
    """The first `count` messages of a stream that may not end."""
    with connect(url, last_id, **options) as stream:
        assert stream.status == 200
        return stream.read(until=lambda seen: len(messages(seen.events)) >= count).events


class Follower:
    """A thread that follows, and reconnects until it is told to stop."""

    def __init__(self, url, **options):
        self.events, self.connections, self.last_id = [], 0, ""
        self._url, self._options, self._stream, self._is_over = url, options, None, False
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self):
        self._thread.start()
        # A ping comes before it is known where the stream begins.
        wait_for(lambda: any(event.type != "ping" for event in self.events), what="the first event")
        return self

    def __exit__(self, *_):
        self._is_over = True
        with suppress(OSError, AttributeError):
            self._stream.connection.sock.shutdown(2)
        self._thread.join(TIMEOUT_S)

    @property
    def values(self):
        return values(self.events)

    def kinds(self, kind):
        return [event for event in self.events if event.type == kind]

    def wait_for(self, count):
        wait_for(
            lambda: len(messages(self.events)) >= count, what=f"{count} messages, not {len(messages(self.events))}"
        )

    def _follow(self):
        while not self._is_over:
            with suppress(OSError, http.client.HTTPException):
                self._read_one()

    def _read_one(self):
        with connect(self._url, self.last_id, **self._options) as stream:
            self.connections += 1
            self._stream = stream
            if stream.status == 204:
                self._is_over = True
            while chunk := stream.response.read1(65536):
                self.events += stream.decoder.feed(chunk)
                self.last_id = stream.decoder.last_id
