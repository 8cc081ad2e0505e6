"""What our processes ask of the operating system: to kill children with their parent."""

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1
ENGINE_PID_VARIABLE = "_EVERSTREAM_ENGINE_PID"
"""Set by each engine process, so that the vLLM plugin touches no other vLLM on the machine."""
SLEEP_VARIABLE = "_EVERSTREAM_SLEEP_FOR_SPIN"
"""Set by each engine process, and by the benchmarks for the servers that they compare with."""

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies. Does nothing outside Linux."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal_number)


def kill_this_process() -> NoReturn:
    """Die as if by `kill -9` from outside. What the kernel was given to send is still sent."""
    os.kill(os.getpid(), signal.SIGKILL)
    # The signal has ended the process before the call returns.
    raise AssertionError


def how_it_ended(status: int) -> str:
    """In words. `status` is below zero for the number of a signal, as in `subprocess` and `multiprocessing`."""
    if status >= 0:
        return f"ended with status {status}"
    # Some real-time signals have no name.
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}"
