"""`everstream tail`: publishes the lines of a file, each as a message. While the service is away it does not read on:
the file itself is the buffer.

With `--state`, each line has an id made of its place, and the state says up to where lines are acknowledged. The next
run sends again those after it, and the topic takes none of them twice: it knows the ids of the messages that it keeps.
"""

import argparse
import sys
import time
from pathlib import Path

from everstream.client import Publisher
from everstream.topic_commands.lines import data_of, text_of
from everstream.topic_commands.publish import Refused, publish, report
from everstream.topic_commands.tail_state import TailState
from everstream.topic_commands.tailed_file import Line, TailedFile

LOOK_S = 0.2
SAVE_EVERY = 500
"""Lines. Fewer than a topic keeps unless it is told otherwise."""


def main(given: argparse.Namespace, url: str, headers: dict[str, str]) -> int:
    publisher = Publisher(url, headers=headers, stops_when_refused=True)
    tail = Tail(given, publisher)
    is_whole = False
    try:
        tail.run()
        is_whole = publisher.flush()
    except Refused:
        pass
    finally:
        publisher.close()
        tail.save()
        tail.close()
        report(publisher)
    return int(not is_whole)


class Tail:
    def __init__(self, given: argparse.Namespace, publisher: Publisher) -> None:
        self._given = given
        self._publisher = publisher
        self._file = TailedFile(Path(given.file))
        self._state = TailState(Path(given.state)) if given.state else None
        self._run = ""
        self._unsaved = 0

    def run(self) -> None:
        """Until there is no more to read; with --follow, for ever. Raises Refused, OSError, ValueError."""
        self._open()
        self._publish_lines()
        while self._given.follow:
            time.sleep(LOOK_S)
            self._publish_lines()
        if self._state is None:
            for line in self._file.last_line():
                self._publish(line)

    def save(self) -> None:
        stats = self._publisher.stats()
        # After a refused one, numbers of acknowledged messages don't say which.
        if self._state is not None and not stats.refused:
            self._unsaved = self._state.save(stats.acknowledged)

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        place = self._state.load() if self._state else None
        if place is not None and self._file.resume(place):
            self._run = self._file.run
            return
        if place is not None:
            _say(f"{self._file.path} is another file than the one that was read: lines may be missing")
        is_first = place is None
        while not self._file.is_open:
            try:
                self._file.open(self._first_lines() if is_first else None)
            except FileNotFoundError:
                if not self._given.follow:
                    raise
                if is_first:
                    _say(f"{self._file.path} does not exist yet")
                # What appears later is new from its beginning.
                is_first = False
                time.sleep(LOOK_S)

    def _first_lines(self) -> int | None:
        if self._given.lines is None and self._given.follow and self._state is None:
            return 0
        return self._given.lines  # type: ignore[no-any-return]

    def _publish_lines(self) -> None:
        for line in self._file.lines():
            self._publish(line)
            if self._state is not None and self._unsaved >= SAVE_EVERY:
                self._publisher.flush()
                self.save()
        self.save()

    def _publish(self, line: Line) -> None:
        message_id = self._id(line)
        publish(self._publisher, self._given, data_of(text_of(line.content), self._given.kind), message_id, None)
        if self._state is not None and (place := self._file.place(line.run, line.ends)):
            self._state.note(self._publisher.stats().published, place)
            self._unsaved += 1

    def _id(self, line: Line) -> str | None:
        if self._state is None:
            return None
        if line.run != self._run and (place := self._file.place(line.run, line.begins)):
            # Before any line of this run is sent: the next process must give it the same id.
            self._publisher.flush()
            self._state.write(place)
            self._run = line.run
        return f"{line.run}-{line.begins}"


def _say(text: str) -> None:
    sys.stderr.write(f"everstream | {text}\n")
    sys.stderr.flush()
