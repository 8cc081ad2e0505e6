"""The field's load generators, unmodified: they see tokens as they come, not a lump at the end."""

import json
import subprocess
import sys

import pytest

from everstream.llm import demo_model
from everstream.settings import PROJECT_ROOT

TOKENS = 16
REQUESTS = 4
RUN_TIMEOUT_S = 200
LUMP_GAP_S = 0.001


@pytest.mark.parametrize(
    ("backend", "endpoint"), [("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")]
)
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


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_guidellm(llm, sdk, path):
    report = sdk("guidellm_calls.benchmark", llm, path, str(demo_model.folder(llm.settings)))
    requests = report["requests"]
    assert (len(requests["successful"]), requests["errored"]) == (REQUESTS, [])
    for request in requests["successful"]:
        assert request["output_tokens"] == TOKENS and request["prompt_tokens"] > 0
        assert request["inter_token_latency_ms"] > 1000 * LUMP_GAP_S
