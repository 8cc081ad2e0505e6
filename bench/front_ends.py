"""What a token costs: Everstream compared with vLLM's servers. `make bench`, or `python -m bench.front_ends --help`.

For each model all servers run at the same time, each with its own engine. The same load generator (`bench.load`,
/v1/completions) sends each in turn the same requests, in a different order each round; the figures are medians over the
rounds. CPU covers everything except vLLM's EngineCore and worker: for Everstream the engine process, Valkey and the web
workers. Prints tables, and writes bench/results/front_ends.json and plots.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from bench import cpu, load, plots, servers, tiny_model
from bench.overhead import prompts
from everstream.llm import demo_model
from everstream.settings import load_settings

RESULTS = Path(__file__).parent / "results"
STREAMS = (1, 16, 64, 128, 256)
FLUSH_MS = 33
"""30 events a second, as a page needs."""
PACED = f"Everstream, flush_ms={FLUSH_MS}"
REQUESTS_OF_ONE = 5
"""Sequential requests when there is one stream at a time, as a median of one would mean little."""
FIGURES = {
    "cpu_us_per_token": "CPU µs per token",
    "tokens_per_s": "tokens/s",
    "ttft_ms_median": "TTFT median, ms",
    "ttft_ms_p99": "TTFT p99, ms",
    "itl_ms_median": "ITL median, ms",
    "itl_ms_p99": "ITL p99, ms",
    "tokens_per_event": "tokens per event",
    "resident_mb": "resident, MB",
}


class Side:
    """A server with one set of request parameters."""

    def __init__(self, server, name, **inputs):
        self.server, self.name = server, name
        self.api = load.Api(server.api.name, server.api.model, **inputs)

    def measure(self, salt, streams, tokens):
        requests = REQUESTS_OF_ONE if streams == 1 else streams
        groups = self.server.groups()
        before = {group: cpu.cpu_s(pids) for group, pids in groups.items()}
        found = load.run(self.server.url, self.api, prompts(requests, salt), tokens, streams)
        used_us = {
            group: 1e6 * (sum(cpu.cpu_s(pids).values()) - sum(before[group].values())) / max(1, found["tokens"])
            for group, pids in groups.items()
        }
        if found["wrong"] or found["tokens"] != requests * tokens:
            raise SystemExit(f"{self.name}: {found['tokens']} tokens of {requests * tokens}; {found['wrong']}")
        measured = load.summary(found)
        return {
            **{name: measured[name] for name in FIGURES if name in measured},
            "cpu_us_per_token": sum(used_us.values()),
            "cpu_us_by_part": used_us,
            "resident_mb": cpu.resident_mb([pid for pids in groups.values() for pid in pids]),
        }


def sides_of(found):
    """Includes Everstream twice: with one event per token, and with coalescing."""
    everstream, *others = found
    return [Side(everstream, "Everstream"), Side(everstream, PACED, flush_ms=FLUSH_MS)] + [
        Side(server, server.name) for server in others
    ]


def compare(model, kv_cache, args, tokens):
    """The median of each figure, by number of streams and side."""
    with (
        tempfile.TemporaryDirectory(prefix="everstream-bench-") as folder,
        servers.started(model, kv_cache, Path(folder)) as found,
    ):
        sides = sides_of(found)
        for side in sides:
            side.measure("warm", 16, 16)
        return {streams: rounds_of(sides, streams, tokens, args.rounds) for streams in args.streams}


def rounds_of(sides, streams, tokens, rounds):
    """The median of each figure, by side."""
    measured = {side.name: [] for side in sides}
    for n in range(rounds):
        # Rotate, so that each side is first and last about equally often.
        turn = n % len(sides)
        for side in sides[turn:] + sides[:turn]:
            measured[side.name].append(side.measure(f"{streams}-{n}-{side.name}", streams, tokens))
    return {name: _medians(found) for name, found in measured.items()}


def _medians(found):
    medians = {figure: statistics.median(each[figure] for each in found) for figure in FIGURES}
    parts = found[0]["cpu_us_by_part"]
    by_part = {part: statistics.median(each["cpu_us_by_part"][part] for each in found) for part in parts}
    return {**medians, "cpu_us_by_part": by_part}


def table(found):
    """A Markdown table, grouped by number of streams."""
    lines = ["| streams | server | " + " | ".join(FIGURES.values()) + " |", "|---:|---|" + "---:|" * len(FIGURES)]
    for streams, by_side in found.items():
        for side, figures in by_side.items():
            cells = " | ".join(f"{figures[name]:.{2 if name == 'tokens_per_event' else 1}f}" for name in FIGURES)
            lines.append(f"| {streams} | {side} | {cells} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS)
    parser.add_argument("--models", nargs="+", default=["tiny", "smollm2"], choices=["tiny", "smollm2"])
    parser.add_argument("--tokens", type=int, default=400, help="per stream of the tiny model (400)")
    parser.add_argument("--smollm2-tokens", type=int, default=100, help="per stream of SmolLM2-135M (100)")
    args = parser.parse_args()
    load.allow_files(servers.MAX_STREAMS + 100)
    settings = load_settings()
    runs = {
        "tiny": lambda: compare(tiny_model.build(settings), "1G", args, args.tokens),
        "smollm2": lambda: compare(demo_model.build(settings), "3G", args, args.smollm2_tokens),
    }
    found = {}
    for model in args.models:
        found[model] = runs[model]()
        print(f"\n{model}\n\n{table(found[model])}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "front_ends.json").write_text(json.dumps({"options": vars(args), "found": found}, indent=1) + "\n")
    for model, by_streams in found.items():
        plots.by_streams(by_streams, "cpu_us_per_token", f"CPU µs per token, {model}", RESULTS / f"cpu-{model}.png")
        plots.by_streams(by_streams, "tokens_per_s", f"tokens/s, {model}", RESULTS / f"tokens-{model}.png")


if __name__ == "__main__":
    main()
