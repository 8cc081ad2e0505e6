"""A vLLM plugin (entry point `vllm.general_plugins`), which vLLM runs in each process that it starts.

The engine's child processes die with it: vLLM's EngineCore does not notice that its parent was killed with -9, and
would go on holding the GPU's memory, so that no new engine could start.

And on CPUs they sleep where vLLM would spin. EngineCore and its worker wait for each other with sched_yield in a loop,
after which others on the same core (Valkey, web workers, clients) waited to be scheduled for up to 0.47 s at a time and
seconds in all [measured on Linux 6.18 with `perf sched`]. With a sleep in its place first tokens were no longer late.
"""

import importlib
import logging
import os
import time

from everstream.processes import die_with_parent

ENGINE_PID_VARIABLE = "_EVERSTREAM_ENGINE_PID"
"""Set by the engine process, so that nothing else that uses vLLM on the machine is touched."""
SLEEP_VARIABLE = "_EVERSTREAM_SLEEP_FOR_SPIN"
"""Set by the engine process, and by the benchmarks for servers that they compare with."""
SLEEP_S = 10e-6
WAITING = "vllm.distributed.device_communicators.shm_broadcast"
"""Where vLLM's processes wait for each other."""

logger = logging.getLogger(__name__)


def register() -> None:
    if os.environ.get(SLEEP_VARIABLE):
        _sleep_for_spin()
    engine_pid = os.environ.get(ENGINE_PID_VARIABLE, "")
    if not engine_pid or int(engine_pid) == os.getpid():
        return
    die_with_parent()
    if os.getppid() == 1:
        # The parent died before the kernel was asked.
        os._exit(1)


def _sleep_for_spin() -> None:
    # Here, as importing it is for processes that run vLLM.
    from vllm.platforms import current_platform  # noqa: PLC0415

    if not current_platform.is_cpu():
        return
    try:
        waiting = importlib.import_module(WAITING)
    except ImportError:
        waiting = None
    if hasattr(waiting, "sched_yield"):
        waiting.sched_yield = lambda: time.sleep(SLEEP_S)  # type: ignore[union-attr]
    else:
        # An exception would keep vLLM from starting.
        logger.warning("%s.sched_yield is gone: while vLLM's processes wait for each other they spin", WAITING)
