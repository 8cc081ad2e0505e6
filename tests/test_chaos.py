"""The short run of `make chaos`: a dozen faults, and no stream lost, repeated, stuck or wrong."""

import os
import subprocess
import sys

import pytest

from everstream.settings import REPO_ROOT
from tests.stack import nginx_executable

SEED = "7"


@pytest.mark.timeout(300)
def test_the_short_run_is_clean():
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    environ = os.environ | {"CHAOS_SHORT": "1", "CHAOS_SEED": SEED}
    command = [sys.executable, "-m", "chaos"]
    done = subprocess.run(command, cwd=REPO_ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
