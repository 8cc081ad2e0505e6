"""One reader's place in one generation: a state machine without I/O. `follower` feeds it, one cursor per reader.

Live entries may come late, twice, or never; the numbers show it. What `take` returns is the log after the reader's
start, in order, once.
"""

from collections.abc import Sequence

from everstream.log import Entry


class Cursor:
    """`last` is the number of the last entry handed out; `behind` says that the log has to be read from there.

    `gaps` counts how often something missing was noticed.
    """

    def __init__(self, after: int, bound_bytes: int) -> None:
        """At most so many bytes of live entries wait here; past that the log is read again, at the reader's pace."""
        self.last = after
        self.behind = True
        self.gaps = 0
        self.reading = False
        self._bound_bytes = bound_bytes
        self._read: list[Entry] = []
        self._live: list[Entry] = []
        self._live_bytes = 0

    def offer(self, entry: Entry) -> None:
        """A live entry."""
        newest = self._live[-1].n if self._live else self.last
        if entry.n <= newest:
            return
        if entry.n != newest + 1 and (self._live or not self._is_catching_up):
            self._miss()
        if self._live_bytes + len(entry.data) > self._bound_bytes:
            self._drop_live()
        if len(entry.data) <= self._bound_bytes:
            self._live.append(entry)
            self._live_bytes += len(entry.data)

    def skip(self, first: int, last: int) -> bool:
        """Whether these live entries are just what follows, with nothing before them: then they count as handed out."""
        if first != self.last + 1 or self.behind or self.reading or self._live or self._read:
            return False
        self.last = last
        return True

    def begin_read(self) -> int:
        """The log is about to be read above the number returned. What is missed from here on sets `behind` again."""
        self.reading = True
        self.behind = False
        return self.last

    def end_read(self, entries: Sequence[Entry], *, to_the_end: bool) -> None:
        """What the read returned, for the next `take`."""
        self.reading = False
        self.behind = self.behind or not to_the_end
        self._read = list(entries)

    def take(self) -> list[Entry]:
        """All that follows on `last`: what was read, then what came live meanwhile. Not while a read is under way."""
        taken, self._read = self._read, []
        if taken:
            self.last = taken[-1].n
        if self._live and self._live[0].n <= self.last:
            self._live = [entry for entry in self._live if entry.n > self.last]
            self._live_bytes = sum(len(entry.data) for entry in self._live)
        if self._live and self._live[0].n != self.last + 1:
            if not self.behind:
                self._miss()
            return taken
        if self._live:
            taken += self._live
            self._live = []
            self._live_bytes = 0
        if taken:
            self.last = taken[-1].n
        return taken

    @property
    def _is_catching_up(self) -> bool:
        # Where the log is to be read anyway, what comes live is kept from wherever it starts.
        return self.behind or self.reading or bool(self._read)

    def _miss(self) -> None:
        self.gaps += 1
        self._drop_live()

    def _drop_live(self) -> None:
        self._live.clear()
        self._live_bytes = 0
        self.behind = True
