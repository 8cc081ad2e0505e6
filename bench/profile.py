"""Where a token's time goes: `python -m bench.profile --help`.

Everstream alone, with the tiny model and one number of streams. First a run that is only counted: for the engine
process, Valkey and the web workers the CPU in user mode and in the kernel, and how often they were switched to. Then a
run each under `py-spy` (the Python processes) and `perf` (all), whose shares of samples are given in microseconds per
token of the run that was only counted: profilers slow down what they watch.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import psutil

from bench import cpu, load, servers, tiny_model
from everstream.settings import REPO_ROOT, load_settings

PY_SPY = str(Path(sys.executable).with_name("py-spy"))
SAMPLES_PER_S = 500


class Profiled:
    """A server under a load that can be repeated."""

    def __init__(self, server, wanted):
        self.server, self.wanted = server, wanted
        self.groups = server.groups()
        inputs = {"flush_ms": wanted.flush_ms} if wanted.flush_ms else {}
        self._api = load.Api(server.api.name, server.api.model, **inputs)
        self._runs = 0

    def load(self, tokens):
        self._runs += 1
        prompts = [f"{self._runs}-{n}: why is the sky blue, and the sea?" for n in range(self.wanted.streams)]
        return load.run(self.server.url, self._api, prompts, tokens, self.wanted.streams)

    def under(self, commands):
        """Load for as long as these profilers watch."""
        profilers = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
        while any(profiler.poll() is None for profiler in profilers):
            self.load(self.wanted.tokens)
        for profiler in profilers:
            if profiler.returncode:
                raise SystemExit(f"{profiler.args[0]}: {profiler.stderr.read().decode()[-500:]}")


def usage(pids):
    """Of processes: seconds of user and system time, and context switches."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    switches, preempted = 0, 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary"):
                    switches += int(line.split()[1])
                if line.startswith("nonvoluntary"):
                    preempted += int(line.split()[1])
    return {
        "all_s": sum(cpu.cpu_s(pids).values()),
        "user_s": sum(t.user for t in times),
        "system_s": sum(t.system for t in times),
        "switches": switches,
        "preempted": preempted,
    }


def count(profiled):
    """Per part: CPU per token, share in the kernel, context switches per step."""
    before = {part: usage(pids) for part, pids in profiled.groups.items()}
    found = profiled.load(profiled.wanted.tokens * 3)
    rows = {}
    for part, pids in profiled.groups.items():
        used = {name: value - before[part][name] for name, value in usage(pids).items()}
        rows[part] = {
            "us": 1e6 * used["all_s"] / found["tokens"],
            "system": used["system_s"] / max(1e-9, used["user_s"] + used["system_s"]),
            "switches": used["switches"] / (found["tokens"] / profiled.wanted.streams),
            "preempted": used["preempted"] / (found["tokens"] / profiled.wanted.streams),
        }
    return rows, found


def functions(profiled, part, folder):
    """Shares of py-spy's samples, by innermost function."""
    files = {pid: folder / f"{pid}.txt" for pid in profiled.groups[part]}
    options = ["record", "--format", "raw", "--rate", str(SAMPLES_PER_S), "--duration", str(profiled.wanted.seconds)]
    profiled.under([[PY_SPY, *options, *profiled.wanted.native, "--pid", str(pid), "--output", str(path)] for pid, path in files.items()])
    shares, stacks = Counter(), Counter()
    for path in files.values():
        for line in path.read_text().splitlines():
            stack, _, samples = line.rpartition(" ")
            stacks[stack] += int(samples)
            shares[stack.rpartition(";")[2]] += int(samples)
    return shares, stacks


def symbols(profiled, part, folder):
    path = folder / "perf.data"
    pids = ",".join(map(str, profiled.groups[part]))
    profiled.under([["perf", "record", "-q", "-o", str(path), "-F", "999", "-p", pids, "--", "sleep", str(profiled.wanted.seconds)]])
    report = subprocess.run(
        ["perf", "report", "-q", "-i", str(path), "--sort", "dso,symbol", "--stdio", "-t", "|"], capture_output=True, text=True, check=True
    ).stdout
    shares = Counter()
    for line in report.splitlines():
        if line.strip():
            share, _, rest = line.strip().partition("|")
            shares[" ".join(rest.replace("|", " ").split())] += float(share.strip().rstrip("%"))
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--flush-ms", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--native", action="store_const", const=["--native"], default=[])
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="everstream-bench-") as name, servers.everstream_alone(tiny_model.build(load_settings()), "1G", Path(name)) as server:
        profiled = Profiled(server, wanted)
        profiled.load(16)
        rows, found = count(profiled)
        print({k: v for k, v in load.summary(found).items()})
        for part, row in rows.items():
            print(part, {k: round(v, 2) for k, v in row.items()}, flush=True)
        for part in profiled.groups:
            us = rows[part]["us"]
            shares = symbols(profiled, part, Path(name))
            print(f"\n== {part} perf ({us:.1f})")
            for symbol, share in shares.most_common(wanted.top):
                print(f"{us * share / 100:6.2f}  {symbol}")
            if part == "Valkey":
                continue
            shares, stacks = functions(profiled, part, Path(name))
            total = sum(shares.values())
            print(f"\n== {part} py-spy")
            for function, samples in shares.most_common(wanted.top):
                print(f"{us * samples / total:6.2f}  {function}")
            (Path("/tmp") / f"stacks-{part}.txt").write_text("\n".join(f"{s} {n}" for s, n in stacks.most_common()))


if __name__ == "__main__":
    main()
