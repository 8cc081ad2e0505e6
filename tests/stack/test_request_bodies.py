"""Request bodies that are slow, too many, malformed or missing, over raw sockets."""

import http.client
import json
import select
import socket

import psutil
import pytest
import requests

from everstream.logs import ACCESS
from everstream.web import request_bodies
from harness.stack import wait_for, web_alone

CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b'{"texts": ["a"]}'
OTHER_FILES = 25
"""Connections to Valkey that the worker may open meanwhile."""
TRICKLE_S = 0.1
"""Delay between two bytes. The tests check that slow bodies time out, not when."""


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """Valkey and one web worker."""
    with web_alone(tmp_path_factory.mktemp("bodies"), EVERSTREAM_BODY_TIMEOUT_S="600") as stack:
        yield stack


def head(headers, path=b"/generations"):
    return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"


def length(count):
    return b"Content-Length: %d\r\n" % count


def connect(stack, sent=b""):
    connection = socket.create_connection(("127.0.0.1", stack.port), timeout=60)
    connection.sendall(sent)
    return connection


class NoReadAhead:
    """A connection for http.client that leaves the bytes of the next response in the socket."""

    def __init__(self, connection):
        self._connection = connection

    def makefile(self, mode):
        return self._connection.makefile(mode, buffering=1)


def answer_of(connection):
    """Status, headers and JSON of the next response."""
    response = http.client.HTTPResponse(NoReadAhead(connection))
    response.begin()
    return response.status, response.headers, json.loads(response.read())


def assert_refused(connection, status, code):
    """The next response is this error, and then the connection is closed."""
    got, headers, body = answer_of(connection)
    assert (got, headers["Connection"], body["error"]["code"]) == (status, "close", code)
    assert connection.recv(1) == b""
    return headers, body["error"]


def new_lines(stack, since):
    """What was logged since then, as levels and messages, besides the requests."""
    lines = map(json.loads, stack.web.output[since:].splitlines())
    return [(line["level"], line["message"]) for line in lines if line["logger"] != ACCESS]


# Malformed chunks.

BAD_CHUNKS = {
    "no size": b"\r\n",
    "no hexadecimal size": b"zz\r\n",
    "a negative size": b"-1\r\n",
    "a signed size": b"+1\r\na\r\n",
    "a size with an underscore": b"1_0\r\n",
    "a size that never ends": b"1" * 9000,
    "an empty extension": b"5;\r\nhello\r\n",
    "a bare CR in an extension": b"5;a\rb\r\nhello\r\n",
    "no end of a chunk": b"5\r\nhelloXX0\r\n\r\n",
    "a bare LF after a chunk": b"5\r\nhello\n0\r\n\r\n",
    "a trailer without a colon": b"0\r\nnonsense\r\n\r\n",
    "a trailer with a space in its name": b"0\r\nA b: c\r\n\r\n",
    "a trailer that is not allowed": b"0\r\nContent-Length: 5\r\n\r\n",
    "a folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "a trailer with a control character": b"0\r\nA: b\0\r\n\r\n",
    "a bare LF in the trailers": b"0\r\nA: b\n",
    "a trailer that is too long": b"0\r\nA: " + b"b" * 9000 + b"\r\n\r\n",
    "too many trailers": b"0\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "trailers that never end": b"0\r\n" + b"A: b\r\n" * 150_000,
}


@pytest.mark.parametrize("sent", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_malformed_chunks_are_a_client_error(web, sent):
    since = len(web.web.output)
    with connect(web, head(CHUNKED) + sent) as connection:
        _, error = assert_refused(connection, 400, "bad_request")
    assert error["param"] == "body"
    assert error["message"].startswith("the chunks of the body can't be read: ")
    assert new_lines(web, since) == [("info", f"request refused: {error['message']}")]


ENDS = {
    "in a chunk": (CHUNKED, b"5\r\nhel"),
    "after a chunk": (CHUNKED, b"5\r\nhello"),
    "in a size": (CHUNKED, b"5"),
    "before the trailers": (CHUNKED, b"0\r\n"),
    # The part that arrived is valid JSON, and could be taken for the whole.
    "in a body of known length": (length(100), BODY),
}


@pytest.mark.parametrize(("headers", "sent"), ENDS.values(), ids=ENDS)
def test_connection_that_ends_before_the_body(web, headers, sent):
    since = len(web.web.output)
    with connect(web, head(headers) + sent) as connection:
        connection.shutdown(socket.SHUT_WR)
        _, error = assert_refused(connection, 400, "bad_request")
    assert error["param"] == "body"
    assert len(new_lines(web, since)) == 1


@pytest.mark.parametrize("sent", [b"zz\r\n", b"0\r\nA b: c\r\n\r\n"])
def test_openai_routes_answer_with_openai_errors(web, sent):
    with connect(web, head(CHUNKED, b"/v1/chat/completions") + sent) as connection:
        _, error = assert_refused(connection, 400, "bad_request")
    assert error["type"] == "invalid_request_error"


def test_bad_body_after_a_good_one_on_the_same_connection(web):
    good = b"10\r\n" + BODY + b"\r\n0\r\nA-Trailer: x\r\n\r\n"
    with connect(web, head(CHUNKED) + good) as connection:
        for _ in range(2):
            assert answer_of(connection)[0] == 201
            connection.sendall(head(CHUNKED) + good)
        assert answer_of(connection)[0] == 201
        connection.sendall(head(CHUNKED) + b"zz\r\n")
        assert_refused(connection, 400, "bad_request")


def test_unread_complete_body_keeps_the_connection(web):
    with connect(web, head(length(16), b"/nowhere") + BODY + head(length(16)) + BODY) as connection:
        assert answer_of(connection)[0] == 404
        assert answer_of(connection)[0] == 201


@pytest.mark.parametrize(("headers", "sent"), [(length(100), BODY), (CHUNKED, b"5\r\nhel"), (CHUNKED, b"zz\r\n")])
def test_unread_incomplete_body_is_not_waited_for(web, headers, sent):
    since = len(web.web.output)
    with connect(web, head(headers, b"/nowhere") + sent) as connection:
        assert_refused(connection, 404, "not_found")
    assert new_lines(web, since) == []


# Slow bodies.


@pytest.mark.parametrize(
    ("headers", "first", "trickle"),
    [
        (length(100_000), b"{", b" "),
        (CHUNKED, b"186a0\r\n{", b" "),
        (CHUNKED, b"", b"1\r\n \r\n"),
        (CHUNKED, b"1;a=", b"b"),
        (CHUNKED, b"0\r\nA: ", b"b"),
    ],
    ids=["of known length", "in a chunk", "in many chunks", "in an extension", "in a trailer"],
)
def test_trickling_body_times_out(own_stack, headers, first, trickle):
    stack = own_stack(EVERSTREAM_BODY_TIMEOUT_S="1", WEB_CONCURRENCY="1")
    stack.start_web()
    with connect(stack, head(headers) + first) as connection:
        for _ in range(600):
            if select.select([connection], [], [], TRICKLE_S)[0]:
                break
            connection.sendall(trickle)
        _, error = assert_refused(connection, 408, "request_timeout")
    assert error == {"code": "request_timeout", "message": "the body did not arrive within 1 s", "param": "body"}


def test_pending_bodies_are_limited(web):
    (worker,) = web.workers()
    idle = psutil.Process(worker).num_fds()
    slow = [connect(web, head(length(len(BODY))) + BODY[:1]) for _ in range(request_bodies.AT_ONCE + 50)]
    answered = wait_for(lambda: (ready := select.select(slow, [], [], 0)[0]) and len(ready) >= 50 and ready)
    assert len(answered) == 50
    # A refused client that does not read its response holds no connection either.
    most = idle + request_bodies.AT_ONCE + OTHER_FILES
    wait_for(lambda: psutil.Process(worker).num_fds() <= most, what="the refused connections to close")
    for connection in answered:
        headers, error = assert_refused(connection, 503, "too_many_bodies")
        assert headers["Retry-After"] == "5"
        assert "limit" in error["message"]
    # Requests without a pending body are still served.
    assert requests.get(f"{web.url}/healthz", timeout=30).ok
    with connect(web, head(length(len(BODY))) + BODY) as at_once:
        assert answer_of(at_once)[0] == 201
    for connection in slow:
        if connection not in answered:
            connection.sendall(BODY[1:])
            assert answer_of(connection)[0] == 201
    # Their slots are free again.
    with connect(web, head(length(len(BODY)))) as later:
        assert not select.select([later], [], [], TRICKLE_S)[0]
        later.sendall(BODY)
        assert answer_of(later)[0] == 201
    for connection in slow:
        connection.close()


def test_size_of_pending_bodies_is_limited(web):
    """Whatever their number: a body may be large."""
    size = web.settings.max_body_bytes
    most = request_bodies.TOTAL_BYTES // size
    part = b"{" + b" " * (size - 2)
    slow = []
    for _ in range(most + 8):
        connection = connect(web, head(length(size)))
        # The worker stops reading what it refuses.
        connection.setblocking(True)
        connection.sendall(part)
        slow.append(connection)
    answered = wait_for(lambda: (ready := select.select(slow, [], [], 0)[0]) and len(ready) >= 8 and ready)
    assert len(answered) == 8
    for connection in answered:
        _, error = assert_refused(connection, 503, "too_many_bodies")
        assert f"{request_bodies.TOTAL_BYTES} bytes" in error["message"]
    for connection in slow:
        if connection not in answered:
            connection.sendall(b"}")
            assert answer_of(connection)[2]["error"]["param"] == "texts"
    # Nothing is held any more.
    for _ in range(most + 8):
        with connect(web, head(length(size)) + part + b"}") as connection:
            assert answer_of(connection)[0] == 400
    for connection in slow:
        connection.close()


def test_client_that_leaves_mid_body_frees_its_slot(web):
    (worker,) = web.workers()
    idle = psutil.Process(worker).num_fds()
    for _ in range(2):
        gone = [connect(web, head(CHUNKED) + b"5\r\nhel") for _ in range(request_bodies.AT_ONCE)]
        for connection in gone:
            connection.close()
        wait_for(
            lambda: psutil.Process(worker).num_fds() <= idle + OTHER_FILES, what="the closed connections to be released"
        )
    with connect(web, head(CHUNKED) + b"10\r\n") as connection:
        assert not select.select([connection], [], [], TRICKLE_S)[0]
        connection.sendall(BODY + b"\r\n0\r\n\r\n")
        assert answer_of(connection)[0] == 201


def test_client_that_keeps_sending_gets_its_answer(web):
    """Closing with unread data resets the connection, and the reset overtakes the response."""
    size = 2 * web.settings.max_body_bytes
    with connect(web, head(length(size))) as connection:
        for _ in range(size // 8192):
            connection.sendall(b"x" * 8192)
        assert_refused(connection, 413, "body_too_large")
