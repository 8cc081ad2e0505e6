"""What one output of a model with a plain `infer` costs: `make bench`, or `python -m bench.plain_model --help`.

The model sends outputs as fast as it can; one reader follows them. Prints the CPU time of the engine and of the web
worker per output, the median of the rounds, and writes bench/results/plain_model.json.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import psutil
import requests

from harness.stack import MODELS, running_stack

RESULTS = Path(__file__).parent / "results" / "plain_model.json"
TIMEOUT_S = 300


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        running_stack(Path(folder), app_dir=MODELS / "plain", WEB_CONCURRENCY="1", EVERSTREAM_LEASE_S="10") as stack,
    ):
        measure(stack, arguments.outputs)
        rounds = [measure(stack, arguments.outputs) for _ in range(arguments.rounds)]
    medians = {part: statistics.median(each[part] for each in rounds) for part in rounds[0]}
    print("| CPU per output | µs |\n| --- | ---: |")
    for part, value in medians.items():
        print(f"| {part} | {value:.1f} |")
    print(f"| both | {sum(medians.values()):.1f} |")
    RESULTS.parent.mkdir(exist_ok=True)
    rounded = [{part: round(value, 2) for part, value in each.items()} for each in rounds]
    RESULTS.write_text(json.dumps({"outputs": arguments.outputs, "rounds": rounded}, indent=1) + "\n")


def measure(stack, outputs):
    """One generation, read to its end. Returns the µs of CPU per output of each process."""
    parts = {"engine": stack.engines[0].pid, "web worker": stack.workers()[0]}
    before = {part: cpu_s(pid) for part, pid in parts.items()}
    received = read_to_the_end(f"{stack.url}/stream?count={outputs}")
    assert received == outputs, f"{received} of {outputs} outputs arrived"
    return {part: (cpu_s(pid) - before[part]) * 1e6 / outputs for part, pid in parts.items()}


def read_to_the_end(url):
    with requests.get(url, stream=True, timeout=TIMEOUT_S) as answer:
        return b"".join(answer.iter_content(1 << 20)).count(b'data: {"text"')


def cpu_s(pid):
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
