"""Publish and subscribe over SSE: Everstream's topics beside other servers. `python -m bench.topics`.

All servers (`bench.topic_servers`) run at the same time and take turns in rotating rounds, with the same messages at
the same rates, each one POST, acknowledged before the next. There are 1,000 topics with 10 followers each, held beside
5,000 followers that get nothing; then one topic with 1,000. CPU covers all processes of a server, its Valkey included,
less what they take while others have their turns. Prints tables and writes bench/results/topics.json. A server that
can't be installed is named, with the reason.
"""

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import cpu, load, topic_servers
from bench.topic_contestant import Contestant

RESULTS = Path(__file__).parent / "results" / "topics.json"
OURS = "Everstream"
HELD, MANY, TOGETHER, ALONE = "held", "many topics", "many topics, published together", "publishing alone"
ONE, SATURATED = "one topic", "saturated"
AT_ONCE = 10
"""Messages per POST, where a server takes several."""
KEPT_UP = 1.2
"""A turn that takes this much longer than it should is not at the rate that the table names."""
DELIVERING = (MANY, TOGETHER, ONE, SATURATED)
TOPIC = "bench/one"


class Comparison:
    """`found` has the figures by server and scenario, `absent` the reasons by server."""

    def __init__(self, args, folder, stack):
        self._args, self.found = args, {}
        self.absent, self._contestants = dict(topic_servers.NOT_PACKAGED), []
        for kind in topic_servers.SERVERS:
            if args.only and kind.name not in args.only:
                continue
            try:
                server = kind(folder / kind.__name__, args.held)
            except (topic_servers.Missing, AssertionError) as error:
                self._leave_out(kind.name, error)
                continue
            self._contestants.append(Contestant(server))
            stack.callback(self._contestants[-1].stop)
            self.found[kind.name] = {"history": kind.history}

    def _leave_out(self, name, error):
        self.absent[name] = str(error).partition("\n")[0]
        print(f"{name} is left out: {error}", file=sys.stderr)

    def _each(self, scenario, act):
        """Let each server take its turn. One that fails is left out from then on."""
        for contestant in list(self._contestants):
            name = contestant.server.name
            try:
                figures = act(contestant)
            except (OSError, EOFError, AssertionError) as error:
                self._contestants.remove(contestant)
                contestant.stop()
                self._leave_out(name, f"{scenario}: {error!r}")
            else:
                if figures is not None:
                    self.found[name].setdefault(scenario, []).append(figures)

    def _rounds(self, turns):
        for _ in range(self._args.rounds):
            for scenario, act in turns.items():
                self._each(scenario, act)
            self._contestants = self._contestants[1:] + self._contestants[:1]

    def run(self):
        args = self._args
        topics = [f"bench/{n}" for n in range(max(args.topics, args.held // args.per_topic))]
        self._each(HELD, lambda each: _hold(each, topics, args.per_topic))
        followed = topics[: args.topics]
        self._rounds(
            {
                MANY: lambda each: each.turn(followed, args.rate_many, args.seconds),
                TOGETHER: lambda each: each.turn_together(followed, args.rate_many, args.seconds, AT_ONCE),
            }
        )
        self._each("resting", lambda each: each.meter.resting)
        self._each("closed", lambda each: each.close())
        self._each("opened", lambda each: each.open([TOPIC], args.followers))
        self._rounds(
            {
                ONE: lambda each: each.turn([TOPIC], args.rate_one, args.seconds),
                ALONE: lambda each: each.turn_alone(args.rate_many, args.seconds / 4),
            }
        )
        self._each("resting", lambda each: each.meter.resting)
        self._each(SATURATED, lambda each: each.saturate(TOPIC, args.seconds / 2))


def _hold(contestant, topics, each):
    """Open all followers of the many topics, and see what they take."""
    topics = topics[: contestant.server.most_followers // each]
    before_mb = cpu.resident_mb(contestant.server.pids)
    opened_s = contestant.open(topics, each)
    mb = cpu.resident_mb(contestant.server.pids) - before_mb
    return {"followers": len(topics) * each, "kb_each": 1000 * mb / (len(topics) * each), "opened_s": opened_s}


def cpu_us(figures, scenario):
    """By round, per delivered event; or, where nothing is delivered, per published one."""
    resting = figures["resting"][-1 if scenario in (ONE, ALONE, SATURATED) else 0]
    return [
        1e6 * (each["cpu_s"] - resting * each["s"]) / max(1, each.get("delivered", each.get("published")))
        for each in figures[scenario]
    ]


def median_cpu_us(figures, scenario):
    return statistics.median(cpu_us(figures, scenario))


def table(columns, rows):
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def one_topic(found, args):
    title = f"one topic, {args.followers:,} followers, {args.rate_one:g} messages/s"
    columns = [title, "CPU µs per delivered event", f"{OURS} relative to it", "median ms", "p99 ms"]
    columns += ["lost, repeated, cut", "at saturation: events/s", "CPU µs", "lost, repeated, cut"]
    return table(
        columns, (_row(found, name, ONE, args) + _saturated(found[name]) for name in found if ONE in found[name])
    )


def many_topics(found, args):
    title = f"{args.topics:,} topics, {args.per_topic} followers each, {args.rate_many:g} messages/s"
    columns = [title, "CPU µs per delivered event", f"{OURS} relative to it", "median ms", "p99 ms"]
    columns += ["lost, repeated, cut", "CPU µs per message that nobody gets"]
    rows = []
    for name, figures in found.items():
        if MANY in figures:
            rows.append(_row(found, name, MANY, args) + _alone(figures))
        if TOGETHER in figures:
            _, used, _, *cells = _row(found, name, TOGETHER, args)
            rows.append([f"{name}, {AT_ONCE} messages per request", used, "", *cells, ""])
    return table(columns, rows)


def held(found):
    columns = [
        "followers held",
        "number",
        "KB of memory each",
        "all got a message within, s",
        "CPU at rest, of one core",
        "history",
    ]
    rows = []
    for name, figures in found.items():
        for each in figures.get(HELD, ()):
            resting = max(0.0, figures.get("resting", [float("nan")])[0])
            cells = [f"{each['followers']:,}", f"{each['kb_each']:.1f}", f"{each['opened_s']:.1f}", f"{resting:.3f}"]
            rows.append([name, *cells, figures["history"]])
    return table(columns, rows)


def _row(found, name, scenario, args):
    rounds, used = found[name][scenario], median_cpu_us(found[name], scenario)
    ours = median_cpu_us(found[OURS], scenario) if scenario in found.get(OURS, {}) else float("nan")
    if (slow := max(each["s"] for each in rounds) / args.seconds) > KEPT_UP:
        name += f" (took {slow:.1f} times as long)"
    late = [statistics.median(each[figure] for each in rounds) for figure in ("median_ms", "p99_ms")]
    return [name, f"{used:.1f}", f"{ours / used:.2f}", *(f"{ms:.1f}" for ms in late), _wrong(rounds)]


def _wrong(rounds):
    lost, repeated = (sum(each[figure] for each in rounds) for figure in ("lost", "repeated"))
    return f"{lost:,}, {repeated:,}, {rounds[-1]['cut']:,}"


def _saturated(figures):
    if SATURATED not in figures:
        return ["", "", ""]
    rounds = figures[SATURATED]
    return [f"{rounds[0]['events_per_s']:,.0f}", f"{cpu_us(figures, SATURATED)[0]:.1f}", _wrong(rounds)]


def _alone(figures):
    return [f"{median_cpu_us(figures, ALONE):,.0f}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="of each turn (3)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--followers", type=int, default=1000, help="of the one topic (1000)")
    parser.add_argument("--topics", type=int, default=1000)
    parser.add_argument("--per-topic", type=int, default=10, help="followers of each of the many topics (10)")
    parser.add_argument("--held", type=int, default=15_000, help="all followers of many topics (15000)")
    parser.add_argument("--rate-one", type=float, default=10, help="messages/s to the one topic (10)")
    parser.add_argument("--rate-many", type=float, default=100, help="messages/s to the many topics together (100)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="compare only these servers")
    args = parser.parse_args()
    load.allow_files(20_000)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        comparison = Comparison(args, Path(folder), stack)
        comparison.run()
    found, absent = comparison.found, comparison.absent
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"options": vars(args), "found": found, "absent": absent}, indent=1) + "\n")
    print("\n".join([one_topic(found, args), many_topics(found, args), held(found)]))
    print("\n".join(f"Not measured: {name}, because {reason}." for name, reason in absent.items()))


if __name__ == "__main__":
    main()
