"""Counters and gauges for operators, with the help texts that `/metrics` shows. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

COUNTERS = {
    "streams": "event streams started",
    "resumes": "event streams resumed after an entry that the client had seen",
    "streams_refused": "event streams refused because the worker was at its limit",
    "streams_stalled": "connections cut because the client read nothing for the send timeout",
    "parameters_ignored": "fields of requests that were ignored because nothing here has them",
    "gaps_healed": "gaps in the live channel that were filled from the log",
    "entries_refused": "entries refused because another engine had the generation or it had ended",
    "leases_taken_over": "generations taken over from an engine whose lease had expired",
    "generations_started": "generations queued",
    "generations_done": "generations that ended by themselves",
    "generations_cancelled": "generations that were stopped or abandoned",
    "generations_failed": "generations that failed",
    "tokens_generated": "tokens that models generated, as far as they say how many",
    "topic_messages": "messages published to topics",
    "generations_evicted": "finished generations dropped early because the log was full",
}
"""Kept in the log, so they cover all processes for as long as the log lives."""


class Labelled(NamedTuple):
    help: str
    labels: tuple[str, ...]


LABELLED = {
    "http_requests": Labelled("HTTP requests, by route", ("method", "route", "status")),
    "generations_ended": Labelled("generations that engines ended, by code", ("model", "state", "code")),
    "prompt_tokens": Labelled("tokens of prompts, as far as models say how many", ("model", "key")),
    "answer_tokens": Labelled("tokens of answers, likewise", ("model", "key")),
    "prefix_cache_queries": Labelled("tokens of prompts that vLLM looked up in its cache", ("model",)),
    "prefix_cache_hits": Labelled("tokens of prompts that vLLM found there, so it need not compute them", ("model",)),
}
"""Counters with labels, whose values are in their names: see `field`."""
MAX_VALUE_CHARS = 100
SEPARATOR = "|"


def field(name: str, *values: str) -> str:
    """The log's name for a counter with these values of its labels."""
    return SEPARATOR.join((name, *(value.replace(SEPARATOR, "/")[:MAX_VALUE_CHARS] for value in values)))


def labelled(counters: Mapping[str, int]) -> dict[str, dict[tuple[str, ...], int]]:
    """All of LABELLED, by the values of their labels. `counters`: all that the log has, by name."""
    found: dict[str, dict[tuple[str, ...], int]] = {name: {} for name in LABELLED}
    for each, count in counters.items():
        name, *values = each.split(SEPARATOR)
        if name in found and len(values) == len(LABELLED[name].labels):
            found[name][tuple(values)] = count
    return found


GAUGES = {
    "engines": "engines with the model loaded",
    "generations_running": "generations that engines are running",
    "generations_queued": "generations that no engine has claimed",
    "streams_open": "event streams that are open",
    "log_bytes": "approximate size of the log in Valkey's memory",
    "topic_bytes": "approximate size of topics in Valkey's memory",
    "oldest_queued_seconds": "for how long the generation that was queued first has waited",
    "validations_waiting": "prompts that wait for an engine to check them",
}
