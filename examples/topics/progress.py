"""Hashes all files of a folder, says how far it is, and finds those that are there twice.

python examples/topics/progress.py FOLDER
"""

import hashlib
import re
import sys
import time
from pathlib import Path

from publish import publish

EVERY_S = 0.1
"""A page needs no more reports than that."""


def main(folder):
    topic = "jobs/hash-" + (re.sub("[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-") or "all")
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    total = sum(path.stat().st_size for path in files)
    done, found, due = 0, {}, 0.0
    for path in files:
        for digest, size in hashed(path):
            done += size
            if digest:
                found.setdefault(digest, []).append(path)
            if time.monotonic() >= due:
                publish(topic, report(done, total, path.name, "running"))
                due = time.monotonic() + EVERY_S
    extra = sum(len(paths) - 1 for paths in found.values())
    publish(topic, report(total, total, f"{len(files)} files, {extra} of them copies of others", "done"))


def hashed(path):
    """Yield (None, bytes) for each piece, then (digest, 0)."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                yield None, len(piece)
    except OSError:
        # Not ours to read.
        return
    yield digest.hexdigest(), 0


def report(done, total, text, state):
    return {"done": done, "total": total, "text": text, "state": state}


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
