"""The stack under test: nginx, the supervisor with gunicorn and engine a, a separate engine b, and a separate Valkey.

In: a model and a folder. Each process can be found, inspected and restarted. Everything here blocks; `faults` calls it
in threads, `phases` directly.
"""

import os
import time
from contextlib import suppress

import psutil
import requests
import valkey

from everstream.host import valkey_server
from everstream.log.keys import GROUP, Keys
from harness.stack import REQUEST_TIMEOUT_S, Supervised, wait_for

LEASE_S = 3.0
HEARTBEAT_S = 2.0
RETRY_MS = 200
HEALING_TIMEOUT_S = 240
ENGINES = ("a", "b")
BUSY_NICENESS = 10


class Arena(Supervised):
    def __init__(self, folder, app_dir, **environ):
        super().__init__(
            folder,
            app_dir=app_dir,
            EVERSTREAM_LEASE_S=str(LEASE_S),
            EVERSTREAM_HEARTBEAT_S=str(HEARTBEAT_S),
            EVERSTREAM_RETRY_MS=str(RETRY_MS),
            EVERSTREAM_ENGINE_NAME="a",
            VALKEY_URL=f"unix://{folder}/state/valkey.sock",
            PYTHONWARNINGS="ignore",
            VLLM_NO_USAGE_STATS="1",
            # Two engines and the readers share few cores, which spinning OpenMP threads would monopolise.
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
        # SIGXFSZ stays ignored, as in Python, so that a write beyond the file size limit fails as on a full disk.
        self.valkey = self._start("valkey", valkey_server.command(self.settings), restore_signals=False)
        wait_for(lambda: valkey_server.answers(self.settings), HEALING_TIMEOUT_S, "Valkey")

    def start_b(self):
        """Runs vLLM with a worker process, as on a GPU. Engine a has none, as on any CPU."""
        arguments = f"{self.environ['ENGINE_ARGS']} --distributed-executor-backend mp"
        self.engine_b = self.start_engine(EVERSTREAM_ENGINE_NAME="b", ENGINE_ARGS=arguments)

    def engine(self, name):
        """The engine process, or None if it is not running."""
        if name == "b":
            return psutil.Process(self.engine_b.pid) if self.engine_b.popen.poll() is None else None
        return self.part("everstream.engine.main")

    def gunicorn(self):
        return self.part("gunicorn")

    def gunicorn_workers(self):
        return self.gunicorn().children()

    def wait_engine(self, name, other_than=None):
        """Wait until an engine process of this name, with a pid other than `other_than`, has its model ready."""
        if other_than is not None:
            # The dead engine's last status counts until its lease expires.
            time.sleep(LEASE_S + 1)

        def is_ready():
            process = self.engine(name)
            return process and process.pid != other_than and self._is_ready(name)

        wait_for(is_ready, HEALING_TIMEOUT_S, f"engine {name}")
        # From now on it yields the CPU to an engine that is starting, which would otherwise take minutes.
        give_way(self.engine(name).pid)

    def _is_ready(self, name):
        return any(each["name"] == name and each["state"] == "ready" for each in self.reported())

    def reported(self):
        """The engines' reported status; empty while the web process or Valkey is down."""
        try:
            return requests.get(f"{self.web_url}/readyz", timeout=REQUEST_TIMEOUT_S).json().get("engines", [])
        except (requests.RequestException, ValueError):
            return []

    def leases_of(self, name):
        """How many generations an engine process currently holds; 0 if unknown."""
        keys = Keys(self.settings.namespace)
        prefix = f"{name}-{self.engine(name).pid}-".encode()
        try:
            with self.valkey_client() as client:
                consumers = client.xpending(keys.jobs, GROUP)["consumers"]
        except valkey.exceptions.ValkeyError:
            return 0
        return sum(each["pending"] for each in consumers if each["name"].startswith(prefix))

    def valkey_client(self):
        return valkey.Valkey.from_url(self.settings.log_url, socket_timeout=10)

    def wait_web(self, other_than):
        """Wait until a gunicorn master with a pid other than `other_than` responds."""

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
        """How many requests a gunicorn worker is serving."""
        established = (each for each in process.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED)
        return sum(each.laddr.port == self.port for each in established)

    def stop(self):
        """Stop everything. The supervisor's children have groups of their own, so kill them one by one."""
        launched = self.family() if self.supervisor and self.supervisor.popen.poll() is None else []
        super().stop()
        for process in launched:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(launched, timeout=30)


def give_way(pid):
    """Lower the priority of a process group. `pid`: of its leader."""
    os.setpriority(os.PRIO_PGRP, pid, BUSY_NICENESS)
