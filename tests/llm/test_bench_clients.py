"""The field's load generators, unmodified: they see tokens as they come, not a lump at the end."""

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

from everstream.llm import demo_model
from everstream.settings import PROJECT_ROOT
from harness.chat_outputs import end, piece
from harness.sse_client import connect
from harness.stack import wait_for

TOKENS = 16
REQUESTS = 3
RUN_TIMEOUT_S = 200
LUMP_GAP_S = 0.001

each_backend = pytest.mark.parametrize(
    ("backend", "endpoint"), [("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")]
)


@each_backend
def test_vllm_bench_serve(llm, tmp_path, backend, endpoint):
    options = {
        "--backend": backend,
        "--base-url": llm.url,
        "--endpoint": endpoint,
        "--model": llm.settings.model_name,
        "--tokenizer": demo_model.folder(llm.settings),
        "--dataset-name": "random",
        "--random-input-len": 32,
        "--random-output-len": TOKENS,
        "--num-prompts": REQUESTS,
        "--max-concurrency": 2,
        "--temperature": 0,
        "--result-dir": tmp_path,
        "--result-filename": "result.json",
    }
    command = [sys.executable, "-m", "harness.vllm_command", "bench", "serve", "--save-result", "--save-detailed"]
    command += [str(part) for option in options.items() for part in option]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, timeout=RUN_TIMEOUT_S)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"], result["output_lens"]) == (REQUESTS, 0, [TOKENS] * REQUESTS)
    # The tokens of a lump would be microseconds apart; on a busy machine, some tokens come together. A chat's role and
    # end count as tokens here.
    for gaps in result["itls"]:
        assert len(gaps) <= TOKENS + 1
        assert sum(gap > LUMP_GAP_S for gap in gaps) >= TOKENS // 4, gaps


@each_backend
def test_vllm_bench_serve_reads_on_after_heartbeats(chat, vllm, gate, backend, endpoint):
    """Its reader joins the pieces that it reads without the white space around each, so that a comment would hide all
    that follows."""
    outputs = [piece(text=text) for text in ("one", "two", "three", "four")]
    said = json.dumps({"outputs": outputs, "end": end("stop"), "hold_before": 3, "gate": gate.path})
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(asyncio.run, requested(chat, backend, endpoint, said))
        wait_for(lambda: chat.running() == 1 or answer.done(), what="its generation")
        with connect(chat.events_url(chat.submit(prompt=said))) as stream:
            # It gets its heartbeats later than the other.
            stream.read(until=lambda seen: seen.decoder.comments.count("heartbeat") >= 2)
        gate.open()
    output = answer.result()
    assert (output.error, output.generated_text) == ("", "onetwothreefour")


async def requested(stack, backend, endpoint, prompt):
    from vllm.benchmarks.lib.endpoint_request_func import ASYNC_REQUEST_FUNCS, RequestFuncInput

    request = RequestFuncInput(
        prompt, stack.url + endpoint, prompt_len=1, output_len=TOKENS, model=stack.settings.model_name
    )
    async with aiohttp.ClientSession() as session:
        return await ASYNC_REQUEST_FUNCS[backend](request, session)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_guidellm(llm, sdk, path):
    report = sdk("guidellm_calls.benchmark", llm, path, str(demo_model.folder(llm.settings)))
    requests = report["requests"]
    assert (len(requests["successful"]), requests["errored"]) == (REQUESTS, [])
    for request in requests["successful"]:
        assert request["output_tokens"] == TOKENS and request["prompt_tokens"] > 0
        assert request["inter_token_latency_ms"] > 1000 * LUMP_GAP_S
