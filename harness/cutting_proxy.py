"""A TCP proxy in front of a part, with the faults of real networks: lost answers, cut streams, frozen links, no server,
and proxies that answer by themselves."""

import selectors
import socket
import threading
from collections import deque
from contextlib import suppress

from harness.stack import free_port

MODES = ("pass", "cut", "freeze", "refuse")
CHUNK_BYTES = 65536
POLL_S = 0.05


class CuttingProxy:
    """`mode` may be changed at any time, and is that of all connections, open ones included.

    - `pass`: relay.
    - `cut`: relay requests, but break the connection instead of relaying what the upstream answers.
    - `freeze`: keep connections, and accept new ones, but relay nothing until the mode changes.
    - `refuse`: break all connections and accept none.

    `answers`: raw HTTP responses, each given instead of relaying a request, before any mode applies. `cuts`: how many
    answers were cut; `accepted`: how many connections there have been; `open`: how many there are.
    """

    def __init__(self, upstream_port):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.answers = deque()
        self.cuts = 0
        self.accepted = 0
        self._upstream_port = upstream_port
        self._mode = "pass"
        self._wanted = "pass"
        self._links = set()
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._applied = threading.Event()
        self._listen()
        self._thread = threading.Thread(target=self._run, name="cutting-proxy")
        self._thread.start()

    @property
    def mode(self):
        return self._mode

    @mode.setter
    def mode(self, mode):
        """Returns when it applies."""
        assert mode in MODES, mode
        self._applied.clear()
        self._wanted = mode
        assert self._applied.wait(30)

    @property
    def open(self):
        return len(self._links)

    def answer(self, status, body=b"", **headers):
        """Answer one request with this response; `retry_after="1"` becomes a header."""
        fields = {"Content-Length": str(len(body)), "Connection": "close"}
        fields |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.answers.append(f"HTTP/1.1 {status} Canned\r\n{head}\r\n".encode() + body)

    def cut_now(self):
        """Break all connections; new ones are relayed."""
        mode = self.mode
        self.mode = "refuse"
        self.mode = mode

    def close(self):
        """Break all connections, and stop."""
        self._stopping = True
        self._thread.join(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _listen(self):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(128)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _unlisten(self):
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _run(self):
        while not self._stopping:
            if self._wanted != self._mode or not self._applied.is_set():
                self._apply(self._wanted)
            for key, _ in self._selector.select(POLL_S):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._links:
                    self._relay(key.data, key.fileobj)
        self._unlisten()
        for link in list(self._links):
            self._break(link)
        self._selector.close()

    def _apply(self, mode):
        if mode == "refuse":
            self._unlisten()
            for link in list(self._links):
                self._break(link)
        elif self._listener is None:
            self._listen()
        if "freeze" in (mode, self._mode) and mode != self._mode:
            for link in self._links:
                self._watch(link, mode != "freeze")
        self._mode = mode
        self._applied.set()

    def _accept(self):
        client, _ = self._listener.accept()
        self.accepted += 1
        try:
            upstream = socket.create_connection(("127.0.0.1", self._upstream_port), timeout=30)
        except OSError:
            client.close()
            return
        link = Link(client, upstream)
        self._links.add(link)
        if self._mode != "freeze":
            self._watch(link, True)

    def _watch(self, link, is_watched):
        for end in link.readable:
            if is_watched:
                self._selector.register(end, selectors.EVENT_READ, link)
            else:
                self._selector.unregister(end)

    def _relay(self, link, source):
        try:
            data = source.recv(CHUNK_BYTES)
            if not data:
                self._end(link, source)
            elif link.is_answered:
                pass
            elif source is link.client and self.answers:
                link.is_answered = True
                link.client.sendall(self.answers.popleft())
                link.client.shutdown(socket.SHUT_WR)
            elif source is link.upstream and self._mode == "cut":
                self.cuts += 1
                self._break(link)
            else:
                link.other(source).sendall(data)
        except OSError:
            self._break(link)

    def _end(self, link, source):
        """Hand an end of the data on. A connection that was answered here only waits for its client to leave."""
        link.readable.remove(source)
        self._selector.unregister(source)
        if not link.readable or link.is_answered:
            self._break(link)
        else:
            link.other(source).shutdown(socket.SHUT_WR)

    def _break(self, link):
        self._links.discard(link)
        for end in (link.client, link.upstream):
            with suppress(KeyError):
                self._selector.unregister(end)
            end.close()


class Link:
    """A client's connection and the one to the upstream. `is_answered`: by the proxy itself; what comes is dropped."""

    def __init__(self, client, upstream):
        self.client = client
        self.upstream = upstream
        self.readable = [client, upstream]
        self.is_answered = False

    def other(self, end):
        return self.upstream if end is self.client else self.client
