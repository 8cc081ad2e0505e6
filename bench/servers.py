"""The servers that are compared: Everstream, and `vllm serve` with its front ends in Python and in Rust.

Each has an engine of its own, with the same arguments. In vLLM's processes, waiting is sleeping instead of spinning for
all of them alike (`everstream.vllm_plugin` says why). Each server runs from a folder of its own for what it prints.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from bench import cpu, load, rust_front_end
from everstream.settings import REPO_ROOT, load_settings
from everstream.vllm_plugin import SLEEP_VARIABLE
from tests.stack import Process, free_port, running_stack, wait_for

START_TIMEOUT_S = 300
MAX_STREAMS = 256


@dataclass
class Server:
    """`groups` gives the processes that are its front end, by what they are."""

    name: str
    url: str
    api: load.Api
    groups: Callable[[], dict[str, list[int]]]


def engine_args(kv_cache):
    """What each engine is told, Everstream's included."""
    args = ["--max-model-len", "2048", "--max-num-seqs", str(MAX_STREAMS), "--disable-log-stats"]
    return [*args, "--gpu-memory-utilization", "0.1", "--kv-cache-memory-bytes", kv_cache, "--enforce-eager"]


@contextmanager
def started(model, kv_cache, folder):
    """All servers with one model, in one order."""
    with ExitStack() as stack:
        rust = rust_front_end.find(load_settings())
        servers = [
            stack.enter_context(everstream_alone(model, kv_cache, folder)),
            stack.enter_context(_vllm("vllm serve, Python", model, kv_cache, _made(folder / "python"))),
        ]
        if rust is not None:
            environ = {"VLLM_USE_RUST_FRONTEND": "1", "VLLM_RUST_FRONTEND_PATH": str(rust)}
            servers.append(
                stack.enter_context(_vllm("vllm serve, Rust", model, kv_cache, _made(folder / "rust"), **environ))
            )
        yield servers


def _made(folder):
    folder.mkdir(parents=True)
    return folder


@contextmanager
def everstream_alone(model, kv_cache, folder):
    """Everstream, as it is among the others."""
    settings = {
        "MODEL": str(model),
        "ENGINE_ARGS": " ".join(engine_args(kv_cache)),
        "EVERSTREAM_MAX_RUNNING": str(MAX_STREAMS),
        # As they are by default; the tests' stack has shorter ones.
        "EVERSTREAM_LEASE_S": "10",
        "EVERSTREAM_HEARTBEAT_S": "15",
    }
    with running_stack(_made(folder / "everstream"), app_dir=REPO_ROOT, **settings) as stack:

        def groups():
            return {
                "engine": cpu.front_end(stack.engines[0].pid),
                "Valkey": [stack.valkey.pid],
                "web": cpu.front_end(stack.web.pid),
            }

        yield Server("Everstream", stack.url, load.Api("completions", Path(model).name), groups)


@contextmanager
def _vllm(name, model, kv_cache, folder, **environ):
    port = free_port()
    command = [str(REPO_ROOT / ".venv/bin/python"), "-m", "bench.vllm_serve", "serve", str(model)]
    command += ["--served-model-name", "model", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--disable-uvicorn-access-log", *engine_args(kv_cache)]
    # The model runs inside EngineCore, as with Everstream (`everstream.vllm_start`).
    command += ["--distributed-executor-backend", "uni"]
    quiet = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    quiet[SLEEP_VARIABLE] = "1"
    process = Process("vllm", command, os.environ | quiet | environ, folder)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(process, url), START_TIMEOUT_S, f"an answer of {name}")
        yield Server(name, url, load.Api("completions", "model"), lambda: {"front end": cpu.front_end(process.pid)})
    except BaseException:
        print(process.output[-3000:])
        raise
    finally:
        process.stop()


def _answers(process, url):
    if process.popen.poll() is not None:
        raise RuntimeError(f"it ended with status {process.popen.returncode}")
    try:
        return requests.get(f"{url}/v1/models", timeout=5).ok
    except requests.RequestException:
        return False
