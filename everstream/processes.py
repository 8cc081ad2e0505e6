"""What our processes ask of the operating system: children that die with their parent, and when to be run."""

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux; elsewhere nothing happens)."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal_number)


def run_when_others_pause() -> None:
    """Where all cores are busy, have the kernel run this process when another pauses, and not in its midst.

    A web worker is woken just when the engine has said something and goes on with its next step. On two cores to be
    interrupted there costs the engine more than the worker's users gain: `bench.scheduling` has the figures. Where a
    core is free this changes nothing. Linux only.
    """
    with suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
