"""The tests of the page's pure modules, run by node itself."""

import shutil
import subprocess

import pytest

from everstream.settings import PROJECT_ROOT

TESTS = sorted((PROJECT_ROOT / "tests" / "node").glob("*.test.js"))


@pytest.mark.parametrize("path", TESTS, ids=[path.stem for path in TESTS])
def test_module(path):
    if shutil.which("node") is None:
        pytest.skip("node is missing: apt-get install nodejs")
    run = subprocess.run(["node", "--test", str(path)], capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
