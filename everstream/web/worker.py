"""gunicorn's gevent worker, with fixes: it drains at once when told to stop, cuts stalled clients, bounds bodies
(`request_bodies`), serves health checks on a separate listener (`health_listener`), and sends its own errors as JSON.

gunicorn itself would wait for streams and idle keep-alive connections until `graceful_timeout`, then cut them. It would
wait forever for a client that reads nothing or sends its body byte by byte.
"""

import gc
import logging
import socket
from functools import partial
from typing import Any

import gevent
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.ggevent import GeventWorker

from everstream import tracing
from everstream.errors import ResponseCut
from everstream.web import connections
from everstream.web.context import EXTENSION, AppContext
from everstream.web.health_listener import HealthServer
from everstream.web.request_bodies import BodyLimits, BodySource, RequestBody
from everstream.web.shallow_stacks import apart


class Worker(GeventWorker):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._between_requests: set[socket.socket] = set()
        self._body_limits = BodyLimits()
        self._health: HealthServer | None = None
        self.wsgi: Any = None

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # With TLS or uWSGI's protocol, a connection carries more than the chunks of a body.
        if not self.cfg.is_ssl and self.cfg.protocol == "http":
            self._context.allow_direct_writes()
        self.wsgi.wsgi_app = apart(self.wsgi.wsgi_app)
        # A stream holds some hundred objects for life. With Python's default thresholds, the collector would traverse
        # them all again and again while streams are opened.
        gc.set_threshold(20_000, 20, 50)
        # gunicorn looks up some forty settings for each request, each by a failed attribute access and two calls.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        # No log line of ours shows these, and under gevent each is a search.
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        # Start here, after the fork and gevent's patching: greenlets and threads do not survive a fork.
        self._context.trace_requests(tracing.start("everstream-web"))
        self._context.streams.start(self._context.credentials.is_valid)
        self._context.follower.start()
        self._context.topic_follower.start()
        self._context.client_slots.start()

    @property
    def _context(self) -> AppContext:
        context: AppContext = self.wsgi.extensions[EXTENSION]
        return context

    def run(self) -> None:
        port = self._context.settings.health_port
        for listener in [each for each in self.sockets if port and each.getsockname()[1] == port]:
            self.sockets.remove(listener)
            self._health = HealthServer(listener, partial(self.handle, listener))
            self._health.start()
        super().run()
        if self._health:
            # Checks in progress finish in an instant.
            self._health.stop(timeout=1)
        if self._context.tracing:
            self._context.tracing.stop()

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        self._between_requests.add(client)
        connections.notice_vanished_peer(client, self._context.settings.send_timeout_s)
        status = self._context.follower.status
        status.connections += 1
        try:
            super().handle(listener, client, addr)
        finally:
            status.connections -= 1
            self._between_requests.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        self._between_requests.discard(sock)
        settings = self._context.settings
        sock.settimeout(settings.send_timeout_s)
        source = BodySource(sock, self._body_limits, settings.body_timeout_s)
        try:
            if self._health and listener_name == self._health.address:
                self._respond_to_check(self._health, listener_name, req, sock, addr)
            else:
                with RequestBody(req, source, self.log):
                    super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            self._context.follower.count("streams_stalled")
            connections.reset(sock)
            # Tells gunicorn that this connection is finished.
            raise StopIteration from None
        except ResponseCut as error:
            self.log.warning("a response was cut: %s", error)
            raise StopIteration from None
        finally:
            sock.settimeout(None)
            self._between_requests.add(sock)
            if not self.alive:
                connections.stop_reading(sock)

    def _respond_to_check(
        self, server: HealthServer, listener_name: Any, req: Any, sock: socket.socket, addr: Any
    ) -> None:
        req.force_close()
        with server.admitted(req.path) as refusal:
            if refusal:
                connections.answer(sock, *refusal)
            else:
                super().handle_request(listener_name, req, sock, addr)

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        # In a greenlet, because a signal handler must not block.
        gevent.spawn(self._drain)

    def handle_quit(self, sig: int, frame: Any) -> None:
        gevent.spawn(self._drain)
        super().handle_quit(sig, frame)

    def _drain(self) -> None:
        if self._health:
            self._health.close()
        if self.wsgi is None:
            # Stopped while loading: there is nothing to drain yet.
            return
        self._context.streams.drain()
        for connection in list(self._between_requests):
            # Otherwise gunicorn would wait up to `keepalive` for the next request.
            connections.stop_reading(connection)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that gunicorn could not parse."""
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        self.log.info("request refused: %s", type(exc).__name__)
        connections.answer(client, *_explain(exc, self._context.settings.max_body_bytes))


def _explain(error: ParseException, max_body_bytes: int) -> tuple[str, str, str]:
    if isinstance(error, LimitRequestLine):
        message = f"the request line is over 8190 bytes; POST /generations takes a body of up to {max_body_bytes} bytes"
        return "414 URI Too Long", "uri_too_long", message
    if isinstance(error, LimitRequestHeaders):
        return "431 Request Header Fields Too Large", "headers_too_large", "the request's headers are too large"
    return "400 Bad Request", "bad_request", f"this is not an HTTP request that can be read: {type(error).__name__}"
