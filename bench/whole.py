"""What a chat completion costs that is not streamed: Everstream compared with `vllm serve`. `python -m bench.whole`.

Both servers run at the same time, each with its own engine, and get the same requests in turn: in each round
`--requests`, `--at-once` at a time. CPU covers everything except vLLM's EngineCore and worker. Prints a table, and
writes bench/results/whole.json.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from bench import cpu, servers, tiny_model
from bench.front_ends import RESULTS
from bench.overhead import prompts
from everstream.settings import load_settings

FIGURES = {
    "cpu_ms_per_request": "CPU ms per request",
    "tokens_per_s": "tokens/s",
    "latency_ms_median": "latency median, ms",
    "latency_ms_p99": "latency p99, ms",
}
KV_CACHE = "1G"


async def ask(session, server, prompt, tokens):
    """Returns how long the answer took, in seconds. Raises SystemExit if it is not what was asked for."""
    body = {
        "model": server.api.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    started = time.perf_counter()
    async with session.post(f"{server.url}/v1/chat/completions", json=body) as response:
        answer = await response.json()
    if response.status != 200 or answer["usage"]["completion_tokens"] != tokens:
        raise SystemExit(f"{server.name}: {answer}")
    return time.perf_counter() - started


async def ask_all(server, texts, args):
    limit = asyncio.Semaphore(args.at_once)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(text):
            async with limit:
                return await ask(session, server, text, args.tokens)

        return await asyncio.gather(*map(one, texts))


def measure(server, salt, args):
    groups = server.groups()
    before = {group: sum(cpu.cpu_s(pids).values()) for group, pids in groups.items()}
    started = time.perf_counter()
    latencies = sorted(asyncio.run(ask_all(server, prompts(args.requests, salt), args)))
    seconds = time.perf_counter() - started
    used = {group: sum(cpu.cpu_s(pids).values()) - before[group] for group, pids in groups.items()}
    return {
        "cpu_ms_per_request": 1000 * sum(used.values()) / args.requests,
        "tokens_per_s": args.requests * args.tokens / seconds,
        "latency_ms_median": 1000 * statistics.median(latencies),
        "latency_ms_p99": 1000 * latencies[int(len(latencies) * 0.99)],
        "cpu_ms_by_part": {group: 1000 * each / args.requests for group, each in used.items()},
    }


def medians(rounds):
    by_part = {
        part: statistics.median(each["cpu_ms_by_part"][part] for each in rounds) for part in rounds[0]["cpu_ms_by_part"]
    }
    return {name: statistics.median(each[name] for each in rounds) for name in FIGURES} | {"cpu_ms_by_part": by_part}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    model = tiny_model.build(load_settings())
    with tempfile.TemporaryDirectory(prefix="everstream-bench-") as folder, ExitStack() as stack:
        found = [
            stack.enter_context(servers.everstream_alone(model, KV_CACHE, Path(folder))),
            stack.enter_context(servers.vllm_python(model, KV_CACHE, Path(folder))),
        ]
        rounds = {server.name: [] for server in found}
        for server in found:
            measure(server, "warm", args)
        for number in range(args.rounds):
            for server in found[:: -1 if number % 2 else 1]:
                rounds[server.name].append(measure(server, f"{number}", args))
    measured = {name: medians(each) for name, each in rounds.items()}
    print("| server | " + " | ".join(FIGURES.values()) + " |\n|---|" + "---:|" * len(FIGURES))
    for name, figures in measured.items():
        print(f"| {name} | " + " | ".join(f"{figures[each]:.1f}" for each in FIGURES) + " |")
        print(f"  { ({part: round(ms, 2) for part, ms in figures['cpu_ms_by_part'].items()}) }")
    (RESULTS / "whole.json").write_text(json.dumps({"options": vars(args), "found": measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
