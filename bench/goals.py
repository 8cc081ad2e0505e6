"""Compares the goals with the results of the last `make bench`: `python -m bench.goals`. Reads bench/results/.

Prints a table with missed goals in bold.
"""

import json
from pathlib import Path

from bench import topics
from bench.front_ends import PACED

RESULTS = Path(__file__).parent / "results"
OURS, PYTHON, RUST = "Everstream", "vllm serve, Python", "vllm serve, Rust"
AT_MOST, AT_LEAST = "≤", "≥"


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


class Goal:
    """Each of `values` must be at most, or at least, `bound`. `unit` is appended when they are printed."""

    def __init__(self, what, relation, bound, values, unit=""):
        self.what, self.relation, self.bound, self.values, self.unit = what, relation, bound, values, unit

    def is_met_by(self, value):
        return value <= self.bound if self.relation == AT_MOST else value >= self.bound

    @property
    def row(self):
        found = ", ".join(self._shown(value) for value in self.values)
        return f"| {self.what} | {self.relation} {self.bound:,}{self.unit} | {found}{self.unit} |"

    def _shown(self, value):
        text = f"{value:,.2f}" if isinstance(value, float) and value < 10 else f"{value:,.0f}"
        return text if self.is_met_by(value) else f"**{text}**"


def ratios(found, figure, side, other, streams=None):
    """One side's figure divided by another's, for each number of streams."""
    return [
        by_side[side][figure] / by_side[other][figure]
        for number, by_side in found.items()
        if other in by_side and (streams is None or int(number) in streams)
    ]


def front_ends(found):
    """The goals relative to vLLM's own servers, from the results of `bench.front_ends`."""
    tiny, cpu = found["tiny"], "cpu_us_per_token"
    of_python = "CPU per token vs `vllm serve` Python, tiny model"
    yield Goal(f"{of_python}, 64 and 128 streams", AT_MOST, 0.5, ratios(tiny, cpu, OURS, PYTHON, (64, 128)))
    yield Goal(f"{of_python}, 1 stream", AT_MOST, 1.3, ratios(tiny, cpu, OURS, PYTHON, (1,)))
    yield Goal("the same vs Rust, 64 and 128", AT_MOST, 1.5, ratios(tiny, cpu, OURS, RUST, (64, 128)))
    yield Goal(f"{PACED} vs Rust, 64, 128, 256", AT_MOST, 1.0, ratios(tiny, cpu, PACED, RUST, (64, 128, 256)))
    rate = ratios(tiny, "tokens_per_s", OURS, RUST, (64, 128))
    yield Goal("tokens/s vs Rust, tiny model, 64 and 128", AT_LEAST, 0.95, rate)
    for model, by_streams in found.items():
        numbers = ", ".join(by_streams)
        for what, figure, relation, bound in (
            ("tokens/s", "tokens_per_s", AT_LEAST, 1.0),
            ("TTFT median", "ttft_ms_median", AT_MOST, 1.05),
            ("TTFT p99", "ttft_ms_p99", AT_MOST, 1.05),
        ):
            title = f"{what} vs `vllm serve` Python, {model}, {numbers} streams"
            yield Goal(title, relation, bound, ratios(by_streams, figure, OURS, PYTHON))


def log(shapes, takeover):
    """The goals of `bench.log_shapes` and `bench.takeover`."""
    entry_us = shapes["ours"]["Valkey, CPU µs per entry"]
    yield Goal("Valkey's CPU per entry, 64 per commit, on disk before it is answered", AT_MOST, 4, [entry_us], " µs")
    claimed_s = takeover["claimed"]
    title = "a dead engine's 1,000 generations claimed by another, after the lease"
    yield Goal(title, AT_MOST, 0.5, [claimed_s], " s")


def many_streams(hold, kill):
    """The goals of `bench.hold` and `bench.kill`."""
    yield Goal("live streams held by one web worker", AT_LEAST, 15_000, [hold["streams held to the end"]])
    yield Goal("of them dropped or sent anything wrong", AT_MOST, 0, [hold["dropped, or told anything wrong"]])
    yield Goal("user-space memory per stream", AT_MOST, 20, [hold["KB of user-space memory per stream"]], " KB")
    late = hold["append to socket, p99 ms"]
    yield Goal("p99 from append to socket, 1 % of streams active", AT_MOST, 250, [late], " ms")
    held = kill["streams of the killed worker"]
    back_s = kill["back: all after, s"]
    yield Goal(f"kill a worker with {held:,} streams: all resumed on the others within", AT_MOST, 2.5, [back_s], " s")
    wrong = kill["lost"] + kill["repeated, or told anything wrong"]
    yield Goal("tokens lost or repeated by that", AT_MOST, 0, [wrong])


def viewers(cpu):
    """The goals of `bench.fan_out`."""
    for other, bound in (("sse-starlette", 0.5), ("nginx with nchan", 2)):
        if other in cpu:
            title = f"one generation to 1,000 viewers: CPU per delivered event vs {other}"
            yield Goal(title, AT_MOST, bound, [cpu[OURS] / cpu[other]])


def topic_followers(found):
    """The goals of `bench.topics`."""
    ours = found[OURS]
    for scenario, what in (
        (topics.ONE, "one topic to 1,000 followers"),
        (topics.MANY, "1,000 topics, 10 followers each"),
    ):
        used = {name: topics.median_cpu_us(each, scenario) for name, each in found.items() if scenario in each}
        for other, bound in (("nchan", 1.0), ("nchan with Valkey", 0.5), ("Durable Streams", 0.5)):
            if other in used:
                title = f"{what}: CPU per delivered event vs {other}"
                yield Goal(title, AT_MOST, bound, [used[OURS] / used[other]])
    turns = [each for name in topics.DELIVERING for each in ours.get(name, ())]
    wrong = sum(each["lost"] + each["repeated"] + each["cut"] for each in turns)
    yield Goal("messages lost or repeated, and followers cut, by that", AT_MOST, 0, [wrong])


def main():
    print("| | goal | measured |\n|---|---|---|")
    goals = [
        *front_ends(read("front_ends")["found"]),
        *log(read("log_shapes")["found"], read("takeover")["found"]),
        *many_streams(read("hold")["found"], read("kill")["found"]),
        *viewers(read("fan_out")["medians"]),
        *topic_followers(read("topics")["found"]),
    ]
    print("\n".join(goal.row for goal in goals))


if __name__ == "__main__":
    main()
