"""One generation to many viewers: Everstream compared with sse-starlette and nginx's nchan. `python -m bench.fan_out`.

The servers take turns in rotating rounds. Each gets the same events at the same rate and sends every event to all
viewers. CPU per delivered event covers the serving processes (for Everstream, the web worker and Valkey). Prints a
table and writes bench/results/fan_out.json. Skips nchan, with a message, if nginx lacks the module (Debian:
libnginx-mod-nchan).
"""

import argparse
import asyncio
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

from bench import cpu, load
from bench.hold import Talker, start_generations
from harness.stack import Process, Stack, free_port, nginx_executable, wait_for

RESULTS = Path(__file__).parent / "results" / "fan_out.json"
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
TEXT = '{"text":" The"}'


class Everstream:
    name = "Everstream"

    def __init__(self, folder, viewers):
        settings = {
            "WEB_CONCURRENCY": "1",
            "EVERSTREAM_MAX_STREAMS": str(viewers + 100),
            "EVERSTREAM_HEARTBEAT_S": "15",
        }
        self._stack = Stack(folder, **settings)
        self._stack.start_valkey()
        self._stack.start_web()
        self.url = self._stack.url
        self.pids = [self._stack.valkey.pid, *cpu.front_end(self._stack.web.pid)]

    def begin(self):
        """Start something new to watch. Returns its path."""
        (self._generation,) = start_generations(self._stack.settings, 1)
        return f"/generations/{self._generation}/events"

    def publish(self, events, every_s):
        """Runs in a separate process."""

        async def main():
            talker = Talker(self._stack.settings, [self._generation])
            await talker.claim()
            for _ in range(events):
                await talker.say([self._generation], data={"text": " The"})
                await asyncio.sleep(every_s)
            await talker.say([self._generation], "done", {"finish_reason": "stop", "usage": None})

        asyncio.run(main())

    def stop(self):
        self._stack.stop()


class Posted:
    """A server that receives each event by POST."""

    def begin(self):
        return "/events/one"

    def publish(self, events, every_s):
        with requests.Session() as session:
            for _ in range(events):
                session.post(f"{self.url}/publish/one", data=TEXT, timeout=30).raise_for_status()
                time.sleep(every_s)
            done = {"X-EventSource-Event": "done"}
            session.post(f"{self.url}/publish/one", data="{}", headers=done, timeout=30).raise_for_status()

    def stop(self):
        self._process.stop()

    def _start(self, folder, command, port):
        folder.mkdir(exist_ok=True)
        self._process = Process("server", command, None, folder)
        self.url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _listens(self.url), what=f"{self.name} to listen")
        self.pids = cpu.front_end(self._process.pid)


class SseStarlette(Posted):
    name = "sse-starlette"

    def __init__(self, folder, _viewers):
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "bench.fan_out_starlette:app", "--port", str(port)]
        self._start(folder, [*command, "--loop", "uvloop", "--http", "httptools", "--log-level", "error"], port)


class Nchan(Posted):
    name = "nginx with nchan"

    def __init__(self, folder, viewers):
        port = free_port()
        folder.mkdir(exist_ok=True)
        config = folder / "nginx.conf"
        config.write_text(
            f"load_module {NCHAN}; daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;\n"
            f"events {{ worker_connections {viewers + 1000}; }}\n"
            f"http {{ access_log off; server {{ listen 127.0.0.1:{port};\n"
            " location ~ /publish/(.+) { nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 0; }\n"
            " location ~ /events/(.+) { nchan_subscriber eventsource; nchan_channel_id $1;"
            " nchan_subscriber_first_message newest; }\n} }\n"
        )
        self._start(folder, [nginx_executable(), "-p", str(folder), "-c", str(config)], port)


def _listens(url):
    try:
        requests.get(f"{url}/", timeout=5)
    except requests.ConnectionError:
        return False
    return True


class Viewer(load.Stream):
    """Other servers send ids of their own format, or none."""

    __slots__ = ()

    def _check_id(self, event_id):
        if event_id.count(b".") == 1:
            super()._check_id(event_id)


def measure(server, args):
    """Returns CPU microseconds per delivered event."""
    loader, itl_s, path = load.Load(server.url), array("d"), server.begin()
    viewers = [Viewer(load.Api("events"), itl_s) for _ in range(args.viewers)]
    for viewer in viewers:
        loader.start(viewer, "GET", path)
    loader.poll_until(lambda: all(viewer.status for viewer in viewers))
    before = sum(cpu.cpu_s(server.pids).values())
    publisher = multiprocessing.Process(target=server.publish, args=(args.events, args.every_ms / 1000), daemon=True)
    publisher.start()
    deadline = time.perf_counter() + 120
    while loader.open and time.perf_counter() < deadline:
        loader.poll(0.5, loader.count_cut)
    used = sum(cpu.cpu_s(server.pids).values()) - before
    publisher.join()
    delivered = sum(viewer.events for viewer in viewers)
    if delivered != args.viewers * args.events or loader.wrong:
        raise SystemExit(f"{server.name}: {delivered} of {args.viewers * args.events} delivered; {loader.wrong}")
    return 1e6 * used / delivered


@contextmanager
def all_servers(folder, viewers):
    kinds = [Everstream, SseStarlette]
    if NCHAN.exists() and shutil.which("nginx", path="/usr/sbin:/usr/bin"):
        kinds.append(Nchan)
    else:
        print(f"{Nchan.name} is skipped: apt-get install libnginx-mod-nchan", file=sys.stderr)
    with ExitStack() as stack:
        servers = []
        for kind in kinds:
            (folder / kind.__name__).mkdir()
            servers.append(kind(folder / kind.__name__, viewers))
            stack.callback(servers[-1].stop)
        yield servers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--every-ms", type=float, default=25, help="interval between events (25)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    load.allow_files(args.viewers + 500)
    with tempfile.TemporaryDirectory() as folder, all_servers(Path(folder), args.viewers) as servers:
        found = {server.name: [] for server in servers}
        for n in range(args.rounds):
            turn = n % len(servers)
            for server in servers[turn:] + servers[:turn]:
                found[server.name].append(measure(server, args))
    medians = {name: statistics.median(each) for name, each in found.items()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"options": vars(args), "rounds": found, "medians": medians}, indent=1) + "\n")
    columns = ("CPU µs per delivered event", "Everstream relative to it")
    print(f"| {args.viewers} viewers of one generation | {' | '.join(columns)} |\n|---|---:|---:|")
    for name, value in medians.items():
        print(f"| {name} | {value:.1f} | {medians['Everstream'] / value:.2f} |")


if __name__ == "__main__":
    main()
