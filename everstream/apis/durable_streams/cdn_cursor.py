"""Cursors, which keep caches from answering a live request with the same response for ever (section 10.1). Pure, but
for the clock and the jitter.

Time is divided into intervals, which are numbered from an epoch. A client sends back the cursor of its last response,
and gets a greater one.
"""

import random
import re
import time

EPOCH_S = 1_728_432_000
"""2024-10-09."""
INTERVAL_S = 20
MAX_JITTER_S = 3600
_CURSOR = re.compile("[0-9]{1,15}", re.ASCII)


def next_cursor(given: str) -> str:
    """`given`: the client's, or empty."""
    current = int(time.time() - EPOCH_S) // INTERVAL_S
    if not _CURSOR.fullmatch(given) or int(given) < current:
        return str(current)
    jitter_s = random.randint(1, MAX_JITTER_S)  # noqa: S311
    return str(int(given) + max(1, jitter_s // INTERVAL_S))
