"""Reports a run's results as a Markdown table, as JSON, and as a list of violations.

In: the seed and each phase's `Result`. Out: text and data; no I/O.
"""

import statistics
from collections import Counter
from dataclasses import dataclass

from chaos.faults import KINDS

VIOLATIONS = ("lost", "duplicated", "stuck", "text", "wrongly ended", "other")


@dataclass(frozen=True)
class Row:
    """`total`: combines the phases' values; None if there is no meaningful total."""

    name: str
    of: callable
    total: callable = sum


def rows(results):
    """The table's rows, as (name, values per phase, total)."""
    kinds = [kind for kind in KINDS if any(fault.kind == kind for result in results for fault in result.faults)]
    table = [
        Row("duration, s", lambda result: round(result.duration_s)),
        Row("streams", lambda result: len(_streams(result))),
        Row("additional viewers of these", lambda result: len(result.readers) - len(_streams(result))),
        Row("peak concurrent readers", lambda result: result.most_at_once, max),
        *(Row(kind, _struck(kind)) for kind in kinds),
        Row("**kills that hit streams**", lambda result: len(kills(result))),
        Row("faults that hit no streams", lambda result: sum(not fault.hit for fault in result.faults)),
        Row("connections dropped by the client", lambda result: sum(reader.cuts for reader in result.readers)),
        Row("reconnects", lambda result: sum(max(reader.connections - 1, 0) for reader in result.readers)),
        Row("`resumed` events seen", lambda result: sum(reader.seen["resumed"] for reader in result.readers)),
        Row("longest pause between two events, s", lambda result: _longest(result, "longest_pause_s"), max),
        Row("median of each stream's longest pause, s", _typical_pause, None),
        Row("longest silence on an open connection, s", lambda result: _longest(result, "longest_silence_s"), max),
        Row("longest event-loop lag of the reader process, s", lambda result: round(result.lag_s, 1), max),
        Row("time from the last repair to the end of all streams, s", lambda result: round(result.drain_s, 1), max),
        Row("messages published to topics", lambda result: sum(each.acknowledged for each in _producers(result))),
        Row("deaths of their producers", lambda result: sum(each.deaths for each in _producers(result))),
        Row("followers of topics", lambda result: len(_followers(result))),
        Row("their reconnects", lambda result: sum(max(each.connections - 1, 0) for each in _followers(result))),
        *(Row(f"**{kind}**", _violating(kind)) for kind in VIOLATIONS),
        Row("**problems with the stack as a whole**", lambda result: len(problems(result))),
    ]
    for row in table:
        values = [row.of(result) for result in results]
        yield row.name, values, row.total(values) if row.total else ""


def markdown(seed, results):
    table = [(f"seed {seed}", [result.phase.name for result in results], "total"), *rows(results)]
    lines = ["| " + " | ".join(map(str, (name, *values, total))) + " |" for name, values, total in table]
    lines.insert(1, "|---" + "|---:" * (len(results) + 1) + "|")
    failures = [f"- {line}" for result in results for line in told(result)]
    return "\n".join([*lines, *(["", "Violations:", "", *failures] if failures else [])]) + "\n"


def told(result):
    """One line per problem or violation."""
    for follower in _followers(result):
        for kind, what in follower.violations:
            yield f"{result.phase.name}: follower {follower.name} of topics: {kind}: {what}"
    for problem in problems(result):
        yield f"{result.phase.name}: {problem}"
    for reader in result.readers:
        for kind, what in reader.violations:
            role = "viewer of stream" if reader.is_viewer else "stream"
            yield (
                f"{result.phase.name}: {role} {reader.plan.number} (prompt {reader.plan.prompt}, generation "
                f"{reader.generation or 'unknown'}, request {reader.request_id}): {kind}: {what}"
            )


def _producers(result):
    return result.topics.producers if result.topics else []


def _followers(result):
    return result.topics.followers if result.topics else []


def problems(result):
    return result.problems + [str(fault) for fault in result.faults if fault.error]


def is_clean(results):
    return not any(line for result in results for line in told(result))


def as_json(seed, results):
    return {"seed": seed, "clean": is_clean(results), "phases": [_phase_json(result) for result in results]}


def _phase_json(result):
    return {
        "name": result.phase.name,
        "duration_s": result.duration_s,
        "table": {name.strip("*"): value for name, (value,), _ in rows([result])},
        "faults": [
            {
                "kind": fault.kind,
                "engine": fault.engine,
                "struck_at_s": round(fault.struck_at_s, 2),
                "healed_at_s": round(fault.healed_at_s, 2),
                "streams": fault.streams,
                "error": fault.error,
            }
            for fault in result.faults
        ],
        "seen": sum((reader.seen for reader in result.readers), Counter()),
        "violations": list(told(result)),
    }


def kills(result):
    return [fault for fault in result.faults if KINDS[fault.kind].is_kill and fault.hit]


def _streams(result):
    return [reader for reader in result.readers if not reader.is_viewer]


def _struck(kind):
    return lambda result: sum(fault.kind == kind and fault.hit for fault in result.faults)


def _violating(kind):
    def count(result):
        return sum(
            any(each == kind for each, _ in reader.violations) for reader in [*result.readers, *_followers(result)]
        )

    return count


def _longest(result, field):
    return round(max((getattr(reader, field) for reader in result.readers), default=0.0), 1)


def _typical_pause(result):
    return round(statistics.median([reader.longest_pause_s for reader in _streams(result)] or [0.0]), 1)
