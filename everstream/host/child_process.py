"""One process that the supervisor keeps running: starts, watches, restarts (with backoff) and ends it.

In: a command. Out: its output, on the terminal. Called by `supervisor`.
"""

import io
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, NamedTuple

from everstream.host.terminal import Terminal
from everstream.processes import die_with_parent, how_it_ended
from everstream.settings import PROJECT_ROOT

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0
"""The backoff resets after this long without a death."""
STOP_S = 12.0
"""How long a process may take to end: more than the 10 s that gunicorn.conf.py adds to `drain_s`."""


class Program(NamedTuple):
    """What to run. `once`: it is not restarted. Lines that match `routine` are not shown.

    With the exit status `replaced_on` it asks to be replaced, which is no failure and needs no backoff. Told to end, it
    is killed after `stop_s`.
    """

    name: str
    command: list[str]
    environ: Mapping[str, str] = os.environ
    once: bool = False
    routine: re.Pattern[str] | None = None
    replaced_on: int | None = None
    stop_s: float = STOP_S


class ChildProcess:
    def __init__(self, program: Program, terminal: Terminal) -> None:
        self.detail = ""
        """The state of its progress bar, if it shows one."""
        self._program = program
        self._terminal = terminal
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._deaths = 0
        self._restart_at: float | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._program.command,
            cwd=PROJECT_ROOT,
            env=self._program.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A process group of its own: Ctrl-C in the terminal reaches only the supervisor, which ends its children in
            # order, and anything that a child leaves behind can be killed with its group. No session of its own: Linux
            # divides busy cores between sessions first, and then web processes wait for seconds (`bench.scheduling`).
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it makes one system call and allocates nothing
        )
        self._started = time.monotonic()
        self._restart_at = None
        threading.Thread(target=self._relay, args=(self._process.stdout,), daemon=True).start()

    def _relay(self, output: IO[bytes]) -> None:
        """Show its output. Each state of a progress bar follows a carriage return."""
        follows_return, routine = False, self._program.routine
        with io.TextIOWrapper(output, errors="replace", newline="") as lines:
            for text in lines:
                is_state, follows_return = follows_return or text.endswith("\r"), text.endswith("\r")
                if is_state:
                    self.detail = text.strip()
                elif text.strip() and not (routine and routine.search(text)):
                    self._terminal.line(text.rstrip(), f"{self._program.name:<10} | ")

    def poll(self) -> None:
        """Notice a death, or restart it when its backoff is over."""
        if self._restart_at is not None:
            if time.monotonic() >= self._restart_at:
                self.start()
        elif self._process is not None and self._process.poll() is not None:
            self._schedule_restart(self._process.returncode)

    def _schedule_restart(self, status: int) -> None:
        self._signal(signal.SIGKILL)
        self.detail = ""
        if self._program.once:
            self._process = None
            return
        if time.monotonic() - self._started > STEADY_S:
            self._deaths = 0
        if status == self._program.replaced_on:
            self._deaths = 0
        backoff_s = min(BACKOFF_MIN_S * 2 ** min(self._deaths, 10), BACKOFF_MAX_S)
        self._deaths += 1
        self._restart_at = time.monotonic() + backoff_s
        cause = how_it_ended(status)
        self._terminal.line(f"{self._program.name} {cause}; restarting in {backoff_s:g} s")

    def end(self) -> None:
        """Ask it to end, and kill anything that is left of it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._program.stop_s)
            except subprocess.TimeoutExpired:
                self._terminal.line(f"{self._program.name} did not end within {self._program.stop_s:g} s; killing it")
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        """Signal the whole group: the process and everything that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
