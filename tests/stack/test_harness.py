"""The test harness: a hang or a crash fails one test, soon, and the report says why."""

import subprocess
import sys
import tempfile

import hypothesis
import pytest

from everstream.settings import PROJECT_ROOT
from harness import sse_client
from harness.stack import MODELS, PartEnded, Supervised

HANGING = """
import subprocess, time
from tests import conftest
conftest.ALARM_INTERVAL_S = 1
from hypothesis import given, strategies as st

def test_hangs(own_stack):
    own_stack().start_valkey()
    subprocess.run(["sleep", "1000"])

@given(st.booleans())
def test_examples_hang(value):
    time.sleep(1000)

def test_follows():
    pass
"""


def test_hang_fails_only_its_own_test(tmp_path):
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text(HANGING)
    # In a folder with a short path, because the path of a Unix socket is limited in length.
    with tempfile.TemporaryDirectory() as folder:
        options = ["-p", "tests.conftest", "-p", "no:cacheprovider", f"--basetemp={folder}/of", "-o", "timeout=2"]
        command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", *options, str(hanging)]
        done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    for expected in ("2 failed, 1 passed", "Failed: Timeout (>2.0s)", "parts of stack0", "--- valkey (is running)"):
        assert expected in done.stdout, done.stdout + done.stderr


def test_slow_examples_do_not_fail():
    for name in ("repeatable", "search"):
        profile = hypothesis.settings.get_profile(name)
        assert profile.deadline is None
        assert hypothesis.HealthCheck.too_slow in profile.suppress_health_check
    assert hypothesis.settings().derandomize


def test_start_fails_if_the_model_does_not_load(own_stack, tmp_path):
    (tmp_path / "app.py").write_text("raise RuntimeError('no weights')")
    (tmp_path / "input_schema.py").write_text((MODELS / "scripted" / "input_schema.py").read_text())
    with pytest.raises(PartEnded, match=r"(?s)no engine is running.*engine0 \(exited with status 3\).*no weights"):
        own_stack(app_dir=tmp_path).start()


@pytest.mark.parametrize("part", ["valkey", "web"])
def test_wait_ready_fails_if_a_part_has_exited(own_stack, part):
    stack = own_stack()
    stack.start_valkey()
    stack.start_web()
    stack.start_engine()
    getattr(stack, part).stop()
    with pytest.raises(PartEnded, match=rf"{part} exited unexpectedly"):
        stack.wait_ready()


def test_launch_fails_if_the_model_does_not_load(tmp_path):
    (tmp_path / "app.py").write_text("raise RuntimeError('no weights')")
    (tmp_path / "input_schema.py").write_text((MODELS / "scripted" / "input_schema.py").read_text())
    stack = Supervised(tmp_path, app_dir=tmp_path)
    try:
        with pytest.raises(PartEnded, match="no weights"):
            stack.launch()
    finally:
        stack.stop()


def test_read_gives_up_on_a_stream_of_heartbeats(fast, gate, monkeypatch):
    monkeypatch.setattr(sse_client, "READ_TIMEOUT_S", 0)
    generation = fast.submit(texts=["a"], hold_before=1, gate=gate.path)
    with (
        sse_client.connect(fast.events_url(generation)) as stream,
        pytest.raises(AssertionError, match="still open"),
    ):
        stream.read()
