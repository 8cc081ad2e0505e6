"""The stack under test: nginx, the launcher with gunicorn and engine a, engine b beside it, and a Valkey of its own.

In: a model, a folder. Each part can be found, counted and started again. Called by `faults` and `__main__`, in threads:
everything here blocks.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import requests
import valkey

from everstream import log, valkey_server
from everstream.settings import REPO_ROOT
from tests.stack import REQUEST_TIMEOUT_S, Launched, wait_for

LEASE_S = 3.0
HEARTBEAT_S = 2.0
RETRY_MS = 200
HEALING_TIMEOUT_S = 240
ENGINES = ("a", "b")
BUSY_NICENESS = 10


class Arena(Launched):
    def __init__(self, folder, **environ):
        super().__init__(
            folder,
            app_dir=REPO_ROOT,
            EVERSTREAM_LEASE_S=str(LEASE_S),
            EVERSTREAM_HEARTBEAT_S=str(HEARTBEAT_S),
            EVERSTREAM_RETRY_MS=str(RETRY_MS),
            EVERSTREAM_ENGINE_NAME="a",
            VALKEY_URL=f"unix://{folder}/state/valkey.sock",
            PYTHONWARNINGS="ignore",
            VLLM_NO_USAGE_STATS="1",
            # Two engines and the readers on few cores: threads that spin for each other would have them all.
            OMP_NUM_THREADS="1",
            VLLM_CPU_OMP_THREADS_BIND="nobind",
            **environ,
        )
        self.web_url = self.url

    def start_all(self):
        self.start_valkey()
        self.start_b()
        self.start_nginx()
        self.launch(HEALING_TIMEOUT_S)
        for name in ENGINES:
            self.wait_engine(name)

    def start_valkey(self):
        valkey_server.prepare(self.settings)
        # SIGXFSZ stays ignored, as in Python, so that a file at its limit is a write that fails, as on a full disk.
        self.valkey = self._start("valkey", valkey_server.command(self.settings), restore_signals=False)
        wait_for(lambda: valkey_server.answers(self.settings), HEALING_TIMEOUT_S, "Valkey")

    def start_b(self):
        """As vLLM runs on a GPU, with a worker process; engine a has none, as on any CPU."""
        arguments = f"{self.environ['ENGINE_ARGS']} --distributed-executor-backend mp"
        self.engine_b = self.start_engine(EVERSTREAM_ENGINE_NAME="b", ENGINE_ARGS=arguments)

    def engine(self, name):
        """The engine process, or None where it is not running."""
        if name == "b":
            return psutil.Process(self.engine_b.pid) if self.engine_b.popen.poll() is None else None
        return self.part("everstream.engine")

    def gunicorn(self):
        return self.part("gunicorn")

    def gunicorn_workers(self):
        return self.gunicorn().children()

    def wait_engine(self, name, other_than=None):
        """Until an engine process of this name, other than `other_than`, has its model ready."""
        if other_than is not None:
            # What the dead one said of itself is believed for as long as its lease.
            time.sleep(LEASE_S + 1)

        def is_ready():
            process = self.engine(name)
            return process and process.pid != other_than and self._is_ready(name)

        wait_for(is_ready, HEALING_TIMEOUT_S, f"engine {name}")
        # From now on it leaves the processors to an engine that starts, which would take minutes otherwise.
        give_way(self.engine(name).pid)

    def _is_ready(self, name):
        return any(each["name"] == name and each["state"] == "ready" for each in self.reported())

    def reported(self):
        """What the engines say of themselves; nothing while web or Valkey are away."""
        try:
            return requests.get(f"{self.web_url}/readyz", timeout=REQUEST_TIMEOUT_S).json().get("engines", [])
        except (requests.RequestException, ValueError):
            return []

    def leases_of(self, name):
        """How many generations an engine process holds at this moment; 0 if that can't be known."""
        keys = log.Keys(self.settings.namespace)
        prefix = f"{name}-{self.engine(name).pid}-".encode()
        try:
            with self.valkey_client() as client:
                consumers = client.xpending(keys.jobs, log.GROUP)["consumers"]
        except valkey.exceptions.ValkeyError:
            return 0
        return sum(each["pending"] for each in consumers if each["name"].startswith(prefix))

    def valkey_client(self):
        return valkey.Valkey.from_url(self.settings.log_url, socket_timeout=10)

    def wait_web(self, other_than):
        """Until gunicorn, as another process than before, answers."""

        def answers():
            master = self.gunicorn()
            try:
                return (
                    master
                    and master.pid != other_than
                    and requests.get(f"{self.web_url}/healthz", timeout=REQUEST_TIMEOUT_S).ok
                )
            except requests.RequestException:
                return False

        wait_for(answers, HEALING_TIMEOUT_S, "gunicorn")

    def connections(self, process):
        """How many requests a gunicorn worker serves at this moment."""
        established = (each for each in process.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED)
        return sum(each.laddr.port == self.port for each in established)

    def stop(self):
        """Leave nothing: the launcher's parts have sessions of their own, so they are ended one by one."""
        launched = self.family() if self.launcher and self.launcher.popen.poll() is None else []
        super().stop()
        for process in launched:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(launched, timeout=30)


def give_way(pid):
    """Lower the priority of a process that leads a session, and of all in that session."""
    os.setpriority(os.PRIO_PGRP, pid, BUSY_NICENESS)
    # Where the kernel schedules by sessions, niceness counts within one only.
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(BUSY_NICENESS))
