"""The servers to compare: Everstream, and `vllm serve` with its Python and Rust front ends.

Each has its own engine, with the same arguments (`harness.vllm_serve` says what else is the same). Each server writes
its output to its own folder.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import cpu, load, rust_front_end
from everstream.settings import PROJECT_ROOT, load_settings
from harness.stack import running_stack
from harness.vllm_serve import running_vllm_serve

MAX_STREAMS = 256


@dataclass
class Server:
    """`groups` returns the pids of the front-end processes, by role."""

    name: str
    url: str
    api: load.Api
    groups: Callable[[], dict[str, list[int]]]


def engine_args(kv_cache):
    """The arguments of every engine, Everstream's included."""
    args = ["--max-model-len", "2048", "--max-num-seqs", str(MAX_STREAMS), "--disable-log-stats"]
    return [*args, "--gpu-memory-utilization", "0.1", "--kv-cache-memory-bytes", kv_cache, "--enforce-eager"]


@contextmanager
def started(model, kv_cache, folder):
    """Start all servers with one model."""
    with ExitStack() as stack:
        rust = rust_front_end.find(load_settings())
        servers = [
            stack.enter_context(everstream_alone(model, kv_cache, folder)),
            stack.enter_context(vllm_python(model, kv_cache, folder)),
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
def everstream_alone(model, kv_cache, folder, **more):
    """Start Everstream, configured as in the comparison, with more settings."""
    settings = {
        "MODEL": str(model),
        "ENGINE_ARGS": " ".join(engine_args(kv_cache)),
        "EVERSTREAM_MAX_RUNNING": str(MAX_STREAMS),
        # The defaults; the tests' stack uses shorter ones.
        "EVERSTREAM_LEASE_S": "10",
        "EVERSTREAM_HEARTBEAT_S": "15",
        **more,
    }
    with running_stack(_made(folder / "everstream"), app_dir=PROJECT_ROOT, **settings) as stack:

        def groups():
            return {
                "engine": cpu.front_end(stack.engines[0].pid),
                "Valkey": [stack.valkey.pid],
                "web": cpu.front_end(stack.web.pid),
            }

        yield Server("Everstream", stack.url, load.Api("completions", Path(model).name), groups)


def vllm_python(model, kv_cache, folder):
    """Start `vllm serve` with its Python front end."""
    return _vllm("vllm serve, Python", model, kv_cache, _made(folder / "python"))


@contextmanager
def _vllm(name, model, kv_cache, folder, **environ):
    with running_vllm_serve(name, model, "model", engine_args(kv_cache), folder, **environ) as (process, url):
        yield Server(name, url, load.Api("completions", "model"), lambda: {"front end": cpu.front_end(process.pid)})
