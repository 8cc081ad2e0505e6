"""Whether web workers should preempt the engine: `python -m bench.scheduling`.

Runs Everstream alone with the tiny model, switching its web workers between the scheduling policies SCHED_BATCH, which
they normally use, and SCHED_OTHER. Prints medians.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from bench import servers, tiny_model
from bench.front_ends import Side
from everstream.settings import load_settings

FIGURES = ("cpu_us_per_token", "tokens_per_s", "ttft_ms_median", "itl_ms_p99")


def schedule(pids, policy):
    for pid in pids:
        os.sched_setscheduler(pid, policy, os.sched_param(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=(1, 16, 64, 128))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400)
    args = parser.parse_args()
    policies = [("SCHED_BATCH", os.SCHED_BATCH), ("SCHED_OTHER", os.SCHED_OTHER)]
    print("| streams | web workers | " + " | ".join(FIGURES) + " |\n|---:|---|" + "---:|" * len(FIGURES))
    with (
        tempfile.TemporaryDirectory(prefix="everstream-bench-") as folder,
        servers.everstream_alone(tiny_model.build(load_settings()), "1G", Path(folder)) as server,
    ):
        side = Side(server, "Everstream")
        side.measure("warm", 16, 16)
        for streams in args.streams:
            found = {name: [] for name, _ in policies}
            for n in range(args.rounds):
                for name, policy in policies[:: -1 if n % 2 else 1]:
                    schedule(server.groups()["web"], policy)
                    found[name].append(side.measure(f"{streams}-{n}-{name}", streams, args.tokens))
            for name, runs in found.items():
                medians = (statistics.median(run[figure] for run in runs) for figure in FIGURES)
                print(f"| {streams} | {name} | " + " | ".join(f"{value:.1f}" for value in medians) + " |", flush=True)


if __name__ == "__main__":
    main()
