"""Publishes how busy this machine (Linux) is, until it is stopped.

python examples/topics/server.py [SECONDS BETWEEN REPORTS]
"""

import itertools
import platform
import re
import sys
import time
from pathlib import Path

from publish import make, publish

HISTORY = 600
FORGOTTEN_S = 3600


def main(pause_s):
    topic = f"servers/{re.sub('[^A-Za-z0-9.-]', '-', platform.node()) or 'unknown'}"
    make(topic, history=HISTORY, ttl_s=FORGOTTEN_S)
    before = processor_times()
    for n in itertools.count(1):
        time.sleep(pause_s)
        now = processor_times()
        publish(topic, {"n": n, "cpu": round(busy_percent(before, now), 1), "memory": round(memory_percent(), 1)})
        before = now


def processor_times():
    """(idle, all) of all processors since the machine started, in ticks."""
    user, nice, system, idle, waiting, *others = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return idle + waiting, user + nice + system + idle + waiting + sum(others)


def busy_percent(before, now):
    idle, ticks = now[0] - before[0], now[1] - before[1]
    return 100 * (ticks - idle) / ticks if ticks else 0.0


def memory_percent():
    lines = (line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {name: int(value.split()[0]) for name, value in lines}
    return 100 * (1 - kilobytes["MemAvailable"] / kilobytes["MemTotal"])


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
