"""One reader's place in one generation: a state machine without I/O. `follower` feeds it, one cursor per reader.

Live entries may come late, twice, or never; the numbers show it. What `take` returns is the log after the reader's
start, in order, once.
"""

from collections import deque
from collections.abc import Sequence

from everstream.log import Entry


class Cursor:
    """`last` is the number of the last entry handed out; `behind` says that the log has to be read from there."""

    def __init__(self, after: int, bound: int) -> None:
        """At most `bound` live entries wait here; past that the reader re-reads the log at its own pace."""
        self.last = after
        self.behind = True
        self._reading = False
        self._bound = bound
        self._live: deque[Entry] = deque()

    def offer(self, entry: Entry) -> None:
        """A live entry."""
        newest = self._live[-1].n if self._live else self.last
        if entry.n <= newest:
            return
        # Where the log is to be read anyway, what comes live is kept from wherever it starts.
        follows = entry.n == newest + 1 or (not self._live and (self.behind or self._reading))
        if not follows or len(self._live) >= self._bound:
            self._live.clear()
            self.behind = True
        self._live.append(entry)

    def begin_read(self) -> None:
        """The log is about to be read after `last`. What is missed from here on sets `behind` again."""
        self._reading = True
        self.behind = False

    def end_read(self, entries: Sequence[Entry], *, to_the_end: bool) -> list[Entry]:
        """What the read returned. Returns what is new of it, then of what came live meanwhile."""
        self._reading = False
        self.behind = self.behind or not to_the_end
        fresh = [entry for entry in entries if entry.n > self.last]
        if fresh:
            self.last = fresh[-1].n
        return fresh + self.take()

    def take(self) -> list[Entry]:
        """The live entries that follow on `last`."""
        while self._live and self._live[0].n <= self.last:
            self._live.popleft()
        if not self._live:
            return []
        if self._live[0].n != self.last + 1:
            self.behind = True
            return []
        taken = list(self._live)
        self._live.clear()
        self.last = taken[-1].n
        return taken
