"""How the cost of a token grows: `make bench`, or `python -m bench.scaling --help`.

Everstream alone with the tiny model, as in `bench.front_ends`: CPU of the engine process, Valkey and the web workers,
by the number of generations that run at a time and the number of web workers. Prints a table, and writes
bench/results/scaling.json and a plot.
"""

import argparse
import json
import tempfile
from pathlib import Path

from bench import load, plots, servers, tiny_model
from bench.front_ends import RESULTS, Side, rounds_of
from everstream.settings import load_settings

GENERATIONS = (1, 4, 16, 64, 256)
WORKERS = (1, 2, 4)


def measure(model, workers, args):
    """The figures by number of generations."""
    name = f"{workers} web worker{'s' * (workers > 1)}"
    with (
        tempfile.TemporaryDirectory(prefix="everstream-bench-") as folder,
        servers.everstream_alone(model, "1G", Path(folder), WEB_CONCURRENCY=str(workers)) as server,
    ):
        side = Side(server, name)
        side.measure("warm", 16, 16)
        return {streams: rounds_of([side], streams, args.tokens, args.rounds) for streams in args.generations}


def table(found):
    lines = [
        "| generations | web workers | CPU µs per token | engine | Valkey | web |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for streams, by_workers in found.items():
        for workers, figures in by_workers.items():
            parts = (figures["cpu_us_per_token"], *figures["cpu_us_by_part"].values())
            lines.append(f"| {streams} | {workers} | " + " | ".join(f"{us:.1f}" for us in parts) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--generations", type=int, nargs="+", default=GENERATIONS)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--tokens", type=int, default=400)
    args = parser.parse_args()
    load.allow_files(servers.MAX_STREAMS + 100)
    model = tiny_model.build(load_settings())
    runs = [measure(model, workers, args) for workers in args.workers]
    found = {
        streams: {name: each for run in runs for name, each in run[streams].items()} for streams in args.generations
    }
    print(table(found))
    (RESULTS / "scaling.json").write_text(json.dumps({"options": vars(args), "found": found}, indent=1) + "\n")
    plots.by_streams(found, "cpu_us_per_token", "CPU µs per token, by web workers", RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
