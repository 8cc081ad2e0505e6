"""Batches for a log, for tests that append without a `Writer`."""

from everstream.log.engine_log import Batch
from everstream.log.entries import encode_lines, encode_live


def batch_at(log, generation, first, entries, *end):
    """The entries, each (entry, resume), from n = `first` of a log that holds these bytes. `end`: what else a `Batch`
    has."""
    before = log.split(b"\n")[: first - 1]
    lines = encode_lines(first, entries)
    length = sum(len(line) + 1 for line in before) + len(lines)
    live = encode_live(generation.encode(), first, [entry for entry, _ in entries])
    return Batch(generation, first, live, lines, length, *end)
