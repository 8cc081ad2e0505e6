"""gunicorn's gevent worker, with two things mended: it ends its streams when told to stop, and its own errors are JSON.

gunicorn itself would let streams run on until `graceful_timeout` and then cut them.
"""

import json
import socket
from typing import Any

import gevent
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.ggevent import GeventWorker

from everstream.routes import Web


class Worker(GeventWorker):  # type: ignore[misc]
    def init_process(self) -> None:
        self.log.debug("worker starts")
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # Here, after the fork and gevent's patching: greenlets do not survive a fork.
        self._web.follower.start()

    @property
    def _web(self) -> Web:
        found: Web = self.wsgi.extensions["everstream"]
        return found

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        gevent.spawn(self._web.follower.drain)

    def handle_quit(self, sig: int, frame: Any) -> None:
        gevent.spawn(self._web.follower.drain)
        super().handle_quit(sig, frame)

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


def _explain(error: ParseException) -> tuple[str, str, str]:
    if isinstance(error, LimitRequestLine):
        message = "the request line is over 8190 bytes; POST /generations takes a body of up to 1 MiB"
        return "414 URI Too Long", "uri_too_long", message
    if isinstance(error, LimitRequestHeaders):
        return "431 Request Header Fields Too Large", "headers_too_large", "the request's headers are too large"
    return "400 Bad Request", "bad_request", f"this is not an HTTP request that can be read: {type(error).__name__}"
