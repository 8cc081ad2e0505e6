"""`everstream publish`: the exit status says whether the service has acknowledged everything."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from everstream.client import Publisher
from everstream.topic_commands.lines import data_of, read_lines

TIMEOUT_S = 30.0
WAIT_S = 1.0


class Refused(Exception):
    """The service refuses messages; a warning has said why."""


def main(given: argparse.Namespace, url: str, headers: dict[str, str]) -> int:
    is_piped = given.data == "-"
    timeout_s = given.timeout or (None if is_piped else TIMEOUT_S)
    publisher = Publisher(url, headers=headers, stops_when_refused=True)
    is_whole = True
    try:
        for text in read_lines(sys.stdin.buffer) if is_piped else [given.data]:
            publish(publisher, given, data_of(text, given.kind), given.id, timeout_s)
        is_whole = publisher.flush(timeout_s)
    except Refused:
        is_whole = False
    finally:
        publisher.close()
        report(publisher)
    return int(not is_whole)


def publish(
    publisher: Publisher, given: argparse.Namespace, data: Any, message_id: str | None, timeout_s: float | None
) -> None:
    """Publish, and wait if many messages wait. Raises Refused, TimeoutError."""
    publisher.publish(given.topic, data, event=given.event, id=message_id, ttl_s=given.ttl)
    for left_s in _seconds(timeout_s):
        if publisher.stats().refused:
            raise Refused
        if publisher.wait_for_room(left_s):
            return
    raise TimeoutError(f"nothing was acknowledged for {timeout_s:g} s")


def report(publisher: Publisher) -> None:
    stats = publisher.stats()
    if missing := stats.published - stats.acknowledged:
        sys.stderr.write(f"everstream: {missing} of {stats.published} messages are not acknowledged\n")


def _seconds(timeout_s: float | None) -> Iterator[float]:
    """The time in steps, between which to look around."""
    while timeout_s is None or timeout_s > 0:
        step = WAIT_S if timeout_s is None else min(WAIT_S, timeout_s)
        yield step
        timeout_s = None if timeout_s is None else timeout_s - step
