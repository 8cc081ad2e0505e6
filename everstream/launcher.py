"""Runs everything on one machine: `python -m everstream.launcher`, or `make run`.

Starts Valkey (unless `VALKEY_URL` names another), the engine and gunicorn, restarts what dies, with backoff, and says
which and why. Takes all down with itself: on Ctrl-C and SIGTERM in order, and should it be killed with -9, the
kernel ends its children.
"""

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

from everstream import contract, demo_model, inputs, valkey_server
from everstream.errors import ModelLoadError
from everstream.ports import check_ports
from everstream.processes import die_with_parent
from everstream.settings import REPO_ROOT, Settings, SettingsError, load_settings
from everstream.terminal import Terminal

TEND_EVERY_S = 0.2
BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0
"""A part that ran this long has its backoff forgotten."""
STOP_S = 12.0
"""Longer than gunicorn's graceful_timeout."""

QUIET = {
    # gunicorn's and the engine's own lines say what the launcher says.
    "EVERSTREAM_LOG_LEVEL": "warning",
    # vLLM's messages are for its developers, and its reports go to their server.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONWARNINGS": "ignore",
    # On how memory is bound to the one NUMA node there is.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # That there is no Triton, which a CPU does not need.
    "TORCH_LOGS": "-torch._library.triton",
}
"""For the parts' environments; each is back on as soon as it is set."""
VALKEYS_ROUTINE = re.compile(r"Memory overcommit must be enabled|scheduling shutdown|ready to exit")
"""What Valkey says at each start and stop, as warnings. docs/reliability.md has what to do about the first."""

terminal = Terminal()


def say(text: str) -> None:
    terminal.line(text)


class Part:
    """One process to keep running; with `once`, one that is not started again.

    `detail` is how far it says that it is, if it shows a progress bar. Lines that match `routine` are not shown.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environ: Mapping[str, str] = os.environ,
        *,
        once: bool = False,
        routine: re.Pattern[str] | None = None,
    ) -> None:
        self.name = name
        self.detail = ""
        self._once = once
        self._routine = routine
        self._command = command
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._deaths = 0
        self._restart_at: float | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            cwd=REPO_ROOT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C in the terminal reaches only the launcher, which ends the parts in order,
            # and what a part leaves behind can be ended with it.
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it makes one system call and allocates nothing
        )
        self._started = time.monotonic()
        self._restart_at = None
        threading.Thread(target=self._relay, args=(self._process.stdout,), daemon=True).start()

    def _relay(self, output: IO[bytes]) -> None:
        """Show what it prints. Each state of a progress bar comes after a carriage return."""
        follows_return = False
        with io.TextIOWrapper(output, errors="replace", newline="") as lines:
            for text in lines:
                is_state, follows_return = follows_return or text.endswith("\r"), text.endswith("\r")
                if is_state:
                    self.detail = text.strip()
                elif text.strip() and not (self._routine and self._routine.search(text)):
                    terminal.line(text.rstrip(), f"{self.name:<10} | ")

    def tend(self) -> None:
        """Notice a death, or start it again when its wait is over."""
        if self._restart_at is not None:
            if time.monotonic() >= self._restart_at:
                self.start()
        elif self._process is not None and self._process.poll() is not None:
            self._bury(self._process.returncode)

    def _bury(self, status: int) -> None:
        self._signal(signal.SIGKILL)
        self.detail = ""
        if self._once:
            self._process = None
            return
        if time.monotonic() - self._started > STEADY_S:
            self._deaths = 0
        wait_s = min(BACKOFF_MIN_S * 2 ** min(self._deaths, 10), BACKOFF_MAX_S)
        self._deaths += 1
        self._restart_at = time.monotonic() + wait_s
        cause = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        say(f"{self.name} {cause}; starting it again in {wait_s:g} s")

    def end(self) -> None:
        """Ask it to end, and see to it that nothing of it is left."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                say(f"{self.name} did not end within {STOP_S:g} s and is killed")
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        """To the whole session: the part and all that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class Launcher:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        python, environ = sys.executable, QUIET | os.environ
        gunicorn = [python, "-m", "gunicorn", "-c", str(REPO_ROOT / "gunicorn.conf.py"), "wsgi:app"]
        self._engine = Part("engine", [python, "-m", "everstream.engine"], environ)
        self._web = Part("web", gunicorn, environ)
        self._model = Part("model", [python, "-m", "everstream.demo_model"], environ, once=True)
        self._valkey = None
        if not settings.valkey_url:
            self._valkey = Part("valkey", valkey_server.command(settings), routine=VALKEYS_ROUTINE)

    @property
    def _parts(self) -> list[Part]:
        return [part for part in (self._valkey, self._model, self._engine, self._web) if part is not None]

    def run(self) -> None:
        """Until told to stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop.set())
        try:
            self._start()
            Progress(self._settings, self._parts, self._stop).start()
            while not self._stop.wait(TEND_EVERY_S):
                for part in self._parts:
                    part.tend()
        finally:
            self._take_down()

    def _start(self) -> None:
        """Valkey first: the others would only wait for it, and say so."""
        settings = self._settings
        if self._valkey is not None:
            self._valkey.start()
            while not valkey_server.answers(settings) and not self._stop.wait(0.05):
                self._valkey.tend()
        say(f"valkey: {settings.safe_log_url}")
        if demo_model.is_wanted(settings) and not demo_model.folder(settings).is_dir():
            self._model.start()
        self._engine.start()
        say(f"engine: {settings.model_name if settings.serves_chat_model else settings.app_dir}")
        self._web.start()
        say(f"web: {settings.workers} workers at {settings.url}")
        if settings.health_port:
            say(f"web: health checks at {settings.address_of(settings.health_port)}")

    def _take_down(self) -> None:
        """Web first, so that no request is left without an engine; Valkey last, so that all is written."""
        terminal.end_progress()
        for part in (self._web, self._engine, self._model, self._valkey):
            if part is not None:
                part.end()
        say("stopped")


class Progress:
    """Tells, in its own thread, how the start goes, and of each change from ready to not ready and back."""

    def __init__(self, settings: Settings, parts: Sequence[Part], stop: threading.Event) -> None:
        self._settings = settings
        self._parts = parts
        self._stop = stop

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        since, was_ready = time.monotonic(), False
        while not self._stop.wait(0.5):
            ready, message = self._ask()
            elapsed_s = time.monotonic() - since
            if ready and not was_ready:
                terminal.end_progress()
                say(f"ready after {elapsed_s:.0f} s: open {self._settings.url}")
                if call := curl(self._settings):
                    say(call)
            elif not ready:
                since = time.monotonic() if was_ready else since
                terminal.progress(message, time.monotonic() - since, self._detail)
            was_ready = ready

    @property
    def _detail(self) -> str:
        return next((part.detail for part in self._parts if part.detail), "")

    def _ask(self) -> tuple[bool, str]:
        try:
            with urllib.request.urlopen(f"{self._settings.url}/readyz", timeout=2):  # noqa: S310
                return True, ""
        except urllib.error.HTTPError as error:
            return False, str(json.load(error)["message"])
        except (OSError, ValueError):
            return False, "the web part is starting"


def curl(settings: Settings) -> str:
    """A command that streams from the model, with its schema's examples; empty if the schema can't be read."""
    try:
        schema = contract.load_schema(Path(settings.app_dir).resolve()).INPUT_SCHEMA
    except ModelLoadError:
        return ""
    query = urllib.parse.urlencode(inputs.example(schema), doseq=True)
    return f"curl -N '{settings.url}/stream?{query}'"


@contextmanager
def only_launcher(settings: Settings) -> Iterator[None]:
    """Hold the state directory: two servers on one append-only file would ruin it. Raises SettingsError."""
    valkey_server.prepare(settings)
    with (settings.state_path / "launcher.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise SettingsError(
                f"it runs already: {lock.read().strip() or 'it has just begun'}. Stop it with Ctrl-C where it runs; "
                f"or run another beside it, with a PORT and an EVERSTREAM_STATE_DIR of its own (this one: "
                f"{settings.state_path}); or set VALKEY_URL for both, to share a log"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} at {settings.url}\n")
        lock.flush()
        yield


def main() -> None:
    try:
        settings = load_settings()
        with only_launcher(settings) if not settings.valkey_url else nullcontext():
            check_ports(settings)
            Launcher(settings).run()
    except SettingsError as error:
        sys.exit(f"everstream: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
