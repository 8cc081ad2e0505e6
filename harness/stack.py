"""Everstream's real parts as processes on free ports: Valkey, engines, gunicorn, nginx. Readiness is polled."""

import copy
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

import psutil
import requests
import valkey
from prometheus_client.parser import text_string_to_metric_families

from everstream import model_list
from everstream.host import valkey_server
from everstream.log.keys import Keys
from everstream.settings import PLAIN_NAMES, PREFIX, PROJECT_ROOT, engine_environ, load_settings
from harness.shipped_nginx import Layout, nginx_executable

MODELS = Path(__file__).parent / "models"
START_TIMEOUT_S = 180
REQUEST_TIMEOUT_S = 30
"""For one response; generous, because the machine may be busy."""
OUTPUT_CHARS = 8000
"""How much of each part's output a report shows."""
WEB = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
SUPERVISOR = [sys.executable, "-m", "everstream.cli", "run"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tries(timeout_s, what):
    """Bound a polling loop: yield until the timeout, then raise AssertionError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        yield
    raise AssertionError(f"timed out after {timeout_s} s waiting for {what}")


def wait_for(condition, timeout_s=60, what="the condition"):
    """Poll until `condition` returns a true value, and return it."""
    for _ in tries(timeout_s, what):
        found = condition()
        if found:
            break
        time.sleep(0.02)
    return found


class PartEnded(AssertionError):
    """A part exited unexpectedly, so the awaited condition can never be met."""


class Process:
    """A part under test. Its output goes to a file."""

    def __init__(self, name, command, environ, folder, *, cwd=PROJECT_ROOT, restore_signals=True):
        self.name = name
        self.log_path = folder / f"{name}-{time.monotonic_ns()}.log"
        with self.log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                process_group=0,
                restore_signals=restore_signals,
            )

    @property
    def pid(self):
        return self.popen.pid

    @property
    def output(self):
        return self.log_path.read_text(errors="replace")

    @property
    def report(self):
        """The end of its output."""
        status = self.popen.poll()
        state = "is running" if status is None else f"exited with status {status}"
        return f"--- {self.name} ({state})\n{self.output[-OUTPUT_CHARS:]}"

    def assert_alive(self):
        if self.popen.poll() is not None:
            raise PartEnded(f"{self.name} exited unexpectedly\n{self.report}")

    def kill(self, number=signal.SIGKILL):
        """Signal this process alone. If the signal is fatal, wait for the process to exit."""
        self.popen.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            self.popen.wait(30)

    def stop(self):
        """Kill it and everything it started, and wait until their ports are free."""
        if self.popen.poll() is None:
            children = self.children()
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait(30)
            psutil.wait_procs(children, timeout=30)

    def children(self):
        return psutil.Process(self.popen.pid).children(recursive=True)


class Stack:
    unstopped: ClassVar[list["Stack"]] = []
    """Every stack not yet stopped, so that a failure report can include its output."""

    def __init__(self, folder, app_dir=MODELS / "scripted", models=None, **environ):
        """`models`: several model folders by name, instead of one `app_dir`."""
        self.name = folder.name
        self.folder = folder
        self.port = free_port()
        self.valkey = None
        self.engines = []
        self.web = None
        self.nginx = None
        self.nginx_port = None
        self.tls_port = None
        self._all = []
        # Tests must not see the developer's own settings.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith((PREFIX, "OTEL_")) and name not in PLAIN_NAMES.values()
        }
        self.environ = kept | {
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "2",
            # Also through the tests' proxies.
            "EVERSTREAM_ACCESS": "open",
            **({"MODELS": model_list.render(models)} if models else {"EVERSTREAM_APP_DIR": str(app_dir)}),
            "EVERSTREAM_STATE_DIR": str(folder / "state"),
            "EVERSTREAM_LEASE_S": "1.5",
            "EVERSTREAM_HEARTBEAT_S": "1",
            "EVERSTREAM_RETRY_MS": "50",
            "VLLM_LOGGING_LEVEL": "ERROR",
            # As in the test process itself; vLLM's own warnings are not ours to fix.
            "PYTHONWARNINGS": "default" if app_dir == PROJECT_ROOT else "error",
            **environ,
        }
        self.settings = load_settings(self.environ)
        self.url = self.settings.url
        Stack.unstopped.append(self)

    def start(self, *, engines=1):
        self.start_valkey()
        for model in self.settings.served:
            for _ in range(engines):
                self.start_engine(model.queue)
        self.start_web()
        self.wait_ready()
        return self

    def start_valkey(self):
        valkey_server.prepare(self.settings)
        # Python ignores SIGXFSZ, and its children inherit that: past the file size limit, writes fail without a kill.
        self.valkey = self._start("valkey", valkey_server.command(self.settings), restore_signals=False)
        self._wait_for(lambda: valkey_server.answers(self.settings), self.valkey, what="Valkey")

    def start_engine(self, model="", **environ):
        """`model`: which of several."""
        name = f"engine{len(self.engines)}"
        served = next(each for each in self.settings.served if each.queue == model)
        environ = engine_environ(self.environ | {"EVERSTREAM_ENGINE_NAME": name, **environ}, served)
        engine = self._start(name, [sys.executable, "-m", "everstream.engine.main"], **environ)
        self.engines.append(engine)
        return engine

    def start_web(self, command=WEB, *, cwd=PROJECT_ROOT):
        self.web = self._start("web", command, cwd=cwd)
        self._wait_for(self.web_answers, self.web, what="the web part")

    def start_nginx(self, *, tls=False, upstream=None, changes=None):
        """Put nginx in front of the web part, with the adapted shipped configuration. Also restarts a killed nginx."""
        self.nginx_port = self.nginx_port or free_port()
        self.tls_port = (self.tls_port or free_port()) if tls else None
        upstream = upstream or self.settings.address
        config = Layout(self.folder, self.nginx_port, upstream, self.tls_port, changes or {}).write()
        self.nginx = self._start("nginx", [nginx_executable(), "-p", str(self.folder), "-c", str(config)])
        self.url = f"http://127.0.0.1:{self.nginx_port}"
        self._wait_for(lambda: self.nginx_port in listening(self.nginx), self.nginx, what="nginx")

    @property
    def tls_url(self):
        return f"https://127.0.0.1:{self.tls_port}"

    @contextmanager
    def another_nginx(self, folder, **options):
        """The same stack behind a separate nginx. Takes the options of `start_nginx`."""
        twin = copy.copy(self)
        twin.folder, twin.nginx_port, twin.tls_port = folder, None, None
        twin.start_nginx(**options)
        try:
            yield twin
        finally:
            twin.nginx.stop()

    def nginx_logs(self):
        """Everything nginx has logged, wherever it went."""
        logs = [self.folder / "error.log", self.folder / "access.log"]
        return self.nginx.output + "".join(path.read_text(errors="replace") for path in logs if path.exists())

    def _start(self, name, command, *, cwd=PROJECT_ROOT, restore_signals=True, **environ):
        process = Process(name, command, self.environ | environ, self.folder, cwd=cwd, restore_signals=restore_signals)
        self._all.append(process)
        return process

    def _wait_for(self, condition, *parts, timeout_s=START_TIMEOUT_S, what):
        """Like `wait_for`, but raises PartEnded as soon as one of these parts exits."""

        def check():
            for part in parts:
                part.assert_alive()
            return condition()

        wait_for(check, timeout_s, what)

    def web_answers(self):
        return self._is_ok("/healthz")

    def _is_ok(self, path):
        try:
            return requests.get(self.url + path, timeout=REQUEST_TIMEOUT_S).ok
        except requests.RequestException:
            return False

    def wait_ready(self, timeout_s=START_TIMEOUT_S):
        """Wait until a model is ready. Raises PartEnded once no engine is left that could load it."""

        def is_ready():
            if all(engine.popen.poll() is not None for engine in self.engines):
                raise PartEnded("\n".join(["no engine is running", *(engine.report for engine in self.engines)]))
            return self._is_ok("/readyz")

        self._wait_for(is_ready, self.valkey, self.web, timeout_s=timeout_s, what="a ready model")

    def workers(self):
        """The pids of gunicorn's workers."""
        return [child.pid for child in psutil.Process(self.web.pid).children()]

    def kill_workers(self):
        """And wait for new ones."""
        before = self.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(self.workers()) == len(before) and not set(self.workers()) & set(before), what="workers")

    def worker_of(self, local_port):
        """The pid of the worker that serves the connection from this client port."""
        for pid in self.workers():
            for connection in psutil.Process(pid).net_connections("tcp"):
                if connection.raddr and connection.raddr.port == local_port:
                    return pid
        return None

    def submit(self, **inputs):
        answer = requests.post(f"{self.url}/generations", json=inputs, timeout=REQUEST_TIMEOUT_S)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def events_url(self, generation):
        return f"{self.url}/generations/{generation}/events"

    def show(self, generation):
        return requests.get(f"{self.url}/generations/{generation}", timeout=REQUEST_TIMEOUT_S).json()

    def readiness(self):
        return requests.get(f"{self.url}/readyz", timeout=REQUEST_TIMEOUT_S).json()

    def metric(self, name, **labels):
        """The sum of all samples with this name and at least these labels."""
        text = requests.get(f"{self.url}/metrics", timeout=REQUEST_TIMEOUT_S).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        named = [sample for sample in samples if sample.name == f"everstream_{name}"]
        family = re.sub("_(total|count|sum|bucket)$", "", name)
        assert f"# TYPE everstream_{family} " in text.replace("_total ", " "), f"there is no metric {name}"
        return int(sum(sample.value for sample in named if labels.items() <= sample.labels.items()))

    def running(self):
        """The number of running generations, as counted by the engines."""
        return sum(engine["running"] for engine in self.readiness()["engines"])

    def streams(self):
        """The open streams of all workers. Each worker answers some of the health checks."""
        counts = {}

        def all_have_answered():
            # Not through nginx, which would stay with one worker.
            answer = requests.get(f"{self.settings.url}/healthz", timeout=REQUEST_TIMEOUT_S).json()
            counts[answer["pid"]] = answer["streams"]
            return len(counts) == int(self.environ["WEB_CONCURRENCY"])

        wait_for(all_have_answered, what="an answer from each worker")
        return sum(counts.values())

    def assert_idle(self, timeout_s=60):
        """No stream, job or running generation is left."""
        wait_for(lambda: self.streams() == 0, timeout_s, "the end of all streams")
        jobs = [Keys(self.settings.namespace, model.queue).jobs for model in self.settings.served]
        with closing(valkey.Valkey.from_url(self.settings.log_url)) as client:
            wait_for(lambda: not any(client.xlen(key) for key in jobs), timeout_s, "the end of all jobs")

    def stop(self):
        for process in reversed(self._all):
            process.stop()
        if self in Stack.unstopped:
            Stack.unstopped.remove(self)

    def report(self):
        """The end of each part's output."""
        return "\n".join(process.report for process in self._all)


class Supervised(Stack):
    """A stack run by the supervisor."""

    supervisor = None

    def begin(self, arguments=()):
        """Start it, without waiting for anything."""
        self.environ.setdefault("MODEL", "scripted")
        self.supervisor = self._start("supervisor", [*SUPERVISOR, *arguments])

    def launch(self, timeout_s=START_TIMEOUT_S, arguments=()):
        self.begin(arguments)
        what = "the supervisor to report that it is ready"
        self._wait_for(self._supervisor_says_ready, self.supervisor, timeout_s=timeout_s, what=what)
        return self

    def _supervisor_says_ready(self):
        output = self.supervisor.output
        if "the model can't be loaded" in output:
            raise PartEnded(f"the supervisor's engine exited unexpectedly\n{self.supervisor.report}")
        return "ready after" in output

    def part(self, words):
        """The supervisor's direct child whose command line contains these words."""
        children = psutil.Process(self.supervisor.pid).children()
        return next((child for child in children if words in command_line(child)), None)

    def family(self):
        return psutil.Process(self.supervisor.pid).children(recursive=True)


def command_line(process):
    """As one string; empty if the process has exited."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def listening(process):
    return [connection.laddr.port for connection in psutil.Process(process.pid).net_connections("tcp")]


@contextmanager
def web_alone(folder, **environ):
    """Valkey and one web worker, without an engine."""
    stack = Stack(folder, WEB_CONCURRENCY="1", **environ)
    try:
        stack.start_valkey()
        stack.start_web()
        yield stack
    finally:
        stack.stop()


@contextmanager
def running_stack(folder, **options):
    stack = Stack(folder, **options)
    try:
        yield stack.start()
    except BaseException:
        sys.stderr.write(stack.report())
        raise
    finally:
        stack.stop()
