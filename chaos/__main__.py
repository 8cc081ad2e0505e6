"""`make chaos`: runs real processes, injects faults from a seeded schedule under live streams, and prints a table.

`CHAOS_SEED` repeats a schedule; `CHAOS_SHORT=1` runs a single phase of just over a minute. Writes the table and the
data behind it to `test-artifacts/`, and each process's log if the run was not clean. Exits with status 1 if anything
was lost, repeated, stuck or wrong.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from chaos import phases, report
from everstream.settings import PROJECT_ROOT
from harness.stack import nginx_executable

ARTIFACTS = PROJECT_ROOT / "test-artifacts"
LOG_TAIL_BYTES = 200_000


def main():
    if nginx_executable() is None:
        sys.exit("chaos: nginx is missing: apt-get install nginx-light")
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    chosen = [phases.SHORT] if os.environ.get("CHAOS_SHORT") else [phases.TINY, phases.SMOLLM2, phases.PLAIN]
    say(f"seed {seed}: {', '.join(phase.name for phase in chosen)}")
    results = [run(phase, seed) for phase in chosen]
    table = report.markdown(seed, results)
    ARTIFACTS.mkdir(exist_ok=True)
    (ARTIFACTS / f"chaos-{seed}.md").write_text(table)
    (ARTIFACTS / f"chaos-{seed}.json").write_text(json.dumps(report.as_json(seed, results), indent=1))
    print(table)
    sys.exit(not report.is_clean(results))


def run(phase, seed):
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        result = phases.run(phase, seed, Path(name), say)
        for line in report.told(result):
            say(line)
        if not report.is_clean([result]):
            keep_logs(Path(name), ARTIFACTS / f"chaos-{seed}-{phase.name}")
    return result


def keep_logs(folder, target):
    """Keep the end of each process's output."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for log in folder.glob("*.log"):
        (target / log.name).write_bytes(log.read_bytes()[-LOG_TAIL_BYTES:])
    say(f"the processes' logs are in {target}")


def say(text):
    print(f"chaos | {time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
