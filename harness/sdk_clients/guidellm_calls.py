"""Runs of `guidellm`, which measures a server."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Odd, so that one ends alone: of two that end the run together, it leaves one out of its report.
REQUESTS = 3
RUN_TIMEOUT_S = 200


def benchmark(url, model, path, tokenizer):
    """Measure the API at `path`; returns the benchmark's report."""
    options = {
        "--backend": f"kind=openai_http,target={url},model={model},request_format={path}",
        "--profile": "kind=concurrent,streams=2",
        "--constraint": f"kind=max_requests,count={REQUESTS}",
        "--tokenizer": f"kind=huggingface_auto,model={tokenizer}",
        "--data": "kind=synthetic_text,prompt_tokens=32,output_tokens=16",
    }
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [Path(sys.executable).parent / "guidellm", "run", "--disable-console"]
        command += [part for option in options.items() for part in option]
        command += ["--output", f"kind=json,path={report}"]
        # More processes only take longer to start.
        environ = os.environ | {"HF_HUB_OFFLINE": "1", "GUIDELLM__MAX_WORKER_PROCESSES": "1"}
        subprocess.run(command, env=environ, check=True, timeout=RUN_TIMEOUT_S)
        return json.loads(report.read_text())["benchmarks"][0]
