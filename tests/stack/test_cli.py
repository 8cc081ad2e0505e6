"""The console script: its parts start, and `doctor` finds problems and says how to fix them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import valkey

from everstream import __version__
from everstream.host import doctor, valkey_server
from everstream.settings import PROJECT_ROOT, load_settings
from harness.sse_client import read_all, text_of
from harness.stack import MODELS, Stack, free_port, wait_for

CLI = [sys.executable, "-m", "everstream.cli"]


def run(*arguments, **environ):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVERSTREAM_")}
    command, environ = [*CLI, *arguments], kept | {"PYTHONWARNINGS": "error"} | environ
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def findings(folder, **environ):
    """The lines of `doctor` that are not ok, and its exit status."""
    done = run("doctor", **{"EVERSTREAM_STATE_DIR": str(folder / "state"), "PORT": str(free_port()), **environ})
    lines = [line for line in done.stdout.splitlines() if not line.startswith("ok ")]
    return "\n".join(lines), done.returncode


def test_version_help_and_an_unknown_command():
    assert run("--version").stdout.strip() == __version__
    for command in ("run", "engine", "web", "valkey", "check", "ready", "doctor"):
        assert command in run("--help").stdout
    unknown = run("fly")
    assert unknown.returncode == 2 and "fly" in unknown.stderr


@pytest.mark.parametrize("command", ["run", "engine", "web", "valkey", "doctor"])
def test_invalid_setting_is_reported_in_one_line(command):
    done = run(command, EVERSTREAM_LEASES="3")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "EVERSTREAM_LEASES" in done.stderr and "EVERSTREAM_LEASE_S" in done.stderr


def test_second_valkey_on_the_same_state_is_refused(own_stack):
    stack = own_stack()
    stack._start("valkey", [*CLI, "valkey"])
    wait_for(lambda: valkey_server.answers(stack.settings), what="Valkey")
    for command in ("valkey", "run"):
        second = run(command, **stack.environ)
        assert second.returncode == 1 and "already running: process" in second.stderr
    unused = run("valkey", VALKEY_URL="redis://127.0.0.1:1")
    assert unused.returncode == 1 and "VALKEY_URL is set" in unused.stderr


def test_ready_says_whether_this_engine_takes_work(own_stack):
    stack = own_stack()
    unreachable = run("ready", **stack.environ)
    assert unreachable.returncode == 1 and "everstream: Valkey at unix:" in unreachable.stderr
    stack.start()
    of_engine = {**stack.environ, "EVERSTREAM_ENGINE_NAME": "engine0"}
    assert (run("ready", **of_engine).stdout, run("ready", **of_engine).returncode) == ("engine0 is ready\n", 0)
    stack.engines[0].kill()
    wait_for(lambda: run("ready", **of_engine).returncode == 1, what="the report of a dead engine to expire")
    assert run("ready", **of_engine).stdout == "engine0 does not report\n"
    failed = stack.start_engine(EVERSTREAM_APP_DIR=str(stack.folder))
    failed.popen.wait(60)
    of_failed = run("ready", **{**stack.environ, "EVERSTREAM_ENGINE_NAME": "engine1"})
    assert of_failed.returncode == 1 and of_failed.stdout.startswith("engine1 is failed: ")


def test_relative_paths_in_a_folder_that_shadows_modules(own_stack, tmp_path):
    """The parts don't run in the caller's folder, but relative paths refer to it."""
    folder = tmp_path / "here"
    shutil.copytree(MODELS / "scripted", folder / "mine")
    for name in ("flask.py", "valkey.py", "json.py", "wsgi.py", "everstream.py"):
        (folder / name).write_text("raise RuntimeError('not this one')\n")
    stack = own_stack()
    stack.environ |= {"EVERSTREAM_APP_DIR": "./mine", "EVERSTREAM_STATE_DIR": "st", "MODEL": "scripted"}
    stack._start("supervisor", [str(Path(sys.executable).with_name("everstream")), "run"], cwd=folder)
    wait_for(lambda: stack._is_ok("/readyz"), what="a ready model")
    assert text_of(read_all(f"{stack.url}/stream?texts=a")) == "a"


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"EVERSTREAM_APP_DIR": "/nowhere"}, "EVERSTREAM_APP_DIR=/nowhere has no app.py"),
        ({"EVERSTREAM_STATE_DIR": "/proc/x"}, "EVERSTREAM_STATE_DIR can't be used"),
        ({"VALKEY_URL": "foo"}, "VALKEY_URL: expected"),
    ],
)
def test_run_that_can_not_start_says_why_in_one_line(environ, reason):
    done = run("run", **environ)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert reason in done.stderr


def test_ctrl_c_while_the_engine_waits_for_valkey(own_stack):
    engine = own_stack().start_engine()
    wait_for(lambda: "waiting for Valkey" in engine.output, what="the engine to wait")
    engine.popen.send_signal(signal.SIGINT)
    assert engine.popen.wait(30) == 0
    assert "Traceback" not in engine.output


def test_engine_of_several_models_must_be_named(tmp_path):
    models = {"MODELS": f"say={MODELS / 'scripted'} count={MODELS / 'plain'}"}
    for arguments, reason in (
        (["engine"], "EVERSTREAM_ENGINE_MODEL must name the model that this engine runs: say, count"),
        (["engine", "--model", "sya"], "EVERSTREAM_ENGINE_MODEL='sya': MODELS has say, count"),
        (["run", "--model", "sya"], "MODELS='sya': 'sya' is not NAME=FOLDER"),
    ):
        done = run(*arguments, **models)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert reason in done.stderr
    assert "MODELS is not set" in run("engine", "--model", "say").stderr


def test_engine_of_one_of_several_models(own_stack, tmp_path):
    """In a folder of its own, with relative paths, of which that for one model wins."""
    shutil.copytree(MODELS / "plain", tmp_path / "here" / "count")
    models = {"say": MODELS / "scripted", "count": tmp_path / "here" / "count"}
    stack = own_stack(models=models, EVERSTREAM_ENGINE_NAME="host", MODEL="./all", MODEL__COUNT="./own")
    stack.start_valkey()
    stack.start_web()
    environ = {"MODELS": "say=elsewhere count=count", "PYTHONPATH": str(PROJECT_ROOT)}
    engine = stack._start("engine", [*CLI, "engine", "--model", "count"], cwd=tmp_path / "here", **environ)
    answer = wait_for(lambda: stack.readiness().get("engines"), what="the engine's first report")
    assert [found["name"] for found in answer] == ["host-count"]
    assert text_of(read_all(f"{stack.url}/stream?model=count&count=2")) == "0 1 "
    assert psutil.Process(engine.pid).environ()["MODEL"] == str(tmp_path / "here" / "own")


def test_doctor_checks_each_model(tmp_path):
    models = f"good={MODELS / 'scripted'} bad=/nowhere chat={PROJECT_ROOT}"
    output, status = findings(tmp_path, MODELS=models, MODEL__CHAT="/weights")
    assert status == 1
    assert "bad: the model folder can't be used: /nowhere/input_schema.py does not exist. Set MODELS" in output
    assert "chat: /weights has no config.json" in output
    assert "good" not in output


REQUEST_CLASS_APP = """
import inferless
from pydantic import BaseModel


@inferless.request
class Request(BaseModel):
    prompt: str


class InferlessPythonModel:
    def infer(self, request):
        return {}
"""


def test_doctor_accepts_inputs_that_are_declared_in_app(tmp_path):
    (tmp_path / "app.py").write_text(REQUEST_CLASS_APP)
    for environ in ({"EVERSTREAM_APP_DIR": str(tmp_path)}, {"MODELS": f"mine={tmp_path}"}):
        output, status = findings(tmp_path, **environ)
        assert status == 0, output


def test_each_part_starts_by_itself(own_stack):
    stack = own_stack()
    stack.valkey = stack._start("valkey", [*CLI, "valkey"])
    stack.engines.append(stack._start("engine", [*CLI, "engine"]))
    stack.start_web([*CLI, "web"])
    stack.wait_ready()
    output, status = findings(stack.folder, **stack.environ)
    assert status == 0, output


def test_healthy_machine(tmp_path):
    output, status = findings(tmp_path, EVERSTREAM_APP_DIR=str(MODELS / "scripted"))
    assert status == 0 and not [line for line in output.splitlines() if not line.startswith("note")], output


@pytest.mark.parametrize(
    ("environ", "what", "advice"),
    [
        ({"EVERSTREAM_APP_DIR": "/nowhere"}, "/nowhere/input_schema.py does not exist", "EVERSTREAM_APP_DIR"),
        ({"MODEL": "/nowhere"}, "/nowhere has no config.json", "MODEL"),
        ({"EVERSTREAM_MAX_STREAMS": "60000"}, "open files", "EVERSTREAM_MAX_STREAMS"),
        ({"VALKEY_URL": "redis://127.0.0.1:1"}, "can't be used", "VALKEY_URL"),
        ({"EVERSTREAM_STATE_DIR": "/" + "x" * 200}, "too long", "EVERSTREAM_STATE_DIR"),
    ],
)
def test_unusable_settings_are_reported(tmp_path, environ, what, advice):
    output, status = findings(tmp_path, **environ)
    assert status == 1
    assert any(line.startswith("fail") and what in line and advice in line for line in output.splitlines()), output


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, ThreadPoolExecutor(1) as pool:
        pool.submit(answer_nonsense, taken)
        output, status = findings(tmp_path, PORT=str(taken.getsockname()[1]))
    assert status == 1 and "Set PORT to another" in output


def answer_nonsense(server):
    """As a server that does not speak HTTP."""
    connection, _ = server.accept()
    connection.sendall(b"220 mail\r\n")
    connection.close()


def test_valkey_that_may_lose_entries(tmp_path):
    stack = Stack(tmp_path)
    stack.start_valkey()
    try:
        client = valkey.Valkey.from_url(stack.settings.log_url)
        url = {"VALKEY_URL": stack.settings.log_url}
        assert findings(tmp_path, **url)[1] == 0
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendfsync", "everysec")
        output, status = findings(tmp_path, **url)
        assert status == 1 and "noeviction" in output and "appendfsync everysec" in output
        client.config_set("appendonly", "no")
        assert "Set appendonly yes" in findings(tmp_path, **url)[0]
        client.execute_command("ACL", "SETUSER", "default", "-config")
        assert "can't be read" in findings(tmp_path, **url)[0]
        client.close()
    finally:
        stack.stop()


@pytest.mark.parametrize(
    ("gpu", "build", "level", "what"),
    [
        ("NVIDIA H100, 590.48, 81559 MiB", "2.13.0", "ok", "NVIDIA H100, 81559 MiB"),
        ("NVIDIA H100, 550.54, 81559 MiB", "2.13.0", "fail", "driver 550.54 is too old"),
        ("NVIDIA H100, 590.48, 81559 MiB", "2.13.0+cpu", "fail", "torch 2.13.0+cpu can't use it"),
    ],
)
def test_gpu(gpu, build, level, what):
    (finding,) = doctor.gpu_findings(gpu, build)
    assert finding.level == level and what in finding.what


@pytest.mark.parametrize(
    ("config", "levels"),
    [
        ("proxy_pass http://127.0.0.1:8000;", []),
        ("  proxy_ignore_headers Cache-Control X-Accel-Buffering;", ["fail"]),
        ("gzip_types text/css text/event-stream;", ["fail"]),
        ("proxy_read_timeout 10s;\nproxy_read_timeout 60;\nproxy_read_timeout 1m;", ["note"]),
        ("# proxy_read_timeout 10s;", []),
        ((PROJECT_ROOT / "deploy" / "nginx.conf").read_text(), []),
        ((PROJECT_ROOT / "deploy" / "everstream-locations.conf").read_text(), []),
    ],
)
def test_nginx_configuration(config, levels):
    assert [finding.level for finding in doctor.nginx_findings(config, load_settings({}))] == levels
