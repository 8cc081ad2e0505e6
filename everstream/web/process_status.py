"""How a web process is: its event loop's lag, connections, memory. Reported by `read_reports`, shown by `/metrics`."""

import os
import resource
import secrets
import socket
import time

import gevent

from everstream import __version__
from everstream.log.records import WorkerStatus
from everstream.web import duties

BEAT_S = 0.25
_PAGE_BYTES = resource.getpagesize()


class ProcessStatus:
    def __init__(self) -> None:
        self.connections = 0
        """Open ones, of clients. The worker counts them."""
        self._name = ""
        self._lag_s = 0.0

    def start(self) -> None:
        """Call it in the process that serves: forked processes must not share a name."""
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        gevent.spawn(self._measure_lag)

    def _measure_lag(self) -> None:
        while True:
            pause_s = duties.pause(BEAT_S)
            due = time.monotonic() + pause_s
            gevent.sleep(pause_s)
            self._lag_s = max(self._lag_s, time.monotonic() - due)

    def report(self, streams: int) -> WorkerStatus:
        """The lag is the longest since the last report."""
        lag_s, self._lag_s = self._lag_s, 0.0
        used = resource.getrusage(resource.RUSAGE_SELF)
        return WorkerStatus(
            self._name, streams, self.connections, lag_s, _memory_bytes(), used.ru_utime + used.ru_stime, __version__
        )


def _memory_bytes() -> int:
    """Resident."""
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - a Path would cost more than the read
        return int(statm.read().split()[1]) * _PAGE_BYTES
