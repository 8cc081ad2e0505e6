"""The followers of topics. Each web process reports its own every few seconds, and a report expires, so the followers
of a process that was killed disappear soon."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec
import valkey

from everstream.log.keys import Keys
from everstream.log.scripts import load_script
from everstream.log.web_log import WebLog
from everstream.settings import Settings

TTL_S = 30.0
"""How long a report counts. A topic with a time to live does not expire while one does."""
MAX_NAMES = 200
"""The most names that are shown for one topic."""


class Named(msgspec.Struct, frozen=True):
    """`since`: Unix seconds."""

    name: str
    since: int


class Present(msgspec.Struct, frozen=True):
    """`followers`: all streams, and `present` those that have given a name, each name once."""

    followers: int = 0
    present: list[Named] = []


def joined(parts: Iterable[Present]) -> Present:
    """Of all processes."""
    followers, since = 0, dict[str, int]()
    for part in parts:
        followers += part.followers
        for each in part.present:
            since[each.name] = min(each.since, since.get(each.name, each.since))
    longest_first = sorted(since.items(), key=lambda each: (each[1], each[0]))
    return Present(followers, [Named(*each) for each in longest_first[:MAX_NAMES]])


class PresenceLog:
    """One per web process. Raises ValkeyErrors."""

    def __init__(self, settings: Settings, web_log: WebLog) -> None:
        self._keys = Keys(settings.namespace)
        client = valkey.Valkey(connection_pool=web_log.connection_pool)
        self._report = client.register_script(load_script("presence_report"))
        self._read = client.register_script(load_script("presence_read"))

    def report(self, worker: str, topics: Mapping[str, Present]) -> None:
        """What this process has. Repeat it within TTL_S."""
        said = [
            part
            for topic, present in topics.items()
            for part in (topic, msgspec.json.encode(present) if present.followers else b"")
        ]
        self._report(keys=[self._keys.jobs], args=[self._keys.ns, worker, int(TTL_S * 1000), *said])

    def read(self, topics: Sequence[str]) -> list[Present]:
        reply = self._read(keys=[self._keys.jobs], args=[self._keys.ns, *topics])
        return [
            joined(msgspec.json.decode(part, type=Present) for part in parts)
            for parts in cast(list[list[bytes]], reply)
        ]
