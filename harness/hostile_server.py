"""A server that speaks Everstream's API as badly as a test wants: gaps, repeats, nonsense, other people's answers."""

import http.server
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from everstream.settings import PROJECT_ROOT

MODULE = "/static/client/everstream.js"
GENERATION = "0123456789abcdef" * 2
HTML = b"<!doctype html><title>Sign in</title>"
HOLD_S = 60


@dataclass(frozen=True)
class Reply:
    """`holds`: the connection stays open until the test ends."""

    body: bytes
    status: int = 200
    headers: dict = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    holds: bool = False


def html(status, **headers):
    return Reply(HTML, status, {"Content-Type": "text/html", **headers})


def json_error(status, code):
    return Reply(b'{"error":{"code":"%b","message":"no","param":null}}' % code.encode(), status, {})


def stream(*events, holds=False):
    """A stream of these (n, type, data) after its first ping."""
    last = max([0, *(n for n, _, _ in events if isinstance(n, int))])
    ping = (None, "ping", f'{{"generation":"{GENERATION}","interval_ms":1000,"retry_ms":50,"last":{last}}}')
    return Reply(b"".join(_event(*each) for each in (ping, *events)), holds=holds)


def _event(n, kind, data):
    number = "" if n is None else f"id: {GENERATION}.{n}\n"
    return f"event: {kind}\n{number}data: {data}\n\n".encode()


class HostileServer:
    """Gives `replies` to the requests for events, one after another; the last one again and again.

    `requests`: the method and path of each request to the API.
    """

    def __init__(self, *replies, policy=""):
        self.replies = list(replies)
        self.policy = policy
        self.requests = []
        self._released = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="hostile-server")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._released.set()
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()

    def paths(self):
        """Of the requests for events."""
        return [path for _, path in self.requests if path.startswith("/events")]

    def _next(self):
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def _page(self, path):
        if path == MODULE:
            return Reply((PROJECT_ROOT / MODULE[1:]).read_bytes(), headers={"Content-Type": "text/javascript"})
        return Reply(HTML, headers={"Content-Type": "text/html", "Content-Security-Policy": self.policy})

    def _handler(server):  # noqa: N805 - `self` is the handler
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if not self.path.startswith(("/events", "/generations")):
                    self.give(server._page(self.path))
                    return
                server.requests.append(("GET", self.path))
                self.give(server._next())

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append(("POST", self.path))
                self.give(Reply(b'{"id":"%b"}' % GENERATION.encode(), 201, {}))

            def do_DELETE(self):
                server.requests.append(("DELETE", self.path))
                self.give(server._next())

            def give(self, reply):
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                # The browser may have left.
                with suppress(OSError):
                    self.wfile.write(reply.body)
                    self.wfile.flush()
                if reply.holds:
                    server._released.wait(HOLD_S)

            def log_message(self, *args):
                pass

        return Handler
