"""Runs everything on one machine: `python -m everstream.launcher`, or `make run`.

Starts Valkey (unless `VALKEY_URL` names another), the engine and gunicorn, restarts what dies, with backoff, and says
which and why. Takes all down with itself: on Ctrl-C and SIGTERM in order, and should it be killed with -9, the
kernel ends its children.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import IO

import msgspec

from everstream import demo_model, valkey_server
from everstream.processes import die_with_parent
from everstream.settings import REPO_ROOT, Settings, SettingsError, load_settings

TEND_EVERY_S = 0.2
BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0
"""A part that ran this long has its backoff forgotten."""
STOP_S = 12.0
"""Longer than gunicorn's graceful_timeout."""
LOADING_NOTE_EVERY_S = 5.0

# vLLM's messages are for its developers, and its reports go to their server; each is back on as soon as it is set.
QUIET_VLLM = {"VLLM_LOGGING_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore", "VLLM_NO_USAGE_STATS": "1"}


def say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"everstream | {text}\n")


class Part:
    """One process to keep running."""

    def __init__(self, name: str, command: list[str], environ: Mapping[str, str] = os.environ) -> None:
        self.name = name
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
        for line in output:
            text = line.decode(errors="replace").rstrip()
            if text:
                # A terminal that has gone must not leave the part with a full pipe.
                with suppress(OSError):
                    sys.stderr.write(f"{self.name:<10} | {text}\n")

    def tend(self) -> None:
        """Notice a death, or start it again when its wait is over."""
        if self._restart_at is not None:
            if time.monotonic() >= self._restart_at:
                self.start()
        elif self._process is not None and self._process.poll() is not None:
            self._bury(self._process.returncode)

    def _bury(self, status: int) -> None:
        self._signal(signal.SIGKILL)
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
        python = sys.executable
        gunicorn = [python, "-m", "gunicorn", "-c", str(REPO_ROOT / "gunicorn.conf.py"), "wsgi:app"]
        self._engine = Part("engine", [python, "-m", "everstream.engine"], QUIET_VLLM | os.environ)
        self._web = Part("web", gunicorn)
        self._valkey = None if settings.valkey_url else Part("valkey", valkey_server.command(settings))
        self._parts = [part for part in (self._valkey, self._engine, self._web) if part is not None]

    @property
    def url(self) -> str:
        # "Any address" is none that a browser can open.
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        host = loopback.get(self._settings.host, self._settings.host)
        return f"http://{msgspec.structs.replace(self._settings, host=host).address}"

    def run(self) -> None:
        """Until told to stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop.set())
        try:
            self._start()
            Progress(self.url, self._stop).start()
            while not self._stop.wait(TEND_EVERY_S):
                for part in self._parts:
                    part.tend()
        finally:
            self._take_down()

    def _start(self) -> None:
        """Valkey first: the others would only wait for it, and say so."""
        if self._valkey is not None:
            self._valkey.start()
            while not valkey_server.answers(self._settings) and not self._stop.wait(0.05):
                self._valkey.tend()
        for part in self._parts:
            if part is not self._valkey and not self._stop.is_set():
                part.start()

    def _take_down(self) -> None:
        """Web first, so that no request is left without an engine; Valkey last, so that all is written."""
        for part in (self._web, self._engine, self._valkey):
            if part is not None:
                part.end()
        say("stopped")


class Progress:
    """Tells, in its own thread, how the start goes, and of each change from ready to not ready and back."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        self._url = url
        self._stop = stop

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        since = time.monotonic()
        said_at, last = since, ""
        while not self._stop.wait(0.5):
            ready, message = self._ask()
            now = time.monotonic()
            if ready and last != "ready":
                say(f"ready after {now - since:.0f} s: open {self._url}")
                last = "ready"
            elif not ready and (message != last or now - said_at >= LOADING_NOTE_EVERY_S):
                if last == "ready":
                    since = now
                say(f"{message} ({now - since:.0f} s)")
                said_at, last = now, message

    def _ask(self) -> tuple[bool, str]:
        try:
            with urllib.request.urlopen(f"{self._url}/readyz", timeout=2):  # noqa: S310
                return True, ""
        except urllib.error.HTTPError as error:
            return False, str(json.load(error)["message"])
        except (OSError, ValueError):
            return False, "the web part is starting"


@contextmanager
def only_launcher(settings: Settings) -> Iterator[None]:
    """Hold the state directory: two servers on one append-only file would ruin it. Raises SettingsError."""
    valkey_server.prepare(settings)
    with (settings.state_path / "launcher.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"Everstream runs already with the state directory {settings.state_path}; "
                "set EVERSTREAM_STATE_DIR to run another beside it, or VALKEY_URL to share its log"
            ) from None
        yield


def check_port(settings: Settings) -> None:
    """Raises SettingsError, with what to do, where gunicorn would only try again and again."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise SettingsError(f"can't listen on {settings.address}: {error.strerror}; set PORT") from None


def main() -> None:
    try:
        settings = load_settings()
        check_port(settings)
        with only_launcher(settings) if not settings.valkey_url else nullcontext():
            if settings.model == demo_model.NAME:
                demo_model.build(settings)
            Launcher(settings).run()
    except (SettingsError, demo_model.DemoModelError) as error:
        sys.exit(f"everstream: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
