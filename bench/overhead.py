"""What Everstream adds to `AsyncLLM.generate`: `make bench`, or `python -m bench.overhead --help`.

Both load the model with the same engine arguments and are measured in alternating rounds of one run: the time to the
first token of sequential streams, each over a new connection; tokens per second of 64 concurrent streams; and the
resident memory of an idle web worker. Prints a table and writes bench/results/overhead.json.
"""

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import psutil

from bench import load
from everstream.settings import PROJECT_ROOT
from harness.stack import running_stack, tries

RESULTS = Path(__file__).parent / "results" / "overhead.json"
ENGINE_ARGS = "--max-model-len 2048"
TOKEN = b'data: {"text"'


class Direct:
    """The `bench.direct` process."""

    def __init__(self):
        command = [sys.executable, "-m", "bench.direct"]
        environ = os.environ | {"ENGINE_ARGS": ENGINE_ARGS, "VLLM_LOGGING_LEVEL": "ERROR"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=environ, text=True, start_new_session=True, **pipes
        )
        self._answer()

    def __call__(self, prompts, max_tokens, at_once):
        self._process.stdin.write(json.dumps({"prompts": prompts, "max_tokens": max_tokens, "at_once": at_once}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        stuck = threading.Timer(load.STUCK_S, self.stop)
        stuck.start()
        try:
            # vLLM prints to standard output too.
            while line := self._process.stdout.readline():
                if line.startswith("{"):
                    return json.loads(line)
        finally:
            stuck.cancel()
        raise RuntimeError("bench.direct exited early or got stuck")

    @property
    def pid(self):
        return self._process.pid

    def stop(self):
        os.killpg(self._process.pid, 9)
        self._process.wait()


class Stream:
    """One GET of /stream over its own socket."""

    def __init__(self, address, prompt, max_tokens):
        self.started, self.ttft_s, self.received = time.perf_counter(), 0.0, bytearray()
        self.socket = socket.create_connection(address)
        path = f"/stream?prompt={quote(prompt)}&max_tokens={max_tokens}&temperature=0"
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())

    def read(self):
        """Read what has arrived. Returns whether the stream has ended."""
        chunk = self.socket.recv(65536)
        self.received += chunk
        if not self.ttft_s and TOKEN in self.received:
            self.ttft_s = time.perf_counter() - self.started
        return not chunk or b"event: done" in self.received

    @property
    def tokens(self):
        return int(self.received.partition(b'"completion_tokens":')[2].partition(b",")[0])


def everstream(address, prompts, max_tokens, at_once):
    """The same as Direct, through /stream."""
    waiting, streams, started = list(reversed(prompts)), [], time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for _ in tries(load.STUCK_S, "the end of all streams"):
            if not waiting and not selector.get_map():
                break
            while waiting and len(selector.get_map()) < at_once:
                streams.append(Stream(address, waiting.pop(), max_tokens))
                selector.register(streams[-1].socket, selectors.EVENT_READ, streams[-1])
            for key, _ in selector.select(1):
                if key.data.read():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
    seconds = time.perf_counter() - started
    tokens = sum(stream.tokens for stream in streams)
    return {"ttft_s": [stream.ttft_s for stream in streams], "tokens": tokens, "seconds": seconds}


def prompts(count, salt):
    """Prompts that differ in the first word, so that no prefix is cached. Each side has its own engine."""
    return [f"{salt}-{n}: why is the sky blue, and the sea?" for n in range(count)]


def measure(sides, args):
    """All figures, by side: medians over the rounds."""
    ttft_ms = {side: [] for side in sides}
    tokens_per_s = {side: [] for side in sides}
    for run in sides.values():
        run(prompts(args.streams, "warm"), 8, args.streams)
    for n in range(args.rounds):
        # Alternate which side goes first.
        for side in sorted(sides, reverse=bool(n % 2)):
            found = sides[side](prompts(args.requests, f"first {n}"), 4, 1)
            ttft_ms[side] += [1000 * ttft_s for ttft_s in found["ttft_s"]]
            found = sides[side](prompts(args.streams, f"many {n}"), args.max_tokens, args.streams)
            tokens_per_s[side].append(found["tokens"] / found["seconds"])
    return {
        side: {
            "ttft_ms_median": statistics.median(ttft_ms[side]),
            "ttft_ms_p99": statistics.quantiles(ttft_ms[side], n=100)[98],
            "tokens_per_s": statistics.median(tokens_per_s[side]),
        }
        for side in sides
    }


def table(found, worker_mb, streams):
    one, other = found["AsyncLLM"], found["Everstream"]
    ratio = other["tokens_per_s"] / one["tokens_per_s"]
    added = other["ttft_ms_median"] - one["ttft_ms_median"]
    rows = [
        ("", "AsyncLLM.generate alone", "through /stream", ""),
        ("---", "---", "---", "---"),
        ("first token, median", *(f"{side['ttft_ms_median']:.1f} ms" for side in (one, other)), f"{added:+.1f} ms"),
        ("first token, p99", *(f"{side['ttft_ms_p99']:.1f} ms" for side in (one, other)), ""),
        (
            f"tokens/s, {streams} streams",
            *(f"{side['tokens_per_s']:.0f}" for side in (one, other)),
            f"ratio {ratio:.3f}",
        ),
        ("idle web worker, resident", "", f"{worker_mb:.0f} MB", ""),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=40, help="sequential requests per round, for the first token")
    parser.add_argument("--streams", type=int, default=64, help="concurrent streams, for tokens per second")
    parser.add_argument("--max-tokens", type=int, default=128, help="per stream")
    args = parser.parse_args()
    direct = Direct()
    try:
        folder = Path(tempfile.mkdtemp(prefix="everstream-bench-"))
        with running_stack(folder, app_dir=PROJECT_ROOT, ENGINE_ARGS=ENGINE_ARGS, EVERSTREAM_HEARTBEAT_S="15") as stack:
            worker_mb = max(psutil.Process(pid).memory_info().rss for pid in stack.workers()) / 1e6
            address = ("127.0.0.1", stack.port)
            sides = {"AsyncLLM": direct, "Everstream": lambda *run: everstream(address, *run)}
            found = measure(sides, args)
    finally:
        direct.stop()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"options": vars(args), "sides": found, "worker_mb": worker_mb}, indent=2) + "\n")
    print(table(found, worker_mb, args.streams))


if __name__ == "__main__":
    main()
