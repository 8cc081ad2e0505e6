"""The commands of deploy/systemd's units, on a file system that is read-only but for the folders that a unit names."""

import socket
from pathlib import Path

import pytest
import requests

from harness import sandbox
from harness.sse_client import read_all, text_of
from harness.stack import MODELS, Process, free_port, wait_for
from harness.systemd_units import environ_of, service

TIMEOUT_S = 30
CREDENTIALS = "/run/credentials/everstream"


class Units:
    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.running = []
        (folder / "lib").mkdir(mode=0o700)
        (folder / "cache").mkdir()
        (folder / "hf_token").touch()

    def start(self, part, **environ):
        unit = service(part)
        # `%d` is the folder of the credentials.
        given = {name: value.replace("%d", CREDENTIALS) for name, value in environ_of(part).items()}
        given |= {"PORT": self.port, "EVERSTREAM_APP_DIR": MODELS / "scripted", **environ}
        folders = [(self.folder / "cache", "/var/cache/everstream")] if "CacheDirectory" in unit else []
        state = (self.folder / "lib", "/var/lib/everstream")
        folders += [state] if "StateDirectory" in unit else []
        read_only = [] if "StateDirectory" in unit else [state]
        read_only += [(self.folder / "hf_token", f"{CREDENTIALS}/hf_token")] if "LoadCredential" in unit else []
        wrapped = sandbox.sandboxed({"tmpfs": ["/tmp:mode=0700"]}, "990:990", files=read_only, folders=folders)
        executable, *arguments = unit["ExecStart"].split()
        command = [str(sandbox.VIRTUAL_ENVIRONMENT / "bin" / Path(executable).name), *arguments]
        self.running.append(Process(part, [*wrapped, *sandbox.with_environ(given), *command], None, self.folder))
        return self.running[-1]


@pytest.fixture
def units(tmp_path):
    if reason := sandbox.obstacle():
        pytest.skip(reason)
    started = Units(tmp_path)
    yield started
    for process in reversed(started.running):
        process.stop()


def test_commands_work_in_the_units_folders(units):
    valkey = units.start("valkey")
    wait_for(lambda: (units.folder / "lib" / "valkey.sock").exists(), what="Valkey's socket")
    # In Linux's abstract namespace, so that the sandbox sees it.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(f"\0everstream-{units.port}")
        notified.settimeout(TIMEOUT_S)
        web = units.start("web", NOTIFY_SOCKET=f"@everstream-{units.port}")
        assert notified.recv(1000).startswith(b"READY=1")
    assert requests.get(f"{units.url}/healthz", timeout=TIMEOUT_S).ok
    engine = units.start("engine")
    created = requests.post(f"{units.url}/generations", json={"texts": ["a", "b"]}, timeout=TIMEOUT_S)
    assert text_of(read_all(f"{units.url}/generations/{created.json()['id']}/events")) == "ab"
    for process in (valkey, web, engine):
        process.assert_alive()
        assert "Read-only" not in process.output and "ermission denied" not in process.output, process.report
