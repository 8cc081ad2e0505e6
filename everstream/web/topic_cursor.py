"""One stream's position in the topics that it follows: a state machine without I/O. `topic_follower` feeds it.

Unlike the entries of a generation, the messages of several topics have no contiguous numbers, so a gap can't be seen
here: `topic_follower` sees it in the numbers of the live channel, and calls `mark_behind`.
"""

from everstream.log.topic_records import Message, Start, TopicPage


class TopicCursor:
    """`position`: what the stream was handed out is all that was published up to here. `behind` means that the log must
    be read from there."""

    __slots__ = ("_bound_bytes", "_live", "_live_bytes", "_page", "_start", "behind", "position", "reading")

    def __init__(self, start: Start, bound_bytes: int) -> None:
        """Buffer at most `bound_bytes` of live messages. Beyond that, the log is read again, at the stream's pace."""
        self.position = start.number if start.kind == "after" else 0
        self.behind = True
        self.reading = False
        self._start: Start | None = start
        self._bound_bytes = bound_bytes
        self._page: TopicPage | None = None
        self._live: list[Message] = []
        self._live_bytes = 0

    @property
    def next_read(self) -> Start:
        """Where the next read begins."""
        return self._start or Start("after", self.position)

    def offer(self, messages: list[Message]) -> None:
        """Buffer live messages that follow those before."""
        self._live_bytes += sum(len(message.data) for message in messages)
        if self._live_bytes > self._bound_bytes:
            self._drop_live()
        else:
            self._live += messages

    @property
    def is_idle(self) -> bool:
        """Whether nothing is pending."""
        return not (self.behind or self.reading or self._live or self._page)

    def skip(self, first: int, last: int) -> bool:
        """If nothing is pending, count these live messages as handed out and return True."""
        if not self.is_idle or first <= self.position:
            return False
        self.position = last
        return True

    def mark_behind(self) -> None:
        """Require a read of the log from here, because messages may have been missed."""
        self.behind = True

    def await_read(self) -> None:
        """Note that a read is queued. Don't call `take` until `end_read`."""
        self.reading = True

    def begin_read(self) -> Start:
        """Messages missed from here on set `behind` again."""
        self.reading = True
        self.behind = False
        return self.next_read

    def end_read(self, page: TopicPage) -> None:
        """Keep the page for the next `take`."""
        self.reading = False
        self.behind = self.behind or page.more
        self._page = page

    def abort_read(self) -> None:
        """Nothing was read."""
        self.reading = False
        self.behind = True

    def take(self) -> TopicPage | None:
        """What comes next: what was read, then live messages. Don't call it while a read is in progress."""
        if page := self._page:
            self._page, self._start = None, None
            self.position = page.position
            return page
        if self.behind or not self._live:
            return None
        messages = [message for message in self._live if message.position > self.position]
        self._live, self._live_bytes = [], 0
        if not messages:
            return None
        self.position = messages[-1].position
        return TopicPage(messages, self.position, "", more=False, is_closed=False)

    def _drop_live(self) -> None:
        self._live, self._live_bytes = [], 0
        self.behind = True
