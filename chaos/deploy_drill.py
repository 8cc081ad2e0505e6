"""`make deploy-drill`: replaces the web processes, the engine and Valkey one after the other, under 500 open answers.

The way that docs/deployment.md describes: a new gunicorn takes over the listening sockets, and the old one is told to
stop; a new engine starts, and the old one is told to stop; Valkey is restarted on its data. Meanwhile readers that
behave like EventSource, and the OpenAI SDK with and without streaming, ask behind nginx for one answer after the other.
An answer is cut if its client did not get all of it, once. `DEPLOYS=2` makes it shorter. Writes
bench/results/deploy_drill.json, and exits with status 1 if any answer was cut.
"""

import asyncio
import importlib.util
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx2
import openai
import psutil
import requests

from chaos.client import Client
from chaos.reader import Plan, Reader
from everstream.settings import PROJECT_ROOT
from harness.stack import MODELS, REQUEST_TIMEOUT_S, Stack, wait_for

DEPLOYS = int(os.environ.get("DEPLOYS", "20"))
EVENTSOURCES, SDK_STREAMS, SDK_WHOLE = 300, 100, 100
STREAMS = EVENTSOURCES + SDK_STREAMS + SDK_WHOLE
PER_ADDRESS = 100
"""Streams from one client address; the shipped nginx allows 500."""
PAUSE_S = 0.1
DRAIN_S = 60
"""The shipped nginx, too, lets a replaced worker finish for 60 s."""
START_S = 8.0
"""Over which the first answers are begun, so that they don't all end at once."""
BEGIN_TIMEOUT_S = 120
CUT_PAUSE_S = 1.0
"""Before a client whose answer was cut asks again."""
SETTLE_S = 2.0
"""Between two steps of a deploy."""
RESULT = PROJECT_ROOT / "bench" / "results" / "deploy_drill.json"


class Site(Stack):
    """The parts, and how each is replaced. Everything here blocks."""

    def __init__(self, folder):
        super().__init__(
            folder,
            app_dir=MODELS / "narrator",
            MODEL="narrator",
            NARRATOR_PAUSE_S=str(PAUSE_S),
            EVERSTREAM_DRAIN_S=str(DRAIN_S),
            EVERSTREAM_MAX_RUNNING=str(2 * STREAMS),
            EVERSTREAM_LEASE_S="10",
            EVERSTREAM_HEARTBEAT_S="5",
            EVERSTREAM_RETRY_MS="500",
            EVERSTREAM_LOG_LEVEL="warning",
        )
        self.master = None

    def open(self):
        self.start()
        self.master = psutil.Process(self.web.pid)
        self.start_nginx()

    def replace_web(self):
        old = self.master
        old.send_signal(signal.SIGUSR2)
        answered = set()

        def all_workers_answer():
            # Not through nginx, which would stay with one worker.
            reply = requests.get(f"{self.settings.url}/healthz", timeout=REQUEST_TIMEOUT_S).json()
            with suppress(psutil.NoSuchProcess):
                master = psutil.Process(reply["pid"]).parent()
                if master not in (None, old):
                    self.master = master
                    answered.add(reply["pid"])
            return len(answered) == self.settings.workers

        wait_for(all_workers_answer, what="the new web workers")
        old.terminate()
        # It has ended when the last answer of a client that can't come back has.
        wait_for(lambda: not is_running(old), DRAIN_S + 30, "the end of the old web process")

    def replace_engine(self):
        old = self.engines[-1]
        name = self.start_engine().name
        wait_for(lambda: self._has_ready(name), what="the new engine")
        old.kill(signal.SIGTERM)

    def _has_ready(self, name):
        # Not through nginx, which keeps this to itself.
        reported = requests.get(f"{self.settings.url}/readyz", timeout=REQUEST_TIMEOUT_S).json()["engines"]
        return any(each["name"] == name and each["state"] == "ready" for each in reported)

    def replace_valkey(self):
        self.valkey.kill(signal.SIGTERM)
        self.start_valkey()

    def stop(self):
        if self.master and is_running(self.master):
            # Its workers notice.
            self.master.kill()
        super().stop()


def is_running(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


class Crowd:
    """Clients that ask for one answer after the other, until told to stop."""

    def __init__(self, url):
        self.whole = Counter()
        self.cut = []
        self.seen = Counter()
        self.pauses_s = []
        self.open = 0
        self._url = url
        self._is_over = False

    async def run(self, opened):
        async with asyncio.TaskGroup() as group:
            addresses = [f"127.0.1.{1 + n // PER_ADDRESS}" for n in range(STREAMS)]
            for address in sorted(set(addresses)):
                client = Client(self._url, address)
                opened.push_async_callback(client.close)
                sdk = self._sdk(address)
                opened.push_async_callback(sdk.close)
                for n in (n for n, each in enumerate(addresses) if each == address):
                    group.create_task(self._ask(n, self._way(n, client, sdk)))

    def _sdk(self, address):
        """As people use it, with its own retries."""

        async def count(response):
            self.seen[f"SDK got {response.status_code}"] += 1

        transport = httpx2.AsyncHTTPTransport(local_address=address, limits=httpx2.Limits(max_connections=PER_ADDRESS))
        hooks = {"response": [count]}
        http = httpx2.AsyncClient(transport=transport, timeout=openai.DEFAULT_TIMEOUT, event_hooks=hooks)
        return openai.AsyncOpenAI(base_url=f"{self._url}/v1", api_key="none", http_client=http)

    def _way(self, n, client, sdk):
        """How client n asks: mixed over all addresses."""
        place = n % (STREAMS // 100)
        if place < EVENTSOURCES // 100:
            return "EventSource", lambda: self._by_eventsource(client, n)
        if place < (EVENTSOURCES + SDK_STREAMS) // 100:
            return "OpenAI SDK, streaming", lambda: self._by_sdk_stream(sdk)
        return "OpenAI SDK, in one piece", lambda: self._by_sdk(sdk)

    async def _ask(self, n, way):
        name, ask = way
        await asyncio.sleep(START_S * n / STREAMS)
        while not self._is_over:
            self.open += 1
            try:
                text, problems = await ask()
            except Exception as error:
                text, problems = "", [repr(error)]
            self.open -= 1
            if text == TEXT and not problems:
                self.whole[name] += 1
            else:
                self.cut.append(f"{name}: {problems or f'{len(text)} characters of {len(TEXT)}'}")
                await asyncio.sleep(CUT_PAUSE_S)

    async def _by_eventsource(self, client, n):
        reader = Reader(Plan(n, 0, {"prompt": "Why?"}, by_address=n % 2 == 0))
        await client.run(reader)
        self.seen.update({"EventSource connections": reader.connections})
        self.pauses_s.append(reader.longest_pause_s)
        return reader.text, [what for _, what in reader.violations]

    async def _by_sdk_stream(self, sdk):
        text, pause_s, at = "", 0.0, time.monotonic()
        async for chunk in await sdk.chat.completions.create(model="narrator", messages=QUESTION, stream=True):
            pause_s, at = max(pause_s, time.monotonic() - at), time.monotonic()
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
        self.pauses_s.append(pause_s)
        return text, []

    async def _by_sdk(self, sdk):
        answer = await sdk.chat.completions.create(model="narrator", messages=QUESTION)
        return answer.choices[0].message.content, []

    def finish(self):
        """Begin no more answers."""
        self._is_over = True


def narrator_text():
    spec = importlib.util.spec_from_file_location("narrator", MODELS / "narrator" / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return "".join(module.TOKENS)


TEXT = narrator_text()
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]


async def deploy(site, crowd, taken):
    for name, replace in (("web", site.replace_web), ("engine", site.replace_engine), ("Valkey", site.replace_valkey)):
        await asyncio.sleep(SETTLE_S)
        open_answers, started = crowd.open, time.monotonic()
        await asyncio.to_thread(replace)
        taken.append({"part": name, "open answers": open_answers, "seconds": round(time.monotonic() - started, 1)})


async def drill(site):
    crowd, taken = Crowd(site.url), []
    async with AsyncExitStack() as opened, asyncio.TaskGroup() as group:
        group.create_task(crowd.run(opened))
        async with asyncio.timeout(BEGIN_TIMEOUT_S):
            while crowd.open < STREAMS:
                await asyncio.sleep(0.1)
        for number in range(1, DEPLOYS + 1):
            await deploy(site, crowd, taken)
            say(f"deploy {number}: {crowd.whole.total()} whole answers, {len(crowd.cut)} cut; {dict(crowd.seen)}")
        crowd.finish()
    return crowd, taken


def report(crowd, taken):
    return {
        "deploys": DEPLOYS,
        "open answers at each replacement, at least": min(each["open answers"] for each in taken),
        "answers": crowd.whole.total() + len(crowd.cut),
        "of these": dict(crowd.whole),
        "cut": len(crowd.cut),
        "causes": crowd.cut[:20],
        "seen": dict(crowd.seen),
        "longest pause within an answer, s": round(max(crowd.pauses_s), 1),
        "median of each answer's longest pause, s": round(statistics.median(crowd.pauses_s), 1),
        "seconds for each replacement, median": {
            part: statistics.median(each["seconds"] for each in taken if each["part"] == part)
            for part in ("web", "engine", "Valkey")
        },
    }


def main():
    with tempfile.TemporaryDirectory(prefix="deploy-") as folder:
        site = Site(Path(folder))
        try:
            site.open()
            result = report(*asyncio.run(drill(site)))
        except BaseException:
            print(site.report())
            raise
        finally:
            site.stop()
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["cut"]))


def say(text):
    print(f"drill | {time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
