"""A vLLM plugin (entry point `vllm.general_plugins`), which vLLM runs in each process that it starts.

It makes the engine's child processes die with the engine. vLLM's EngineCore does not notice that its parent was killed
with -9, and would keep the GPU's memory, so that no new engine could start.

On CPUs, it also makes them sleep where vLLM would spin. EngineCore and its worker wait for each other with sched_yield
in a loop. Other processes on the same core (Valkey, web workers, clients) then waited up to 0.47 s at a time to be
scheduled, and seconds in all [measured on Linux 6.18 with `perf sched`]. With a sleep instead, first tokens were no
longer late.
"""

import importlib
import logging
import os
import time

from everstream.processes import ENGINE_PID_VARIABLE, SLEEP_VARIABLE, die_with_parent

SLEEP_S = 10e-6
WAITING = "vllm.distributed.device_communicators.shm_broadcast"
"""The module in which vLLM's processes wait for each other."""

logger = logging.getLogger(__name__)


def register() -> None:
    if os.environ.get(SLEEP_VARIABLE):
        _sleep_for_spin()
    engine_pid = os.environ.get(ENGINE_PID_VARIABLE, "")
    if not engine_pid or int(engine_pid) == os.getpid():
        return
    die_with_parent()
    if os.getppid() == 1:
        # The parent died before the request to the kernel.
        os._exit(1)


def _sleep_for_spin() -> None:
    # Imported here, because only processes that run vLLM should import it.
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
        logger.warning("%s.sched_yield is gone: vLLM's processes spin while they wait for each other", WAITING)
