"""Where a token's time goes: `make bench`, or `python -m bench.profile --help`.

Runs Everstream alone with the tiny model. The first run only counts: total and kernel CPU time of the engine process,
Valkey and the web workers, and their context switches. The second runs under `py-spy` and splits the Python processes'
user time by the code that holds the GIL. Only the shares are used, because a profiler slows down the profiled process;
code that is preempted while it holds the GIL appears slower than it is. It also measures the floors: the cost on this
machine of the steps that no design can avoid. Prints tables and writes bench/results/profile.json.
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
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psutil
import valkey

from bench import cpu, load, servers, tiny_model
from bench.overhead import Direct, prompts
from everstream.log.entries import encode_entry, encode_lines
from everstream.settings import load_settings
from harness.stack import Stack, tries

RESULTS = Path(__file__).parent / "results" / "profile.json"
SAMPLES_PER_S = 400
STEPS = {
    "engine": {
        "vLLM's output processor and detokenizer": ("vllm/v1/engine/output_processor", "vllm/v1/engine/detokenizer"),
        "receiving from vLLM's EngineCore (zmq, decoding)": (
            "zmq/",
            "vllm/v1/serial_utils",
            "vllm/v1/engine/core_client",
        ),
        "token to entry, entry to writer": (
            "everstream/llm/",
            "everstream/contract/",
            "everstream/engine/coalescer",
            "everstream/engine/generation_task",
            "everstream/log/entries",
        ),
        "commits": (
            "everstream/engine/appender",
            "everstream/log/",
            "valkey/",
            "asyncio/timeouts",
            "asyncio/streams",
        ),
    },
    "web": {
        "receiving: subscription, decoding": ("everstream/log/", "everstream/sockets", "valkey/"),
        "encoding": (
            "everstream/apis/",
            "everstream/web/live_batch",
            "everstream/web/event_encoder",
            "everstream/web/parts_encoder",
        ),
        "dispatching, sending": (
            "everstream/web/follower",
            "everstream/web/reader",
            "everstream/web/direct_writer",
            "everstream/web/open_streams",
            "everstream/web/cursor",
        ),
        "opening and closing streams (gunicorn, Flask)": ("gunicorn/", "flask/", "werkzeug/", "everstream/"),
    },
}
"""By part: the step that a sample counts towards, decided by the innermost frame with a known location."""
REST = "event loop and the rest"


def usage(pids):
    """Total and kernel CPU seconds of the processes, and their voluntary and involuntary context switches."""
    lines = [
        line.split()
        for pid in pids
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
    ]
    return {
        "cpu_s": sum(cpu.cpu_s(pids).values()),
        "kernel_s": sum(psutil.Process(pid).cpu_times().system for pid in pids),
        "waits": sum(int(line[1]) for line in lines if line[0] == "voluntary_ctxt_switches:"),
        "interrupted": sum(int(line[1]) for line in lines if line[0] == "nonvoluntary_ctxt_switches:"),
    }


class Loaded:
    """Everstream under a repeatable load."""

    def __init__(self, server, streams, tokens, flush_ms):
        self.server, self.streams, self._tokens = server, streams, tokens
        self._api = load.Api(server.api.name, server.api.model, **({"flush_ms": flush_ms} if flush_ms else {}))
        self._runs = 0

    def run(self):
        self._runs += 1
        batch = prompts(self.streams, f"{self.streams}-{self._runs}")
        return load.run(self.server.url, self._api, batch, self._tokens, self.streams)

    def count(self, runs):
        """By part: CPU and kernel time in µs per token, waits and interruptions per engine step."""
        groups = self.server.groups()
        before = {part: usage(pids) for part, pids in groups.items()}
        tokens = sum(self.run()["tokens"] for _ in range(runs))
        counted = {}
        for part, pids in groups.items():
            used = {name: value - before[part][name] for name, value in usage(pids).items()}
            counted[part] = {
                "cpu_us": 1e6 * used["cpu_s"] / tokens,
                "kernel_us": 1e6 * used["kernel_s"] / tokens,
                "waits": used["waits"] * self.streams / tokens,
                "interrupted": used["interrupted"] * self.streams / tokens,
            }
        return counted

    def samples(self, part, seconds, folder):
        """By step: samples of a part's Python code under load."""
        command = [str(Path(sys.executable).with_name("py-spy")), "record", "--format", "raw", "--gil"]
        command += ["--rate", str(SAMPLES_PER_S), "--duration", str(seconds)]
        files = {pid: folder / f"{part}-{pid}.txt" for pid in self.server.groups()[part]}
        spies = [
            subprocess.Popen(
                [*command, "--pid", str(pid), "--output", str(path)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for pid, path in files.items()
        ]
        for _ in tries(seconds + load.STUCK_S, "the end of py-spy"):
            if all(spy.poll() is not None for spy in spies):
                break
            self.run()
        found = Counter()
        for path in files.values():
            # A gunicorn master yields no samples.
            for line in path.read_text().splitlines() if path.exists() else ():
                stack, _, count = line.rpartition(" ")
                found[step_of(part, stack.split(";"))] += int(count)
        return found


def step_of(part, stack):
    for frame in reversed(stack):
        place = frame.partition(" ")[2]
        for step, places in STEPS[part].items():
            if any(known in place for known in places):
                return step
    return REST


def profile(loaded, seconds, folder):
    """By part: the result of `count`, plus `steps`, the breakdown of the CPU time in µs per token."""
    loaded.run()
    counted = loaded.count(3)
    for part, figures in counted.items():
        figures["steps"] = {"in the kernel": figures["kernel_us"]}
        user_us = figures["cpu_us"] - figures["kernel_us"]
        if part not in STEPS:
            figures["steps"]["in user mode"] = user_us
            continue
        samples = loaded.samples(part, seconds, folder)
        for step in [*STEPS[part], REST]:
            figures["steps"][step] = user_us * samples[step] / max(1, samples.total())
    return counted


def send_us(count=200_000, sockets=64, size_bytes=250):
    """CPU time of sending one event over loopback, to sockets that another process reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = os.fork()
        if reader == 0:
            readers = [socket.create_connection(listener.getsockname()) for _ in range(sockets)]
            os._exit(_read_all(readers))
        connections = [listener.accept()[0] for _ in range(sockets)]
    event, started = b"x" * size_bytes, time.process_time()
    for n in range(count):
        connections[n % sockets].sendall(event)
    used = time.process_time() - started
    for connection in connections:
        connection.close()
    os.waitpid(reader, 0)
    return 1e6 * used / count


def _read_all(readers):
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if not key.fileobj.recv(1 << 16):
                    selector.unregister(key.fileobj)
    return 0


def append_us(folder, count=50_000, at_once=64):
    """Valkey's CPU time for one APPEND of an entry to one of `at_once` logs, with an fsync before the reply."""
    stack = Stack(folder)
    try:
        stack.start_valkey()
        client, entry = valkey.Valkey.from_url(stack.settings.log_url), encode_entry("", {"text": " The"})
        before = cpu.cpu_s([stack.valkey.pid])
        for n in range(1, count // at_once + 1):
            with client.pipeline(transaction=False) as pipe:
                for each in range(at_once):
                    pipe.append(f"log:{each}", encode_lines(n, [(entry, b"[464]")]))
                pipe.execute()
        used = cpu.cpu_s([stack.valkey.pid])[stack.valkey.pid] - before[stack.valkey.pid]
        client.close()
    finally:
        stack.stop()
    return 1e6 * used / (count // at_once * at_once)


def generate_us(model, streams, tokens):
    """CPU time per token of a process that only consumes `AsyncLLM.generate`."""
    os.environ["MODEL"] = str(model)
    direct = Direct()
    try:
        direct(prompts(streams, "warm"), 16, streams)
        before = cpu.cpu_s(cpu.front_end(direct.pid))
        found = direct(prompts(streams, "measured"), tokens, streams)
        used = sum(cpu.cpu_s(cpu.front_end(direct.pid)).values()) - sum(before.values())
    finally:
        direct.stop()
    return 1e6 * used / found["tokens"]


def table(found):
    lines = ["| CPU µs per token | " + " | ".join(f"{name} stream{'s' * (name > 1)}" for name in found) + " |"]
    lines.append("|---|" + "---:|" * len(found))
    for part, figures in next(iter(found.values())).items():
        lines.append(f"| **{part}** | " + _cells(found, part, lambda each: each["cpu_us"]))
        for step in figures["steps"]:
            lines.append(f"| {step} | " + _cells(found, part, lambda each, step=step: each["steps"][step]))
        lines.append("| waits, per step | " + _cells(found, part, lambda each: each["waits"]))
        lines.append("| interruptions, per step | " + _cells(found, part, lambda each: each["interrupted"]))
    return "\n".join(lines)


def _cells(found, part, figure):
    return " | ".join(f"{figure(parts[part]):.1f}" for parts in found.values()) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=(1, 64))
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--flush-ms", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=8, help="sampling time per part (8)")
    args = parser.parse_args()
    load.allow_files(servers.MAX_STREAMS + 100)
    model = tiny_model.build(load_settings())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="everstream-bench-")))
        server = stack.enter_context(servers.everstream_alone(model, "1G", folder))
        found = {
            streams: profile(Loaded(server, streams, args.tokens, args.flush_ms), args.seconds, folder)
            for streams in args.streams
        }
    print(table(found) + "\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="everstream-bench-") as folder:
        floors = {
            "one send on loopback": statistics.median(send_us() for _ in range(3)),
            "one APPEND in Valkey, in pipelines of 64": append_us(Path(folder)),
            "`AsyncLLM.generate` under uvloop, 64 streams": generate_us(model, 64, args.tokens),
        }
    print("| floor | CPU µs |\n|---|---:|")
    print("\n".join(f"| {name} | {value:.1f} |" for name, value in floors.items()))
    RESULTS.write_text(json.dumps({"options": vars(args), "found": found, "floors": floors}, indent=1) + "\n")


if __name__ == "__main__":
    main()
