"""Publishes where the buses of a made-up town are, each to a topic of its own, until it is stopped.

python examples/topics/map.py [SECONDS BETWEEN REPORTS]
"""

import itertools
import math
import sys
import time

from publish import make, publish_all

# The corners of each line's way, in the units of the page's map.
LINES = {
    "1": [(10, 8), (56, 8), (56, 50), (10, 50)],
    "2": [(10, 28), (33, 28), (33, 8), (10, 8)],
    "3": [(56, 14), (90, 14), (90, 48), (56, 48)],
    "4": [(33, 28), (56, 28), (56, 50), (33, 50)],
    "5": [(56, 30), (73, 30), (73, 48), (90, 48), (90, 30)],
    "6": [(90, 14), (73, 14), (73, 30), (90, 30)],
}
SPEED = 3.0
"""Units in a second."""
FORGOTTEN_S = 60


def main(pause_s):
    for line in LINES:
        make(f"buses/{line}", latest=True, ttl_s=FORGOTTEN_S)
    began = time.monotonic()
    for _ in itertools.count():
        way = SPEED * (time.monotonic() - began)
        publish_all({f"buses/{line}": place(corners, way) for line, corners in LINES.items()})
        time.sleep(pause_s)


def place(corners, way):
    """Where a bus is that goes round and round."""
    sides = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    way %= sum(math.dist(*side) for side in sides)
    for start, end in sides:
        length = math.dist(start, end)
        if way <= length:
            break
        way -= length
    x, y = (a + (b - a) * way / length for a, b in zip(start, end, strict=True))
    return {"x": round(x, 2), "y": round(y, 2)}


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
