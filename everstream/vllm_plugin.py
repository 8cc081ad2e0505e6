"""A vLLM plugin (entry point `vllm.general_plugins`): the engine's child processes die with it.

vLLM's EngineCore process does not notice that its parent was killed with -9, and would go on holding the GPU's
memory, so that no new engine could start. vLLM runs `register` in each process that it starts.
"""

import os

from everstream.processes import die_with_parent

ENGINE_PID_VARIABLE = "_EVERSTREAM_ENGINE_PID"
"""Set by the engine process, so that nothing else that uses vLLM on the machine is touched."""


def register() -> None:
    engine_pid = os.environ.get(ENGINE_PID_VARIABLE, "")
    if not engine_pid or int(engine_pid) == os.getpid():
        return
    die_with_parent()
    if os.getppid() == 1:
        # The parent died before the kernel was asked.
        os._exit(1)
