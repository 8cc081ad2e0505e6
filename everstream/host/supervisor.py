"""Runs everything on one machine: `everstream run`, or `make run`.

Starts Valkey (unless `VALKEY_URL` names another), an engine for each model, and gunicorn. Restarts whatever dies, with
backoff, and reports which process died and why. Takes everything down with itself: in order on Ctrl-C and SIGTERM; if
it is killed with -9, the kernel ends its children.
"""

import importlib.util
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from everstream import tracing
from everstream.contract.loader import APP
from everstream.engine.exits import EXIT_MODEL_STUCK
from everstream.host import state_lock, valkey_server
from everstream.host.child_process import STOP_S, ChildProcess, Program
from everstream.host.progress import Progress
from everstream.host.terminal import Terminal
from everstream.llm import demo_model
from everstream.model_list import ModelFolder
from everstream.settings import PROJECT_ROOT, Settings, SettingsError, engine_environ, load_settings
from everstream.web.access.startup import check as check_access
from everstream.web.ports import check_ports

POLL_EVERY_S = 0.2
ENGINE = [sys.executable, "-m", "everstream.engine.main"]
WEB = [sys.executable, "-m", "gunicorn", "-c", str(PROJECT_ROOT / "gunicorn.conf.py"), "everstream.wsgi:app"]
DEMO_MODEL = [sys.executable, "-m", "everstream.llm.demo_model"]

DEFAULTS = {
    # Ctrl-C should be quick, and the engine that could finish the answers ends, too.
    "EVERSTREAM_DRAIN_S": "0",
    # gunicorn and the engine would repeat the supervisor's own lines.
    "EVERSTREAM_LOG_LEVEL": "warning",
    "EVERSTREAM_LOG_FORMAT": "text",
    # vLLM's messages are for its developers, and its usage reports go to their server.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONWARNINGS": "ignore",
    # Messages about binding memory to the only NUMA node.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # A message that Triton is missing, which a CPU does not need.
    "TORCH_LOGS": "-torch._library.triton",
}
"""For the children's environments; your own value for any of these takes precedence."""
ROUTINE_LINES = re.compile(r"Memory overcommit must be enabled|scheduling shutdown|ready to exit")
"""Warnings that Valkey logs at each start and stop. `everstream doctor` says what to do about the first."""


class Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._terminal = Terminal()
        environ = DEFAULTS | os.environ | settings.path_variables()
        environs = {model: engine_environ(environ, model) for model in settings.served}
        self._of_engines = {model: load_settings(environs[model]) for model in settings.served}
        engines = [Program(_engine(model), ENGINE, environs[model]) for model in settings.served]
        self._engines = [self._child(engine._replace(replaced_on=EXIT_MODEL_STUCK)) for engine in engines]
        drain_s = load_settings(environ).drain_s
        self._web = self._child(Program("web", WEB, environ, stop_s=STOP_S + drain_s))
        self._builders = {
            folder: self._child(Program("model", DEMO_MODEL, environs[model], once=True))
            for folder, model in demo_folders(self._of_engines).items()
        }
        self._valkey = None
        if not settings.valkey_url:
            self._valkey = self._child(Program("valkey", valkey_server.command(settings), routine=ROUTINE_LINES))

    def _child(self, program: Program) -> ChildProcess:
        return ChildProcess(program, self._terminal)

    @property
    def _children(self) -> list[ChildProcess]:
        valkey = () if self._valkey is None else (self._valkey,)
        return [*valkey, *self._builders.values(), *self._engines, self._web]

    def run(self) -> None:
        """Run until told to stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop.set())
        try:
            self._start()
            engines = {model.queue: child for model, child in zip(self._of_engines, self._engines, strict=True)}
            Progress(self._settings, self._children, engines, self._terminal, self._stop).start()
            while not self._stop.wait(POLL_EVERY_S):
                for child in self._children:
                    child.poll()
        finally:
            self._take_down()

    def _start(self) -> None:
        """Valkey first: the others would only wait for it, and log that."""
        settings, say = self._settings, self._terminal.line
        if self._valkey is not None:
            self._valkey.start()
            while not valkey_server.answers(settings) and not self._stop.wait(0.05):
                self._valkey.poll()
        check_access(settings)
        say(f"valkey: {settings.safe_log_url}")
        for folder, builder in self._builders.items():
            if not folder.is_dir():
                builder.start()
        for child, (model, own) in zip(self._engines, self._of_engines.items(), strict=True):
            child.start()
            say(f"{_engine(model)}: {own.weights_name if own.serves_chat_model else model.path}")
        self._web.start()
        say(f"web: {settings.workers} workers at {settings.url}")
        if settings.health_port:
            say(f"web: health checks at {settings.address_of(settings.health_port)}")

    def _take_down(self) -> None:
        """Web first, so that no request is left without an engine; Valkey last, so that everything is written."""
        self._terminal.end_progress()
        self._web.end()
        # At once, as each may take its time.
        with ThreadPoolExecutor(len(self._engines)) as pool:
            list(pool.map(ChildProcess.end, self._engines))
        for builder in self._builders.values():
            builder.end()
        if self._valkey is not None:
            self._valkey.end()
        self._terminal.line("stopped")


def demo_folders(of_engines: Mapping[ModelFolder, Settings]) -> dict[Path, ModelFolder]:
    """The folders that the demo model is served from, which depend on each engine's CACHE_DIR; each with one model that
    wants it."""
    return {demo_model.folder(own): model for model, own in of_engines.items() if demo_model.is_wanted(own)}


def _engine(model: ModelFolder) -> str:
    return f"engine {model.queue}".strip()


def run(settings: Settings) -> None:
    """Run until told to stop. Raises SettingsError if it can't start."""
    check_engine_packages()
    # One of several models that can't be loaded must not keep the others from starting: its engine says why.
    if not settings.models and not (settings.app_path / APP).is_file():
        raise SettingsError(f"EVERSTREAM_APP_DIR={settings.app_dir} has no {APP}")
    tracing.check(os.environ)
    if not settings.valkey_url:
        state_lock.acquire(settings, inherit=False)
    check_ports(settings)
    Supervisor(settings).run()


def check_engine_packages() -> None:
    """Raises SettingsError on a web host."""
    if importlib.util.find_spec("uvloop") is None:
        raise SettingsError(
            "this environment has only what a web host needs; an engine needs requirements.txt (or everstream[gpu]), "
            "or requirements-cpu.txt (or everstream[cpu])"
        )
