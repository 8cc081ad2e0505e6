"""gunicorn's gevent worker, with some things mended: told to stop it does so at once, a client that stalls is cut,
bodies are bounded (`bodies`), health checks have a listener of their own (`health`), and its own errors are JSON.

gunicorn itself would wait for streams and for idle kept connections until `graceful_timeout`, and then cut them; and it
would wait for ever for a client that reads nothing, or sends its body byte by byte.
"""

import gc
import socket
from functools import partial
from typing import Any

import gevent
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.ggevent import GeventWorker

from everstream import bodies, connections, health
from everstream.errors import ResponseCut
from everstream.processes import run_when_others_pause
from everstream.web import EXTENSION, Web


class Worker(GeventWorker):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._between_requests: set[socket.socket] = set()
        self._places_for_bodies = bodies.Places()
        self._health: health.HealthServer | None = None
        self.wsgi: Any = None

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

    def run(self) -> None:
        port = self._web.settings.health_port
        for listener in [each for each in self.sockets if port and each.getsockname()[1] == port]:
            self.sockets.remove(listener)
            self._health = health.HealthServer(listener, partial(self.handle, listener))
            self._health.start()
        super().run()
        if self._health:
            # What it has begun is over in an instant.
            self._health.stop(timeout=1)

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        self._between_requests.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._between_requests.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        self._between_requests.discard(sock)
        settings = self._web.settings
        sock.settimeout(settings.send_timeout_s)
        source = bodies.Source(sock, self._places_for_bodies, settings.body_timeout_s)
        try:
            if self._health and listener_name == self._health.address:
                self._respond_to_check(self._health, listener_name, req, sock, addr)
            else:
                with bodies.RequestBody(req, source, self.log):
                    super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            self._web.follower.counted["streams_stalled"] += 1
            connections.reset(sock)
            # gunicorn's word for: this connection is done with.
            raise StopIteration from None
        except ResponseCut as error:
            self.log.warning("a response was cut: %s", error)
            raise StopIteration from None
        finally:
            sock.settimeout(None)
            self._between_requests.add(sock)
            if not self.alive:
                connections.shut(sock, socket.SHUT_RD)

    def _respond_to_check(
        self, server: health.HealthServer, listener_name: Any, req: Any, sock: socket.socket, addr: Any
    ) -> None:
        req.force_close()
        with server.admitted(req.path) as refusal:
            if refusal:
                connections.answer(sock, *refusal)
            else:
                super().handle_request(listener_name, req, sock, addr)

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        # A greenlet: what a signal handler does must not block.
        gevent.spawn(self._drain)

    def handle_quit(self, sig: int, frame: Any) -> None:
        gevent.spawn(self._drain)
        super().handle_quit(sig, frame)

    def _drain(self) -> None:
        if self._health:
            self._health.close()
        if self.wsgi is None:
            # Told to stop while it loads: there is nothing to end yet.
            return
        self._web.follower.drain()
        for connection in list(self._between_requests):
            # For the next request gunicorn would wait until `keepalive`.
            connections.shut(connection, socket.SHUT_RD)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what gunicorn could not parse."""
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        self.log.info("request refused: %s", type(exc).__name__)
        connections.answer(client, *_explain(exc))


def _explain(error: ParseException) -> tuple[str, str, str]:
    if isinstance(error, LimitRequestLine):
        message = "the request line is over 8190 bytes; POST /generations takes a body of up to 1 MiB"
        return "414 URI Too Long", "uri_too_long", message
    if isinstance(error, LimitRequestHeaders):
        return "431 Request Header Fields Too Large", "headers_too_large", "the request's headers are too large"
    return "400 Bad Request", "bad_request", f"this is not an HTTP request that can be read: {type(error).__name__}"
