"""What it costs if the parts of Everstream are in CPU control groups of their own, as containers and systemd's services
are: `python -m bench.scheduling`, as root.

While all cores are busy, the kernel first divides them between groups, by weight. A web process that wakes up may then
wait long for a core that the engine's threads hold, if those are in another group. Runs Everstream alone with the tiny
model, and moves its processes between three arrangements: one group for all; three of equal weight; three in which web
and Valkey have `WEIGHT` times the engine's. Prints medians, and the worst TTFT.
"""

import argparse
import os
import statistics
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bench import servers, tiny_model
from bench.front_ends import Side
from everstream.settings import load_settings

FIGURES = ("cpu_us_per_token", "tokens_per_s", "ttft_ms_median", "ttft_ms_p99", "itl_ms_p99")
WEIGHT = 8
"""As in docker-compose.yml and deploy/systemd."""
ARRANGEMENTS = {
    "one group": dict.fromkeys(("engine", "Valkey", "web"), "one"),
    "three, equal": {"engine": "one", "Valkey": "valkey", "web": "web"},
    f"three, 1 : {WEIGHT} : {WEIGHT}": {"engine": "one", "Valkey": "heavy-valkey", "web": "heavy-web"},
}


def _parent():
    """The folder in which groups are made, and what gives a group `WEIGHT` times the normal weight."""
    unified = Path("/sys/fs/cgroup")
    if (unified / "cgroup.controllers").exists():
        (unified / "cgroup.subtree_control").write_text("+cpu")
        return unified, "cpu.weight", WEIGHT * 100
    return unified / "cpu", "cpu.shares", WEIGHT * 1024


@contextmanager
def control_groups():
    """Make the groups, and yield a function that moves processes to one."""
    parent, file, heavy = _parent()
    names = {name for arrangement in ARRANGEMENTS.values() for name in arrangement.values()}
    folders = {name: parent / f"everstream-bench-{os.getpid()}-{name}" for name in names}
    try:
        for name, folder in folders.items():
            folder.mkdir()
            if name.startswith("heavy"):
                (folder / file).write_text(str(heavy))
        yield lambda name, pids: _move(folders[name], pids)
    finally:
        for folder in folders.values():
            with suppress(FileNotFoundError):
                _move(parent, map(int, (folder / "cgroup.procs").read_text().split()))
                folder.rmdir()


def _move(folder, pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            (folder / "cgroup.procs").write_text(str(pid))


def with_children(pids):
    return [*pids, *(child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=(16, 64, 128))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    args = parser.parse_args()
    print("| streams | groups | " + " | ".join(FIGURES) + " | worst ttft |\n|---:|---|" + "---:|" * (len(FIGURES) + 1))
    with (
        tempfile.TemporaryDirectory(prefix="everstream-bench-") as folder,
        servers.everstream_alone(tiny_model.build(load_settings()), "1G", Path(folder)) as server,
        control_groups() as move,
    ):
        side = Side(server, "Everstream")
        side.measure("warm", 16, 16)
        for streams in args.streams:
            found = {name: [] for name in ARRANGEMENTS}
            for n in range(args.rounds):
                for name in list(ARRANGEMENTS)[:: -1 if n % 2 else 1]:
                    for part, pids in server.groups().items():
                        move(ARRANGEMENTS[name][part], with_children(pids))
                    found[name].append(side.measure(f"{streams}-{n}-{name}", streams, args.tokens))
            for name, runs in found.items():
                medians = (statistics.median(run[figure] for run in runs) for figure in FIGURES)
                worst = max(run["ttft_ms_p99"] for run in runs)
                cells = " | ".join(f"{value:.1f}" for value in (*medians, worst))
                print(f"| {streams} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
