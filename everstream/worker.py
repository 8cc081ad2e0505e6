"""gunicorn's gevent worker, with three things mended: told to stop it does so at once, a client that stalls is cut, and
its own errors are JSON.

gunicorn itself would wait for streams and for idle kept connections until `graceful_timeout`, and then cut them; and it
would wait for ever for a client that reads nothing, or sends half a body.
"""

import gc
import json
import socket
import struct
from contextlib import suppress
from typing import Any

import gevent
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.ggevent import GeventWorker

from everstream.processes import run_when_others_pause
from everstream.web import EXTENSION, Web


class Worker(GeventWorker):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._between_requests: set[socket.socket] = set()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # Behind TLS or uWSGI's protocol a connection carries more than the chunks of a body.
        self._web.writes_straight = not self.cfg.is_ssl and self.cfg.protocol == "http"
        # A stream keeps some hundred objects for as long as it lives, and Python's defaults have them all walked over
        # again and again while streams are opened.
        gc.set_threshold(20_000, 20, 50)
        run_when_others_pause()
        # Here, after the fork and gevent's patching: greenlets do not survive a fork.
        self._web.follower.start()

    @property
    def _web(self) -> Web:
        web: Web = self.wsgi.extensions[EXTENSION]
        return web

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        self._between_requests.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._between_requests.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        self._between_requests.discard(sock)
        sock.settimeout(self._web.settings.send_timeout_s)
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            self._web.follower.counted["streams_stalled"] += 1
            _reset(sock)
            # gunicorn's word for: this connection is done with.
            raise StopIteration from None
        finally:
            sock.settimeout(None)
            self._between_requests.add(sock)
            if not self.alive:
                _take_no_more(sock)

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        # A greenlet: what a signal handler does must not block.
        gevent.spawn(self._drain)

    def handle_quit(self, sig: int, frame: Any) -> None:
        gevent.spawn(self._drain)
        super().handle_quit(sig, frame)

    def _drain(self) -> None:
        self._web.follower.drain()
        for connection in list(self._between_requests):
            _take_no_more(connection)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what gunicorn could not parse."""
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        self.log.info("request refused: %s", type(exc).__name__)
        status, code, message = _explain(exc)
        body = json.dumps({"error": {"code": code, "message": message, "param": None}}).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        except OSError:
            self.log.debug("the client of a refused request has gone")


def _take_no_more(connection: socket.socket) -> None:
    """Let gunicorn read the end of a kept connection, for whose next request it would wait until `keepalive`."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _reset(connection: socket.socket) -> None:
    """So that closing drops what the kernel still holds for a client that does not take it."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _explain(error: ParseException) -> tuple[str, str, str]:
    if isinstance(error, LimitRequestLine):
        message = "the request line is over 8190 bytes; POST /generations takes a body of up to 1 MiB"
        return "414 URI Too Long", "uri_too_long", message
    if isinstance(error, LimitRequestHeaders):
        return "431 Request Header Fields Too Large", "headers_too_large", "the request's headers are too large"
    return "400 Bad Request", "bad_request", f"this is not an HTTP request that can be read: {type(error).__name__}"
