"""A load generator for event streams: one process, one epoll, tens of thousands of streams. See also `--help`.

    python -m bench.load http://127.0.0.1:8000 --api stream --streams 64 --tokens 400

In: a server's address, what to request, and how many concurrent streams. Out: a table, or one line of JSON. It also
verifies the responses: the status, ids without gaps or repeats (if the server sends ids), exactly one terminal event,
and nothing after it. Each stream has its own connection. Connections use several source addresses 127.0.0.x, because
each address has only about 28,000 ports.
"""

import argparse
import errno
import json
import re
import resource
import select
import socket
import statistics
import sys
import time
from array import array
from urllib.parse import quote, urlsplit

SOURCES = 16
CONNECTING_AT_ONCE = 500
"""Below the backlog of a listening socket."""
STUCK_S = 1800
"""No run takes this long: anything still missing by then is stuck."""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')
_EVENT_ID = re.compile(rb"([^.]+)\.(\d+)(-\d+)?")


class Api:
    """How to write one kind of request, and how to interpret its events."""

    def __init__(self, name, model="", **inputs):
        self.name, self.model, self.inputs = name, model, inputs

    def request(self, prompt, tokens):
        """Method, path, body."""
        given = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True, **self.inputs}
        if self.name == "stream":
            query = "&".join(f"{key}={quote(json.dumps(value).strip(chr(34)))}" for key, value in given.items())
            return "GET", f"/stream?prompt={quote(prompt)}&{query}", b""
        given |= {"model": self.model, "stream": True, "stream_options": {"include_usage": True}}
        if self.name == "completions":
            return "POST", "/v1/completions", json.dumps({"prompt": prompt, **given}).encode()
        messages = [{"role": "user", "content": prompt}]
        return "POST", "/v1/chat/completions", json.dumps({"messages": messages, **given}).encode()

    def is_token(self, event, data):
        if self.name == "completions":
            return b'"text":"' in data and b'"text":""' not in data
        if self.name == "chat":
            return b'"content":"' in data and b'"content":""' not in data
        return not event

    def is_end(self, event, data):
        """Whether the event ends a stream successfully."""
        return event == b"done" if self.name in ("stream", "events") else data == b"[DONE]"


class Wrong(Exception):
    """The server sent something it should not have."""


class Stream:
    """One stream, over one connection at a time. A state machine without I/O, fed with bytes."""

    __slots__ = (
        "_chunked",
        "_head",
        "_raw",
        "_text",
        "api",
        "completion_tokens",
        "ended",
        "events",
        "first_at",
        "generation",
        "itl_s",
        "key",
        "last_at",
        "last_id",
        "n",
        "on_token",
        "request",
        "retry_ms",
        "socket",
        "started",
        "status",
    )

    def __init__(self, api, itl_s, on_token=None, key=None):
        self.api, self.itl_s, self.on_token, self.key = api, itl_s, on_token, key
        self.generation, self.n, self.last_id = b"", None, b""
        self.events = self.completion_tokens = 0
        self.started = self.first_at = self.last_at = 0.0
        self.ended = False
        self.retry_ms = 1000
        self.connected()

    def connected(self):
        """Reset the per-connection state; keep what was received before."""
        self._head, self._raw, self._text, self._chunked, self.status = b"", b"", b"", False, 0

    def feed(self, data, now):
        """Process the bytes of one read. Raises Wrong."""
        if not self.status:
            self._head += data
            head, separator, data = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            self._parse_head(head, data)
        if self._chunked:
            data = self._dechunk(data)
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._text = (self._text + data).split(b"\n\n")
        for event in events:
            self._take(event, now)

    def _parse_head(self, head, body):
        match = _STATUS.match(head)
        self.status = int(match[1]) if match else -1
        if self.status != 200 or b"text/event-stream" not in head:
            raise Wrong(f"answered {head[:60]!r} {body[:200]!r}")
        self._chunked = b"chunked" in head.lower()
        self._head = b""

    def _dechunk(self, data):
        raw, at, whole = self._raw + data, 0, []
        while (line_end := raw.find(b"\r\n", at)) >= 0:
            end = line_end + 2 + int(raw[at:line_end], 16)
            if len(raw) < end + 2:
                break
            whole.append(raw[line_end + 2 : end])
            at = end + 2
        self._raw = raw[at:]
        return b"".join(whole)

    def _take(self, event, now):
        name = data = b""
        for line in event.split(b"\n"):
            if line.startswith(b"data: "):
                data = line[6:]
            elif line.startswith(b"id: "):
                self._check_id(line[4:])
            elif line.startswith(b"event: "):
                name = line[7:]
            elif line.startswith(b"retry: "):
                self.retry_ms = int(line[7:])
        if not data:
            return
        if self.ended:
            raise Wrong(f"sent {event[:100]!r} after its end")
        if self.api.is_token(name, data):
            self._count_token(data, now)
        elif name == b"failed" or data.startswith(b'{"error"'):
            raise Wrong(f"failed: {data[:300]!r}")
        else:
            self.ended = self.api.is_end(name, data)
        if match := _COMPLETION_TOKENS.search(data):
            self.completion_tokens = int(match[1])

    def _count_token(self, data, now):
        if self.events:
            self.itl_s.append(now - self.last_at)
        else:
            self.first_at = now
        self.last_at = now
        self.events += 1
        if self.on_token is not None:
            self.on_token(self, data, now)

    def _check_id(self, event_id):
        match = _EVENT_ID.fullmatch(event_id)
        if match is None:
            raise Wrong(f"sent the id {event_id!r}")
        if match[3]:
            # One of an entry's events, before the last one.
            return
        generation, n = match[1], int(match[2])
        if self.n is not None:
            # Coalesced tokens have the last one's id; otherwise the numbers are contiguous.
            expected = n > self.n if self.api.inputs.get("flush_ms") else n == self.n + 1
            if not expected or generation != self.generation:
                raise Wrong(f"sent the id {event_id!r} after {self.n}")
        self.generation, self.n, self.last_id = generation, n, event_id


class Load:
    """Runs streams against one server. `wrong` counts violations by description."""

    def __init__(self, url, sources=SOURCES):
        parts = urlsplit(url)
        self.address = parts.hostname, parts.port
        self.wrong = {}
        self.open = {}
        self._sources = sources
        self._opened = 0
        self._epoll = select.epoll()

    def start(self, stream, method, path, body=b"", headers=""):
        """Open a connection for the stream; `poll` reads from it."""
        request = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n{headers}"
        if body:
            request += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._opened += 1
        stream.socket = connection = socket.socket()
        # Choose the port at connect, when the peer is known, so that one port can serve many connections.
        connection.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        connection.bind((f"127.0.0.{2 + self._opened % self._sources}", 0))
        connection.setblocking(False)
        stream.connected()
        stream.started = stream.started or time.perf_counter()
        # Connect without blocking: the server may have more pending connections than it is accepting.
        stream.request = request.encode() + b"\r\n" + body
        connection.connect_ex(self.address)
        self.open[connection.fileno()] = stream
        self._epoll.register(connection.fileno(), select.EPOLLOUT)

    def poll(self, timeout_s, on_cut):
        """Read what has arrived. A stream that the server closed before its end is passed to `on_cut`."""
        for fileno, _ in self._epoll.poll(timeout_s):
            stream = self.open[fileno]
            try:
                if stream.request:
                    # Small enough for the kernel to accept in one call.
                    stream.socket.sendall(stream.request)
                    stream.request = b""
                    self._epoll.modify(fileno, select.EPOLLIN)
                    continue
                data = stream.socket.recv(262_144)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            try:
                if data:
                    stream.feed(data, time.perf_counter())
            except Wrong as error:
                self._note(str(error))
                self.close(stream)
                continue
            if not data and not stream.ended:
                self.close(stream)
                on_cut(stream)
            elif stream.ended:
                self.close(stream)

    def poll_until(self, condition, on_cut=None, timeout_s=STUCK_S):
        """Poll until the condition holds. Raises TimeoutError."""
        deadline = time.perf_counter() + timeout_s
        while not condition():
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{len(self.open)} streams are stuck; violations: {self.wrong}")
            self.poll(1, on_cut or self.count_cut)

    def _note(self, what):
        self.wrong[what] = self.wrong.get(what, 0) + 1

    def close(self, stream):
        fileno = stream.socket.fileno()
        self._epoll.unregister(fileno)
        del self.open[fileno]
        stream.socket.close()

    def count_cut(self, _stream):
        self._note("a stream was cut before its end")


def few_connect(streams):
    """Whether so few of the last-opened streams are still connecting that more may be opened."""
    return sum(not each.status for each in streams[-CONNECTING_AT_ONCE:]) <= CONNECTING_AT_ONCE // 2


def run(url, api, prompts, tokens, at_once):
    """Run each prompt once, `at_once` of them concurrently. Returns the measurements."""
    load, waiting, streams, itl_s = Load(url), list(reversed(prompts)), [], array("d")

    def has_ended():
        while waiting and len(load.open) < at_once:
            streams.append(Stream(api, itl_s))
            load.start(streams[-1], *api.request(waiting.pop(), tokens))
        return not load.open

    started = time.perf_counter()
    load.poll_until(has_ended)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "streams": len(streams),
        "tokens": sum(stream.completion_tokens for stream in streams),
        "events": sum(stream.events for stream in streams),
        "ttft_s": [stream.first_at - stream.started for stream in streams if stream.events],
        "itl_s": itl_s,
        "wrong": load.wrong,
    }


def percentile(values, percent):
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def summary(found):
    """The figures of a run, in the tables' units."""
    ttft_s, itl_s = found["ttft_s"], found["itl_s"]
    return {
        "streams": found["streams"],
        "tokens": found["tokens"],
        "tokens_per_s": found["tokens"] / found["seconds"],
        "tokens_per_event": found["tokens"] / max(1, found["events"]),
        "ttft_ms_median": 1000 * statistics.median(ttft_s) if ttft_s else float("nan"),
        "ttft_ms_p99": 1000 * percentile(ttft_s, 99),
        "itl_ms_median": 1000 * statistics.median(itl_s) if itl_s else float("nan"),
        "itl_ms_p99": 1000 * percentile(itl_s, 99),
        "wrong": found["wrong"],
    }


def allow_files(count):
    """Raise the soft limit on open files; each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard) if hard >= 0 else count, hard))
    if 0 <= hard < count:
        raise OSError(errno.EMFILE, f"{count} connections need {count} open files, but the limit is {hard}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the server: http://host:port")
    parser.add_argument("--api", choices=("stream", "completions", "chat"), default="stream")
    parser.add_argument("--model", default="", help="the model name, for completions and chat")
    parser.add_argument("--streams", type=int, default=64, help="concurrent streams (64)")
    parser.add_argument("--requests", type=int, default=0, help="total requests (default: the number of streams)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--flush-ms", type=int, default=0, help="Everstream only: coalesce tokens within this time (0)")
    parser.add_argument("--prompt", default="why is the sky blue, and the sea?")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    allow_files(args.streams + 100)
    api = Api(args.api, args.model, **({"flush_ms": args.flush_ms} if args.flush_ms else {}))
    prompts = [f"{n}: {args.prompt}" for n in range(args.requests or args.streams)]
    try:
        found = summary(run(args.url, api, prompts, args.tokens, args.streams))
    except OSError as error:
        sys.exit(f"bench.load: {args.url}: {error}")
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:<17} {value:.4g}" for name, value in found.items() if name != "wrong"))
        print("\n".join(f"WRONG, {count} times: {what}" for what, count in found["wrong"].items()))
    sys.exit(bool(found["wrong"]))


if __name__ == "__main__":
    main()
