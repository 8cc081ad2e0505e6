"""A small server of topics, for what the real one never does on request: it loses answers, refuses, leaves and returns.

It keeps producers' numbers as Durable Streams says, so that a test can count what a topic has at the end.
"""

import http.server
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.stack import free_port


@dataclass
class Topic:
    messages: list = field(default_factory=list)
    producers: dict = field(default_factory=dict)


class TopicServer:
    """`replies`: (status, body, headers) in place of the next POSTs' own. `refuse`: (topic, messages) -> the status and
    code of a refusal, or None. `lost`: how many of the next POSTs take effect, but get no answer. `gate`: requests wait
    until it is set. `posts`: (topic, producer id, epoch, seq, messages) of each."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.topics = {}
        self.posts = []
        self.replies = []
        self.refuse = None
        self.lost = 0
        self.authorizations = set()
        self.waiting = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()
        self._server = None

    def start(self):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def stop(self):
        self.gate.set()
        if self._server is not None:
            self._server.shutdown()
            self._thread.join(30)
            self._server.server_close()
            self._server = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @contextmanager
    def away(self):
        self.stop()
        yield
        self.start()

    def data(self, topic):
        with self._lock:
            return [each["data"] for each in self.topics.get(topic, Topic()).messages]

    def _answer(self, name, producer, epoch, seq, messages):
        """Returns status, body, headers; None: no answer."""
        self.posts.append((name, producer, epoch, seq, messages))
        if self.replies:
            return self.replies.pop(0)
        if self.refuse and (refused := self.refuse(name, messages)):
            return problem(*refused)
        topic = self.topics.setdefault(name, Topic())
        known_epoch, last = topic.producers.get(producer, (epoch, -1))
        if epoch < known_epoch:
            return problem(403, "producer_fenced", **{"Producer-Epoch": str(known_epoch)})
        last = -1 if epoch > known_epoch else last
        if seq > last + 1:
            expected = {"Producer-Expected-Seq": str(last + 1), "Producer-Received-Seq": str(seq)}
            return problem(409, "producer_gap", **expected)
        is_new = seq == last + 1
        if is_new:
            topic.producers[producer] = (epoch, seq)
            topic.messages += messages
        if self.lost:
            self.lost -= 1
            return None
        ids = [f"{len(topic.messages) - n:016d}" for n in range(len(messages))] if is_new else []
        return 200, json.dumps({"topic": name, "ids": ids, "last": "", "duplicate": not is_new}).encode(), {}

    def _handler(server):  # noqa: N805 - `self` is the handler
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                numbers = [int(self.headers[f"Producer-{name}"]) for name in ("Epoch", "Seq")]
                name = self.path.removeprefix("/topics/")
                server.authorizations.add(self.headers["Authorization"])
                with server._lock:
                    server.waiting += 1
                server.gate.wait(60)
                with server._lock:
                    server.waiting -= 1
                    answer = server._answer(name, self.headers["Producer-Id"], *numbers, json.loads(body))
                if answer is None or server._server is None:
                    self.close_connection = True
                    return
                status, content, headers = answer
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        return Handler


def problem(status, code, **headers):
    return status, json.dumps({"error": {"code": code, "message": "no", "param": None}}).encode(), headers
