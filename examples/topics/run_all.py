"""Runs a publisher for each page until it is stopped.

python examples/topics/run_all.py
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PUBLISHERS = ("leaderboard.py", "map.py", "score.py", "server.py", "ticker.py")
NOTE = ("Together, we write", "lines that never get lost.", "Type in any of them.")
PAUSE_S = 20


def main():
    # No publisher must go on alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running = []
    try:
        running += [subprocess.Popen([sys.executable, HERE / name]) for name in PUBLISHERS]
        running += [log := subprocess.Popen([HERE / "log.sh"], stdin=subprocess.PIPE, text=True)]
        for number, text in enumerate(NOTE, 1):
            subprocess.run([HERE / "note.sh", str(number), text], check=True)
        while all(each.poll() is None for each in running):
            running += [job := subprocess.Popen([sys.executable, HERE / "progress.py", sys.prefix])]
            watch(job, log.stdin)
            running.remove(job)
            subprocess.run([HERE / "notify.sh", f"The job ended with status {job.returncode}"], check=True)
            time.sleep(PAUSE_S)
    except KeyboardInterrupt:
        pass
    finally:
        for each in running:
            each.terminate()


def watch(job, log):
    """Log what the machine does until the job ends."""
    while job.poll() is None:
        columns = ["-eo", "pcpu,pmem,comm", "--sort=-pcpu", "--no-headers"]
        found = subprocess.run(["ps", *columns], capture_output=True, text=True, check=True).stdout
        log.write(f"{time.strftime('%H:%M:%S')} busiest: {found.partition(chr(10))[0].strip()}\n")
        log.flush()
        time.sleep(1)


if __name__ == "__main__":
    main()
