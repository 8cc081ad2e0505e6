"""The short run of `make chaos`: a dozen faults, and no stream lost, repeated, stuck or wrong."""

import os
import subprocess
import sys

import pytest

from everstream.settings import REPO_ROOT
from tests.stack import nginx_executable

SEED = "7"
RUN_S = 400
STOP_S = 60
"""For what it started to end with it."""


@pytest.mark.timeout(RUN_S + 2 * STOP_S)
def test_the_short_run_is_clean():
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    environ = os.environ | {"CHAOS_SHORT": "1", "CHAOS_SEED": SEED}
    command = [sys.executable, "-m", "chaos"]
    with subprocess.Popen(
        command, cwd=REPO_ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            said, _ = run.communicate(timeout=RUN_S)
        except subprocess.TimeoutExpired:
            # Not by -9, which would leave all its parts behind.
            run.terminate()
            said, _ = run.communicate(timeout=STOP_S)
    assert run.returncode == 0, said
