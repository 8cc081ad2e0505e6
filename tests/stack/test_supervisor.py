"""`everstream run` starts all parts, restarts those that die, and leaves nothing behind."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.parse

import psutil
import pytest
import requests

from everstream.contract import inputs
from everstream.contract.loader import load_schema
from everstream.host.child_process import ChildProcess, Program
from everstream.host.progress import curl_command
from everstream.host.supervisor import demo_folders
from everstream.host.terminal import Terminal
from everstream.settings import engine_environ, load_settings
from harness.sse_client import assert_whole, connect, read_all, text_of
from harness.stack import MODELS, SUPERVISOR, Stack, Supervised, free_port, wait_for


@pytest.fixture
def launched(tmp_path):
    stack = Supervised(tmp_path, app_dir=MODELS / "scripted")
    try:
        stack.launch()
        # Wait for all workers: one that was just forked does not handle signals yet, and would miss the first.
        assert stack.streams() == 0
        yield stack
    finally:
        for process in stack.family() if stack.supervisor.popen.poll() is None else []:
            process.kill()
        stack.stop()


def test_startup_is_quiet_and_prints_a_command(launched):
    """A line for each part, the progress, and the address. The printed command streams from the model."""
    lines = launched.supervisor.output.splitlines()
    state = launched.settings.valkey_socket
    assert lines[:3] == [
        f"everstream | valkey: unix:{state}",
        f"everstream | engine: {launched.settings.app_dir}",
        f"everstream | web: 2 workers at {launched.url}",
    ]
    assert [line for line in lines if not line.startswith("everstream | ")] == []
    command = wait_for(lambda: [line for line in launched.supervisor.output.splitlines() if "curl" in line])[0]
    answer = read_all(shlex.split(command.partition("| ")[2])[-1])
    assert_whole(answer)
    assert text_of(answer) == "a"


def test_parts_share_the_session_but_no_process_group(launched):
    """Linux divides busy cores between sessions. Ctrl-C must reach the supervisor alone."""
    pid = launched.supervisor.pid
    parts = psutil.Process(pid).children()
    assert len(parts) == 3
    assert {os.getsid(part.pid) for part in parts} == {os.getsid(pid)}
    assert [os.getpgid(part.pid) for part in parts] == [part.pid for part in parts]


def test_demo_model_is_not_fetched_for_another_model_folder(tmp_path):
    stack = Supervised(tmp_path, app_dir=MODELS / "scripted", EVERSTREAM_CACHE_DIR=str(tmp_path / "cache"))
    stack.environ["MODEL"] = ""
    try:
        stack.launch()
    finally:
        stack.stop()
    assert not (tmp_path / "cache").exists()


def test_demo_model_is_built_in_each_cache_that_wants_it(tmp_path):
    environ = {
        "MODELS": f"a=. b=. c=. other={MODELS / 'plain'}",
        "EVERSTREAM_CACHE_DIR": str(tmp_path / "all"),
        "EVERSTREAM_CACHE_DIR__B": str(tmp_path / "b"),
        "EVERSTREAM_CACHE_DIR__OTHER": str(tmp_path / "other"),
        "MODEL__C": "org/name",
    }
    served = load_settings(environ).served
    of_engines = {model: load_settings(engine_environ(environ, model)) for model in served}
    found = {folder.parent.name: model.name for folder, model in demo_folders(of_engines).items()}
    assert found == {"all": "a", "b": "b"}


SCHEMA_OF_ARRAYS = """
INPUT_SCHEMA = {
    "grid": {"datatype": "INT32", "shape": [2, 2], "required": True, "example": [[1, 2], [3, 4]]},
    "options": {"datatype": "JSON", "required": True, "example": {"a b": [1, {"c": "it's"}], "d": None}},
    "turns": {"datatype": "STRING", "format": "json", "required": True, "example": [{"role": "user"}]},
    "text": {"datatype": "STRING", "required": True, "example": ["a & b"]},
    "is_loud": {"datatype": "BOOL", "required": True, "example": [True]},
    "speed": {"datatype": "FP32", "required": True, "example": 1.5},
}
"""


def test_printed_command_sends_the_examples(tmp_path):
    (tmp_path / "input_schema.py").write_text(SCHEMA_OF_ARRAYS)
    settings = load_settings({"EVERSTREAM_APP_DIR": str(tmp_path)})
    url = shlex.split(curl_command(settings, settings.served[0]))[-1]
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query, strict_parsing=True)
    schema = load_schema(tmp_path, isolated=True).inputs
    assert inputs.from_query(query, schema, 100) == inputs.from_json(inputs.example(schema), schema, 100)


def test_progress_bar_of_a_part_is_its_detail_not_a_line(capfd):
    script = r"import sys, time; sys.stderr.write('\r10 %\r20 %'); sys.stderr.flush(); time.sleep(60)"
    program = Program("part", [sys.executable, "-c", "print('a line', flush=True); " + script])
    part = ChildProcess(program, Terminal())
    part.start()
    try:
        wait_for(lambda: part.detail == "10 %", what="the bar's state")
        assert capfd.readouterr().err == "part       | a line\n"
    finally:
        part.end()


LOADING_APP = """
import sys
import time
from pathlib import Path

class InferlessPythonModel:
    def initialize(self):
        while not (Path(__file__).parent / "gate").exists():
            sys.stderr.write("\\rLoading shards:  50%|#####     | 1/2 [00:01<00:01]")
            sys.stderr.flush()
            time.sleep(0.05)

    def infer(self, inputs):
        return {"text": "a"}
"""


def test_progress_of_loading_is_shown_to_those_who_wait(tmp_path):
    (tmp_path / "app.py").write_text(LOADING_APP)
    (tmp_path / "input_schema.py").write_text("INPUT_SCHEMA = {}\n")
    (tmp_path / "stack").mkdir()
    stack = Supervised(tmp_path / "stack", app_dir=tmp_path)
    try:
        stack.begin()
        wait_for(stack.web_answers)
        wait_for(lambda: models(stack)[0]["message"] == "scripted is loading: Loading shards: 50% 1/2")
        (tmp_path / "gate").touch()
        wait_for(lambda: models(stack)[0]["state"] == "ready")
        assert models(stack)[0]["message"] is None
    finally:
        stack.stop()


def models(stack):
    return requests.get(f"{stack.url}/models", timeout=30).json()["models"]


def test_supervisor_prints_its_url_and_serves(launched):
    assert f"open {launched.url}" in launched.supervisor.output
    generation = launched.submit(texts=["a"])
    wait_for(lambda: launched.show(generation)["state"] == "done")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_ends_all_child_processes(launched, gate, number):
    family = launched.family()
    generation = launched.submit(texts=["a"], hold_before=1, gate=gate.path)
    with connect(launched.events_url(generation)) as stream:
        stream.read(until=lambda seen: seen.events)
        launched.supervisor.popen.send_signal(number)
        assert launched.supervisor.popen.wait(30) == 0
    # gunicorn's workers are reaped by init, which may take a while.
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    assert "; killing it" not in launched.supervisor.output
    assert launched.supervisor.output.endswith("everstream | stopped\n")


def test_killed_supervisor_takes_its_children_down(launched):
    family = launched.family()
    launched.supervisor.kill()
    left = psutil.wait_procs(family, timeout=30)[1]
    for process in left:
        process.kill()
    assert left == []


@pytest.mark.parametrize(
    ("words", "name"), [("everstream.engine.main", "engine"), ("gunicorn", "web"), ("valkey-server", "valkey")]
)
def test_dead_part_is_restarted_and_named(launched, gate, words, name):
    generation = launched.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = launched.events_url(generation)
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        launched.part(words).kill()
        wait_for(lambda: f"{name} was killed by SIGKILL; restarting in 0.5 s" in launched.supervisor.output)
        gate.open()
        wait_for(lambda: launched.part(words), what="the new process")
        if name == "web":
            events = stream.read_until_cut().events
            wait_for(launched.web_answers)
            with connect(url, last_id=stream.decoder.last_id) as again:
                events += again.read().events
        else:
            events = stream.read().events
    assert_whole(events)
    assert text_of(events) == "ab"


def test_restart_continues_queued_generations(launched):
    engine = launched.part("everstream.engine.main")
    engine.suspend()
    generation = launched.submit(texts=["a"])
    launched.supervisor.popen.send_signal(signal.SIGINT)
    # The supervisor stops the web part first; then it would wait for the suspended engine.
    wait_for(lambda: launched.part("gunicorn") is None, what="the end of the web part")
    engine.kill()
    launched.supervisor.popen.wait(30)
    launched.launch()
    wait_for(lambda: launched.show(generation)["text"] == "a")


def refused(environ):
    """The error output of a supervisor that does not start."""
    done = subprocess.run(SUPERVISOR, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stderr


def test_second_supervisor_on_the_same_state_is_refused(launched):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    error = refused(launched.environ | {"PORT": str(port)})
    assert f"already running: process {launched.supervisor.pid} at {launched.url}" in error
    assert "EVERSTREAM_STATE_DIR" in error
    assert requests.get(f"{launched.url}/readyz", timeout=30).ok


@pytest.mark.parametrize("setting", ["PORT", "EVERSTREAM_HEALTH_PORT"])
def test_port_in_use_is_reported(tmp_path, setting):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"PORT": str(free_port()), setting: str(port)}
        error = refused(os.environ | ports | {"EVERSTREAM_STATE_DIR": str(tmp_path)})
    assert f"can't listen on 127.0.0.1:{port}: Address already in use. Set {setting} to another" in error


def test_health_port_is_served_if_set(tmp_path):
    port = free_port()
    stack = Supervised(tmp_path, app_dir=MODELS / "scripted", EVERSTREAM_HEALTH_PORT=str(port))
    try:
        stack.launch()
        assert f"everstream | web: health checks at 127.0.0.1:{port}\n" in stack.supervisor.output
        assert requests.get(f"http://127.0.0.1:{port}/readyz", timeout=30).ok
    finally:
        stack.stop()


def test_service_with_keys_is_watched(tmp_path):
    """On its main port it says only whether it is ready."""
    stack = Supervised(tmp_path, app_dir=MODELS / "scripted", EVERSTREAM_ACCESS="keys", EVERSTREAM_LEASE_S="0.5")
    try:
        stack.launch()
        stack.part("everstream.engine.main").kill()
        wait_for(lambda: stack.supervisor.output.count("ready after") == 2, what="the engine to be ready again")
        assert "Traceback" not in stack.supervisor.output
    finally:
        stack.stop()


def test_invalid_setting_is_reported():
    assert "did you mean EVERSTREAM_LEASE_S?" in refused(os.environ | {"EVERSTREAM_LEASE": "1"})


def test_external_valkey_is_used(tmp_path):
    external = Stack(tmp_path)
    external.start_valkey()
    folder = tmp_path / "launched"
    folder.mkdir()
    stack = Supervised(folder, app_dir=MODELS / "scripted", VALKEY_URL=external.settings.log_url)
    try:
        stack.launch()
        assert stack.part("valkey-server") is None
        generation = stack.submit(texts=["a"])
        wait_for(lambda: stack.show(generation)["state"] == "done")
    finally:
        stack.stop()
        external.stop()


@pytest.mark.parametrize(("status", "backoffs"), [(6, ["0.5", "0.5", "0.5"]), (1, ["0.5", "1", "2"])])
def test_replacement_that_a_process_asks_for_needs_no_backoff(capfd, status, backoffs):
    """Each stop of a model that does not end in time asks for one."""
    command = [sys.executable, "-c", f"raise SystemExit({status})"]
    child = ChildProcess(Program("engine", command, replaced_on=6), Terminal())
    child.start()
    said = ""

    def has_died_three_times():
        nonlocal said
        child.poll()
        said += capfd.readouterr().err
        return said.count("restarting in") == 3

    wait_for(has_died_three_times)
    child.end()
    assert re.findall(r"restarting in (\S+) s", said) == backoffs
