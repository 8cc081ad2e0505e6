"""The short run of `make chaos`: after a dozen faults no stream is lost, repeated, stuck or wrong."""

import os
import subprocess
import sys

import pytest

from everstream.settings import PROJECT_ROOT
from harness.stack import nginx_executable

SEED = "7"
RUN_S = 400
STOP_S = 60
"""Grace period for the processes that it started."""


@pytest.mark.timeout(RUN_S + 2 * STOP_S)
def test_short_run_is_clean():
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    environ = os.environ | {"CHAOS_SHORT": "1", "CHAOS_SEED": SEED}
    command = [sys.executable, "-m", "chaos"]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            output, _ = run.communicate(timeout=RUN_S)
        except subprocess.TimeoutExpired:
            # Not SIGKILL, which would leave its child processes behind.
            run.terminate()
            output, _ = run.communicate(timeout=STOP_S)
    assert run.returncode == 0, output
