"""`python -m everstream.launcher`: starts all, restarts what dies, leaves nothing behind."""

import os
import shlex
import signal
import socket
import subprocess
import sys

import psutil
import pytest
import requests

from everstream.launcher import Part
from tests.sse_client import assert_whole, connect, read_all, text_of
from tests.stack import LAUNCHER, MODELS, Launched, Stack, free_port, wait_for


@pytest.fixture
def launched(tmp_path):
    stack = Launched(tmp_path, app_dir=MODELS / "scripted")
    try:
        stack.launch()
        # A worker that gunicorn has forked but that does not handle signals yet would miss the first one.
        assert stack.streams() == 0
        yield stack
    finally:
        for process in stack.family() if stack.launcher.popen.poll() is None else []:
            process.kill()
        stack.stop()


def test_it_starts_quietly_and_says_what_to_do(launched):
    """A line for each part, the progress, and where it is. The command that it gives streams from the model."""
    lines = launched.launcher.output.splitlines()
    state = launched.settings.valkey_socket
    assert lines[:3] == [
        f"everstream | valkey: unix:{state}",
        f"everstream | engine: {launched.settings.app_dir}",
        f"everstream | web: 2 workers at {launched.url}",
    ]
    assert [line for line in lines if not line.startswith("everstream | ")] == []
    command = wait_for(lambda: [line for line in launched.launcher.output.splitlines() if "curl" in line])[0]
    answer = read_all(shlex.split(command.partition("| ")[2])[-1])
    assert_whole(answer)
    assert text_of(answer) == "a"


def test_the_demo_model_is_not_fetched_for_another_model_folder(tmp_path):
    stack = Launched(tmp_path, app_dir=MODELS / "scripted", EVERSTREAM_CACHE_DIR=str(tmp_path / "cache"))
    stack.environ["MODEL"] = ""
    try:
        stack.launch()
    finally:
        stack.stop()
    assert not (tmp_path / "cache").exists()


def test_a_parts_progress_bar_is_its_detail_and_no_line(capfd):
    script = r"import sys, time; sys.stderr.write('\r10 %\r20 %'); sys.stderr.flush(); time.sleep(60)"
    part = Part("part", [sys.executable, "-c", "print('a line', flush=True); " + script])
    part.start()
    try:
        wait_for(lambda: part.detail == "10 %", what="the bar's state")
        assert capfd.readouterr().err == "part       | a line\n"
    finally:
        part.end()


def test_it_says_where_and_serves(launched):
    assert f"open {launched.url}" in launched.launcher.output
    generation = launched.submit(texts=["a"])
    wait_for(lambda: launched.show(generation)["state"] == "done")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_ends_all_that_it_started(launched, gate, number):
    family = launched.family()
    generation = launched.submit(texts=["a"], hold_before=1, gate=gate.path)
    with connect(launched.events_url(generation)) as stream:
        stream.read(until=lambda seen: seen.events)
        launched.launcher.popen.send_signal(number)
        assert launched.launcher.popen.wait(30) == 0
    # gunicorn's workers are reaped by init, in its own time.
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    assert "is killed" not in launched.launcher.output
    assert launched.launcher.output.endswith("everstream | stopped\n")


def test_killed_it_takes_all_down_with_itself(launched):
    family = launched.family()
    launched.launcher.kill()
    left = psutil.wait_procs(family, timeout=30)[1]
    for process in left:
        process.kill()
    assert left == []


@pytest.mark.parametrize(
    ("words", "name"), [("everstream.engine", "engine"), ("gunicorn", "web"), ("valkey-server", "valkey")]
)
def test_what_dies_is_started_again_and_named(launched, gate, words, name):
    generation = launched.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = launched.events_url(generation)
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        launched.part(words).kill()
        wait_for(lambda: f"{name} was killed by SIGKILL; starting it again in 0.5 s" in launched.launcher.output)
        gate.open()
        wait_for(lambda: launched.part(words), what="the new process")
        if name == "web":
            events = stream.read_to_the_cut().events
            wait_for(launched._web_answers)
            with connect(url, last_id=stream.decoder.last_id) as again:
                events += again.read().events
        else:
            events = stream.read().events
    assert_whole(events)
    assert text_of(events) == "ab"


def test_a_second_start_goes_on_with_what_was_queued(launched):
    engine = launched.part("everstream.engine")
    engine.suspend()
    generation = launched.submit(texts=["a"])
    launched.launcher.popen.send_signal(signal.SIGINT)
    # The launcher ends the web part first; then it would wait for an engine that can't hear it.
    wait_for(lambda: launched.part("gunicorn") is None, what="the end of the web part")
    engine.kill()
    launched.launcher.popen.wait(30)
    launched.launch()
    wait_for(lambda: launched.show(generation)["text"] == "a")


def refused(environ):
    """What a launcher that does not start says."""
    done = subprocess.run(LAUNCHER, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stderr


def test_a_second_launcher_on_the_same_state_is_refused(launched):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = refused(launched.environ | {"PORT": str(port)})
    assert f"it runs already: process {launched.launcher.pid} at {launched.url}" in said
    assert "EVERSTREAM_STATE_DIR" in said
    assert requests.get(f"{launched.url}/readyz", timeout=30).ok


@pytest.mark.parametrize("setting", ["PORT", "EVERSTREAM_HEALTH_PORT"])
def test_a_port_in_use_is_said(tmp_path, setting):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"PORT": str(free_port()), setting: str(port)}
        said = refused(os.environ | ports | {"EVERSTREAM_STATE_DIR": str(tmp_path)})
    assert f"can't listen on 127.0.0.1:{port}: Address already in use. Set {setting} to another" in said


def test_health_checks_have_a_port_of_their_own_if_one_is_set(tmp_path):
    port = free_port()
    stack = Launched(tmp_path, app_dir=MODELS / "scripted", EVERSTREAM_HEALTH_PORT=str(port))
    try:
        stack.launch()
        assert f"everstream | web: health checks at 127.0.0.1:{port}\n" in stack.launcher.output
        assert requests.get(f"http://127.0.0.1:{port}/readyz", timeout=30).ok
    finally:
        stack.stop()


def test_a_wrong_setting_is_said():
    assert "did you mean EVERSTREAM_LEASE_S?" in refused(os.environ | {"EVERSTREAM_LEASE": "1"})


def test_an_outside_valkey_is_used(tmp_path):
    outside = Stack(tmp_path)
    outside.start_valkey()
    folder = tmp_path / "launched"
    folder.mkdir()
    stack = Launched(folder, app_dir=MODELS / "scripted", VALKEY_URL=outside.settings.log_url)
    try:
        stack.launch()
        assert stack.part("valkey-server") is None
        generation = stack.submit(texts=["a"])
        wait_for(lambda: stack.show(generation)["state"] == "done")
    finally:
        stack.stop()
        outside.stop()
