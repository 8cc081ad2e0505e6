"""`vllm serve` as a process on a free port, to compare Everstream with. Used by tests and benchmarks.

Its engine runs as Everstream's does (`everstream.llm.vllm_start`): the model inside EngineCore, whose processes sleep
instead of spinning while they wait (`everstream.llm.vllm_plugin`).
"""

import os
import sys
from contextlib import contextmanager

import requests

from everstream.processes import SLEEP_VARIABLE
from harness.stack import Process, free_port, wait_for

START_TIMEOUT_S = 300
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
ENGINE_LIKE_OURS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", SLEEP_VARIABLE: "1"}


@contextmanager
def running_vllm_serve(name, model, served_name, arguments, folder, **environ):
    """Yields the process and its URL. `arguments`: what follows the model on the command line."""
    port = free_port()
    command = [sys.executable, "-m", "harness.vllm_command", "serve", str(model), "--served-model-name", served_name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log", *arguments]
    command += ["--distributed-executor-backend", "uni"]
    process = Process("vllm", command, os.environ | QUIET | ENGINE_LIKE_OURS | environ, folder)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(process, url), START_TIMEOUT_S, f"a response from {name}")
        yield process, url
    except BaseException:
        sys.stderr.write(process.report)
        raise
    finally:
        process.stop()


def _answers(process, url):
    process.assert_alive()
    try:
        return requests.get(f"{url}/v1/models", timeout=5).ok
    except requests.RequestException:
        return False
