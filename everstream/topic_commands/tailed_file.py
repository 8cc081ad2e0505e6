"""A growing file, line by line: its rotation, truncation, and a last line that is not complete yet. Called by `tail`.

It is looked at again and again, which also works on network file systems.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from everstream.topic_commands.lines import MAX_LINE_BYTES

CHUNK_BYTES = 64 << 10
HEAD_BYTES = 256
QUIET_LOOKS = 5
"""How often a rotated file must not have grown: whoever writes may take a moment to notice the rotation."""


class Place(NamedTuple):
    """Where to go on in a file. `run`: one reading of one content; a truncated file begins another. `head` tells a file
    from another one with the same inode: the hash of its first bytes, up to the offset."""

    run: str
    device: int
    inode: int
    offset: int
    head: str


class Line(NamedTuple):
    """`begins`, `ends`: offsets in the file of `run`."""

    content: bytes
    run: str
    begins: int
    ends: int


class TailedFile:
    """`run`: see `Place`. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = ""
        self._file: BinaryIO | None = None
        self._offset = 0
        self._rest = b""
        self._quiet_looks = 0

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def open(self, lines: int | None) -> None:
        """Begin with the last lines; None: with all."""
        file = self.path.open("rb")
        self._begin(file, 0 if lines is None else offset_of_last(file, lines), secrets.token_hex(8))

    def resume(self, place: Place) -> bool:
        """Go on there, if the file is still to be found, perhaps with another name after a rotation."""
        for path in (self.path, *sorted(self.path.parent.glob(f"{_literal(self.path.name)}*"))):
            file = _opened_at(path, place)
            if file is not None:
                self._begin(file, place.offset, place.run)
                return True
        return False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def lines(self) -> Iterator[Line]:
        """Those that are complete by now."""
        assert self._file is not None
        has_grown = False
        while chunk := self._file.read(CHUNK_BYTES):
            has_grown = True
            yield from self._split(chunk)
        if os.fstat(self._file.fileno()).st_size < self._end:
            yield from self.last_line()
            self._begin(self._file, 0, secrets.token_hex(8))
        elif self._is_rotated():
            self._quiet_looks = 0 if has_grown else self._quiet_looks + 1
            if self._quiet_looks >= QUIET_LOOKS:
                yield from self.last_line()
                self._next_file()

    def last_line(self) -> Iterator[Line]:
        """The one that is not complete, if there is one."""
        if self._rest:
            yield self._line(self._rest)
            self._rest = b""

    def place(self, run: str, offset: int) -> Place | None:
        """Of this offset; None if another run has begun."""
        if self._file is None or run != self.run:
            return None
        status = os.fstat(self._file.fileno())
        return Place(run, status.st_dev, status.st_ino, offset, _head(self._file, offset))

    @property
    def _end(self) -> int:
        """Up to where it was read."""
        return self._offset + len(self._rest)

    def _begin(self, file: BinaryIO, offset: int, run: str) -> None:
        if self._file is not None and self._file is not file:
            self._file.close()
        file.seek(offset)
        self._file, self._offset, self.run = file, offset, run
        self._rest, self._quiet_looks = b"", 0

    def _split(self, chunk: bytes) -> Iterator[Line]:
        *ends, self._rest = (self._rest + chunk).split(b"\n")
        for end in ends:
            yield self._line(end + b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            piece, self._rest = self._rest[:MAX_LINE_BYTES], self._rest[MAX_LINE_BYTES:]
            yield self._line(piece)

    def _line(self, content: bytes) -> Line:
        begins, self._offset = self._offset, self._offset + len(content)
        return Line(content, self.run, begins, self._offset)

    def _is_rotated(self) -> bool:
        """Whether the path is another file's by now. While there is none, the old one is kept."""
        assert self._file is not None
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return not os.path.samestat(found, os.fstat(self._file.fileno()))

    def _next_file(self) -> None:
        try:
            self._begin(self.path.open("rb"), 0, secrets.token_hex(8))
        except FileNotFoundError:
            # It was rotated again meanwhile: look again.
            self._quiet_looks = 0


def offset_of_last(file: BinaryIO, lines: int) -> int:
    """Where the last complete lines begin."""
    end, left = file.seek(0, os.SEEK_END), lines + 1
    while end > 0:
        begin = max(end - CHUNK_BYTES, 0)
        block = os.pread(file.fileno(), end - begin, begin)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            left -= 1
            if not left:
                return begin + at + 1
        end = begin
    return 0


def _opened_at(path: Path, place: Place) -> BinaryIO | None:
    """The file, if it is the one of this place."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    status = os.fstat(file.fileno())
    is_same = (status.st_dev, status.st_ino) == (place.device, place.inode) and status.st_size >= place.offset
    if is_same and _head(file, place.offset) == place.head:
        return file
    file.close()
    return None


def _head(file: BinaryIO, offset: int) -> str:
    return hashlib.sha256(os.pread(file.fileno(), min(offset, HEAD_BYTES), 0)).hexdigest()[:32]


def _literal(name: str) -> str:
    """For a glob."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
