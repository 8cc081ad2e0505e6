"""The output of `make run` and the set-up: permanent lines, and one changing progress line below them.

If the output is not a terminal (a file, a container's log), a progress line is printed only when its text is new.
Standard library only: the set-up uses it before anything is installed.
"""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CLEAR = "\r\x1b[K"
PREFIX = "everstream | "


class Terminal:
    """Standard error, shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_tty = sys.stderr.isatty()
        self._shown = ""
        self._last = ""

    def line(self, text: str, prefix: str = PREFIX) -> None:
        """Print a permanent line."""
        with self._lock:
            self._write(f"{CLEAR if self._shown else ''}{prefix}{text}\n{self._shown}")

    def progress(self, what: str, elapsed_s: float, detail: str = "") -> None:
        """Replace the progress line. `detail` is shown only on a terminal: it may change many times a second."""
        with self._lock:
            if self._is_tty:
                width = shutil.get_terminal_size().columns - 1
                text = f"{PREFIX}{what} ({elapsed_s:.0f} s){f': {detail}' if detail else ''}"
                self._shown = text[:width]
                self._write(CLEAR + self._shown)
            elif what != self._last:
                self._write(f"{PREFIX}{what}\n")
            self._last = what

    def end_progress(self) -> None:
        """Remove the progress line."""
        with self._lock:
            if self._shown:
                self._write(CLEAR)
            self._shown = self._last = ""

    def _write(self, text: str) -> None:
        # A terminal that is gone must not end the process that prints, or leave a child with a full pipe.
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


@contextmanager
def moving(what: str) -> Iterator[None]:
    """Show how long the body takes, then print a line with the total."""
    terminal, done, started = Terminal(), threading.Event(), time.monotonic()

    def move() -> None:
        while not done.wait(0.5):
            terminal.progress(what, time.monotonic() - started)

    terminal.progress(what, 0)
    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        terminal.end_progress()
    terminal.line(f"{what}: done in {time.monotonic() - started:.0f} s")
