"""CPU time of processes, to the nanosecond, and their memory. Linux only."""

from pathlib import Path

import psutil

ENGINE_CORE = "VLLM::"
"""Prefix of vLLM's EngineCore and worker process titles."""


def cpu_s(pids):
    """CPU seconds of each process, by pid. Excludes threads that have ended."""
    return {pid: sum(_thread_ns(task) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9 for pid in pids}


def _thread_ns(task):
    # /proc/<pid>/stat counts in ticks of 10 ms, too coarse for a few hundred tokens.
    try:
        return int((task / "schedstat").read_text().split()[0])
    except FileNotFoundError:
        return 0


def front_end(root_pid):
    """The pids of a server's processes, except vLLM's EngineCore and workers."""
    family = [psutil.Process(root_pid), *psutil.Process(root_pid).children(recursive=True)]
    return [process.pid for process in family if ENGINE_CORE not in " ".join(process.cmdline())]


def resident_mb(pids):
    """Proportional set size, which counts shared memory once."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 1e6
