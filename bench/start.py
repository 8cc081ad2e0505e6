"""From a clone to a ready model: `python -m bench.start`.

Clones the last commit into an empty folder, with an empty home directory, and runs `make run` there twice: the first
run installs everything and builds the demo model, the second finds both. Measures the time until the page responds and
until /readyz reports a model. The setup for `make test` is timed in another clone, which uses uv's cache. Then compares
two ways to run vLLM on a CPU, alternating for `--rounds` rounds: forked and in one process, as Everstream does, and
vLLM's default. Prints tables and writes bench/results/start.json. Downloads about 1.5 GB and needs 8 GB of disk.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from bench import load
from everstream.settings import PLAIN_NAMES, PREFIX, PROJECT_ROOT
from harness.stack import Process, free_port, running_stack, wait_for

RESULTS = Path(__file__).parent / "results" / "start.json"
TIMEOUT_S = 900
STREAMS = 16
MAX_TOKENS = 128
WAYS = {"one process, forked": "", "vLLM's default": "--distributed-executor-backend mp"}


def clone(folder):
    subprocess.run(["git", "clone", "--quiet", str(PROJECT_ROOT), str(folder)], check=True)
    return folder


def stranger(home, **settings):
    """The environment of a user without any configuration."""
    ours = {"VIRTUAL_ENV", "XDG_CACHE_HOME", "XDG_STATE_HOME", "UV_CACHE_DIR", *PLAIN_NAMES.values()}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith(PREFIX)}
    kept["PATH"] = os.pathsep.join(
        path for path in kept["PATH"].split(os.pathsep) if not path.startswith(str(PROJECT_ROOT))
    )
    return kept | {"HOME": str(home), **settings}


@contextmanager
def make_run(folder, home):
    port = free_port()
    process = Process("make", ["make", "-C", str(folder), "run"], stranger(home, PORT=str(port)), home)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        for child in process.children() if process.popen.poll() is None else []:
            if "everstream run" in " ".join(child.cmdline()):
                child.send_signal(signal.SIGINT)
        process.popen.wait(60)


def answers(process, url):
    if process.popen.poll() is not None:
        raise RuntimeError(f"make run exited:\n{process.output}")
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def time_start(folder, home):
    """Seconds from `make run` until the page responds, and until a model is ready."""
    started = time.monotonic()
    with make_run(folder, home) as (process, url):
        wait_for(lambda: answers(process, url), TIMEOUT_S, "the page")
        page_s = time.monotonic() - started
        wait_for(lambda: answers(process, f"{url}/readyz"), TIMEOUT_S, "a ready model")
        return {"page_s": page_s, "ready_s": time.monotonic() - started}


def time_starts(folder):
    home = folder / "home"
    home.mkdir()
    here = clone(folder / "clone")
    found = {"first": time_start(here, home), "second": time_start(here, home)}
    started = time.monotonic()
    other = clone(folder / "other")
    subprocess.run(["make", "-C", str(other), "setup-dev"], env=stranger(home), check=True, stdout=subprocess.DEVNULL)
    return found | {"setup-dev": {"ready_s": time.monotonic() - started}}


def time_way(folder, arguments):
    """Start a stack with the demo model once, and measure its speed."""
    folder.mkdir()
    options = {"ENGINE_ARGS": f"--max-model-len 2048 {arguments}", "EVERSTREAM_HEARTBEAT_S": "15"}
    started = time.monotonic()
    with running_stack(folder, app_dir=PROJECT_ROOT, **options) as stack:
        ready_s = time.monotonic() - started
        engine = psutil.Process(stack.engines[0].pid)
        api = load.Api("completions", stack.readiness()["engines"][0]["model"])
        speeds = {streams: _speed(stack, api, streams) for streams in (1, STREAMS)}
        memory = sum(process.memory_full_info().pss for process in [engine, *engine.children(recursive=True)])
    return {"ready_s": ready_s, "pss_mb": memory / 1e6, **{f"tokens_per_s_{n}": speed for n, speed in speeds.items()}}


def _speed(stack, api, streams):
    """Tokens per second."""
    prompts = [f"{n}: why is the sky blue?" for n in range(streams)]
    return load.summary(load.run(stack.url, api, prompts, MAX_TOKENS, streams))["tokens_per_s"]


def table(rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="starts per way to run vLLM")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="everstream-bench-"))
    try:
        starts = time_starts(folder)
        tried = {name: [] for name in WAYS}
        for n in range(args.rounds):
            # Alternate which one goes first.
            for name in sorted(WAYS, reverse=bool(n % 2)):
                tried[name].append(time_way(folder / f"{n}-{name.partition(' ')[0]}", WAYS[name]))
    finally:
        shutil.rmtree(folder)
    ways = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]} for name, found in tried.items()
    }
    RESULTS.write_text(json.dumps({"options": vars(args), "starts": starts, "ways": ways}, indent=1) + "\n")
    heads = [("`make run`", "page responds", "model ready"), ("---", "---:", "---:")]
    print(
        table(
            heads
            + [
                (name, f"{starts[name]['page_s']:.0f} s", f"{starts[name]['ready_s']:.0f} s")
                for name in ("first", "second")
            ]
        )
    )
    print(f"\nsetup for `make test` in another clone: {starts['setup-dev']['ready_s']:.0f} s\n")
    heads = [("vLLM on the CPU", *WAYS), ("---", *("---:" for _ in WAYS))]
    rows = {
        "ready_s": "time to ready, s",
        "pss_mb": "memory of the engine and vLLM, MB",
        "tokens_per_s_1": "tokens/s, 1 stream",
    }
    rows[f"tokens_per_s_{STREAMS}"] = f"tokens/s, {STREAMS} streams"
    print(table(heads + [(text, *(f"{ways[name][key]:.0f}" for name in WAYS)) for key, text in rows.items()]))


if __name__ == "__main__":
    main()
