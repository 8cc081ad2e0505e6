"""The tests' own means: what hangs or breaks fails one test, soon, and says why."""

import subprocess
import sys
import tempfile

import hypothesis
import pytest

from everstream.settings import REPO_ROOT
from tests import sse_client
from tests.stack import MODELS, Launched, PartEnded

HANGING = """
import subprocess, time
from tests import conftest
conftest.ALARM_AGAIN_S = 1
from hypothesis import given, strategies as st

def test_that_hangs(own_stack):
    own_stack().start_valkey()
    subprocess.run(["sleep", "1000"])

@given(st.booleans())
def test_whose_examples_hang(value):
    time.sleep(1000)

def test_that_follows():
    pass
"""


def test_a_hang_fails_its_test_alone_and_says_where(tmp_path):
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text(HANGING)
    # In a folder of its own, as the path of a Unix socket can't be long.
    with tempfile.TemporaryDirectory() as folder:
        options = ["-p", "tests.conftest", "-p", "no:cacheprovider", f"--basetemp={folder}/of", "-o", "timeout=2"]
        command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", *options, str(hanging)]
        done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, check=False)
    for said in ("2 failed, 1 passed", "Failed: Timeout (>2.0s)", "parts of stack0", "--- valkey (is running)"):
        assert said in done.stdout, done.stdout + done.stderr


def test_no_example_fails_for_being_slow():
    for name in ("repeatable", "search"):
        profile = hypothesis.settings.get_profile(name)
        assert profile.deadline is None
        assert hypothesis.HealthCheck.too_slow in profile.suppress_health_check
    assert hypothesis.settings().derandomize


def test_a_model_that_does_not_load_is_not_waited_for(own_stack, tmp_path):
    (tmp_path / "app.py").write_text("raise RuntimeError('no weights')")
    (tmp_path / "input_schema.py").write_text((MODELS / "scripted" / "input_schema.py").read_text())
    with pytest.raises(PartEnded, match=r"(?s)no engine is running.*engine0 \(ended with status 3\).*no weights"):
        own_stack(app_dir=tmp_path).start()


@pytest.mark.parametrize("part", ["valkey", "web"])
def test_a_part_that_has_ended_is_not_waited_for(own_stack, part):
    stack = own_stack()
    stack.start_valkey()
    stack.start_web()
    stack.start_engine()
    getattr(stack, part).stop()
    with pytest.raises(PartEnded, match=rf"{part} ended by itself"):
        stack.wait_ready()


def test_a_launcher_whose_model_does_not_load_is_not_waited_for(tmp_path):
    (tmp_path / "app.py").write_text("raise RuntimeError('no weights')")
    (tmp_path / "input_schema.py").write_text((MODELS / "scripted" / "input_schema.py").read_text())
    stack = Launched(tmp_path, app_dir=tmp_path)
    try:
        with pytest.raises(PartEnded, match="no weights"):
            stack.launch()
    finally:
        stack.stop()


def test_a_stream_that_only_beats_is_not_read_for_ever(fast, gate, monkeypatch):
    monkeypatch.setattr(sse_client, "READ_TIMEOUT_S", 0)
    generation = fast.submit(texts=["a"], hold_before=1, gate=gate.path)
    with (
        sse_client.connect(fast.events_url(generation)) as stream,
        pytest.raises(AssertionError, match="still goes on"),
    ):
        stream.read()
