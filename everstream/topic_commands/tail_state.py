"""What `everstream tail --state` remembers: up to where a file's lines are acknowledged."""

import json
import os
from collections import deque
from pathlib import Path

from everstream.topic_commands.tailed_file import Place


class TailState:
    """`note` what was published, `save` what of it was acknowledged. Raises OSError, ValueError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted: deque[tuple[int, Place]] = deque()
        self._saved: Place | None = None

    def load(self) -> Place | None:
        try:
            fields = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        try:
            return Place(**fields)
        except TypeError:
            raise ValueError(f"{self._path} is not the state of a tailed file") from None

    def note(self, published: int, place: Place) -> None:
        """After so many messages, the file was read up to this place."""
        self._noted.append((published, place))

    def save(self, acknowledged: int) -> int:
        """Only so many messages count. Returns how many notes are left."""
        found = self._saved
        while self._noted and self._noted[0][0] <= acknowledged:
            found = self._noted.popleft()[1]
        if found is not None and found != self._saved:
            self.write(found)
        return len(self._noted)

    def write(self, place: Place) -> None:
        # Whole, or not at all.
        temporary = self._path.with_name(f"{self._path.name}.new")
        with temporary.open("w") as file:
            json.dump(place._asdict(), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._saved = place
