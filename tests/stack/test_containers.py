"""docker-compose.yml and deploy/Dockerfile: their parts start as they say, work together, and keep their secrets."""

import copy
import subprocess
import sys

import psutil
import pytest
import requests

from harness.containers import PASSWORD, PORTS, TOKEN, Containers, obstacle
from harness.sse_client import read_all, text_of
from harness.stack import free_port

TIMEOUT_S = 30


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    if reason := obstacle():
        pytest.skip(reason)
    started = Containers(tmp_path_factory.mktemp("containers"))
    try:
        started.start("valkey")
        started.key = started.run("web", ["everstream", "keys", "add", "me", "--scopes", "infer,admin"]).stdout.strip()
        started.start("web")
        started.start("engine")
        started.start_nginx()
        yield started
    except BaseException:
        sys.stderr.write(started.report())
        raise
    finally:
        started.stop()


def headers(containers):
    return {"Authorization": f"Bearer {containers.key}"}


def test_a_stream_passes_through_all_containers(containers):
    created = requests.post(
        f"{containers.url}/generations", json={"texts": ["a", "b"]}, headers=headers(containers), timeout=TIMEOUT_S
    )
    assert created.status_code == 201, created.text
    events = f"{containers.url}/generations/{created.json()['id']}/events"
    assert text_of(read_all(events, headers=headers(containers))) == "ab"


def test_large_body_finds_room_on_the_tmpfs(containers):
    """nginx and gunicorn keep it in a file."""
    answer = requests.post(
        f"{containers.url}/generations",
        json={"texts": ["a" * 100_000] * 3},
        headers=headers(containers),
        timeout=TIMEOUT_S,
    )
    assert answer.status_code == 201, answer.text


def test_nobody_logs_that_it_can_not_write(containers):
    for process in containers.running.values():
        assert "Read-only" not in process.output and "ermission denied" not in process.output, process.report


def test_checks_fail_without_the_part(containers):
    """Each check is of the part itself, and needs its password."""
    assert all(containers.is_healthy(name) for name in ("valkey", "web", "engine", "nginx"))
    assert not containers.is_healthy("engine", EVERSTREAM_ENGINE_NAME="another")
    with containers.secret("valkey_password", "wrong"):
        assert not containers.is_healthy("valkey")
        assert not containers.is_healthy("engine")
    elsewhere = copy.copy(containers)
    elsewhere.ports = {port: free_port() for port in PORTS}
    assert not elsewhere.is_healthy("web")
    assert not elsewhere.is_healthy("nginx")


def test_doctor_says_what_to_check_about_a_wrong_password(containers):
    with containers.secret("valkey_password", "wrong"):
        doctor = containers.run("web", ["everstream", "doctor"])
    assert doctor.returncode == 1 and "invalid username-password pair" in doctor.stdout
    assert "Check VALKEY_URL and EVERSTREAM_VALKEY_PASSWORD_FILE" in doctor.stdout


def test_password_is_in_no_command_line_environment_or_output(containers):
    processes = [psutil.Process(part.pid) for part in containers.running.values()]
    processes += [child for part in processes for child in part.children(recursive=True)]
    assert len(processes) > 8
    arguments = (containers.folder / "data" / "arguments").read_text()
    assert arguments == "/valkey.conf -\n"
    for process in processes:
        seen = "\0".join([*process.cmdline(), *process.environ().values()])
        assert PASSWORD not in seen and "p%40ss" not in seen and TOKEN not in seen
    doctor = containers.run("web", ["everstream", "doctor"]).stdout
    assert "ok   | Valkey at redis://127.0.0.1" in doctor
    for output in (doctor, *(part.output for part in containers.running.values())):
        assert "p@ss" not in output and "p%40ss" not in output and TOKEN not in output


def test_valkey_refuses_those_without_the_password(containers):
    ping = ["redis-cli", "-p", str(containers.ports["6379"]), "ping"]
    assert "NOAUTH" in subprocess.run(ping, capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_valkey_does_not_start_without_a_password(containers, content):
    """A missing or empty secret must not leave it open."""
    script = containers.services["valkey"]["command"][2]
    if content is None:
        script = script.replace("/run/secrets/valkey_password", "/run/secrets/missing")
    with containers.secret("valkey_password", content or ""):
        refused = containers.run("valkey", ["sh", "-euc", script])
    assert refused.returncode != 0 and "eading config" not in refused.stdout + refused.stderr
    assert ("missing" if content is None else "is empty") in refused.stderr


def test_valkey_has_the_settings_that_doctor_wants(containers):
    doctor = containers.run("web", ["everstream", "doctor"]).stdout
    assert "ok   | Valkey writes each append to its disk" in doctor and "maxmemory-policy" not in doctor


@pytest.mark.parametrize(("content", "token"), [(TOKEN, TOKEN), (f"{TOKEN}\n", TOKEN), ("", None)])
def test_hugging_face_token_is_read_from_the_secret(containers, content, token):
    pytest.importorskip("huggingface_hub")
    with containers.secret("hf_token", content):
        shown = containers.run("engine", ["python", "-c", "import huggingface_hub; print(huggingface_hub.get_token())"])
    assert shown.stdout.strip() == str(token), shown.stderr


def test_sandbox_is_as_tight_as_the_containers(containers):
    """Otherwise these tests would prove little."""
    script = "id -u; touch /x README.md; touch /tmp/x && echo temporary; grep -E '^(CapEff|NoNew)' /proc/self/status"
    shown = containers.run("web", ["sh", "-c", script])
    assert shown.stdout.split() == ["65534", "temporary", "CapEff:", "0000000000000000", "NoNewPrivs:", "1"]
    assert shown.stderr.count("Read-only file system") == 2
