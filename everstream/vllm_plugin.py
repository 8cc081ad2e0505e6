"""A vLLM plugin (entry point `vllm.general_plugins`): the engine's child processes die with it.

vLLM's EngineCore process does not notice that its parent was killed with -9, and would go on holding the GPU's
memory, so that no new engine could start. vLLM runs this in each process it starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number)


def register() -> None:
    engine_pid = os.environ.get("_EVERSTREAM_ENGINE_PID", "")
    if not engine_pid or int(engine_pid) == os.getpid():
        return
    die_with_parent()
    if os.getppid() == 1:
        os._exit(1)
