"""One reader's position in one generation: a state machine without I/O. `follower` feeds one cursor per reader.

Live entries may arrive late, twice, or never, which their numbers reveal. `take` returns each entry after the reader's
start exactly once, in order.
"""

from collections.abc import Sequence

from everstream.log.entries import Entry


class Cursor:
    """`last` is the number of the last entry handed out, `first` what that was at the start. `behind` means that the
    log must be read from `last`.

    `gaps` counts the gaps detected in live entries.
    """

    def __init__(self, after: int, bound_bytes: int) -> None:
        """Buffer at most `bound_bytes` of live entries. Beyond that, the log is read again, at the reader's pace."""
        self.first = self.last = after
        self.behind = True
        self.gaps = 0
        self.reading = False
        self._bound_bytes = bound_bytes
        self._read: list[Entry] = []
        self._live: list[Entry] = []
        self._live_bytes = 0

    def offer(self, entry: Entry) -> None:
        """Buffer a live entry, unless it is a duplicate."""
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
        """If these live entries come next and nothing is pending, count them as handed out and return True."""
        if first != self.last + 1 or self.behind or self.reading or self._live or self._read:
            return False
        self.last = last
        return True

    def mark_current(self) -> None:
        """Require no read of the log, because nothing can have been missed yet."""
        self.behind = False

    def mark_behind(self) -> None:
        """Require a read of the log from here, because entries may have been missed."""
        self.behind = True

    def await_read(self) -> None:
        """Note that a read is queued. Don't call `take` until `end_read`."""
        self.reading = True

    def begin_read(self) -> int:
        """Start a read of the log above the returned number. Entries missed from here on set `behind` again."""
        self.reading = True
        self.behind = False
        return self.last

    def end_read(self, entries: Sequence[Entry], *, to_the_end: bool) -> None:
        """Keep the entries that were read for the next `take`."""
        self.reading = False
        self.behind = self.behind or not to_the_end
        self._read = list(entries)

    def abort_read(self) -> None:
        """Nothing was read."""
        self.end_read([], to_the_end=False)

    def take(self) -> list[Entry]:
        """All entries after `last`: first those read, then live ones. Don't call it while a read is in progress."""
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
        # A read of the log will fill the gap before the first live entry, so keep live entries wherever they start.
        return self.behind or self.reading or bool(self._read)

    def _miss(self) -> None:
        self.gaps += 1
        self._drop_live()

    def _drop_live(self) -> None:
        self._live.clear()
        self._live_bytes = 0
        self.behind = True
