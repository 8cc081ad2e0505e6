"""Runs a command as a container of docker-compose.yml does, as far as bubblewrap can: on a read-only root, as the same
user, without capabilities and new privileges, with the same tmpfs, secrets and volumes. On the machine's own network.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from everstream.settings import PROJECT_ROOT

HIDDEN = {"dev", "proc", "run", "tmp", "var"}
"""Top-level folders that a container does not share with the machine."""
VIRTUAL_ENVIRONMENT = Path(sys.prefix).resolve()


def obstacle():
    """Why nothing can be sandboxed here, and the remedy; None if there is nothing in the way."""
    if shutil.which("bwrap") is None:
        return "bwrap is missing: apt-get install bubblewrap"
    probe = subprocess.run(
        ["bwrap", "--unshare-user", "--uid", "101", "--ro-bind", "/", "/", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no user namespaces here: {probe.stderr.strip()}" if probe.returncode else None


def sandboxed(service, user, *, files=(), folders=(), path=()):
    """The beginning of a command line that runs the rest of it in the sandbox.

    `service`: from docker-compose.yml. `files`, `folders`: pairs of a path here and one in the sandbox, which can write
    to the folders. `path`: folders with programs, before the virtual environment's.
    """
    uid, gid = user.split(":")
    command = [
        "bwrap",
        "--die-with-parent",
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--uid",
        uid,
        "--gid",
        gid,
    ]
    command += [option for entry in sorted(Path("/").iterdir()) for option in _shared(entry)]
    command += ["--proc", "/proc", "--dev", "/dev", "--dir", "/run/secrets"]
    for mount in service.get("tmpfs", ()):
        target, _, options = mount.partition(":")
        command += ["--perms", re.search(r"mode=(\d+)", options)[1], "--tmpfs", target]
    for shared in (PROJECT_ROOT, VIRTUAL_ENVIRONMENT, *path):
        command += ["--ro-bind", str(shared), str(shared)]
    for here, there in files:
        command += ["--ro-bind", str(here), there]
    for here, there in folders:
        command += ["--bind", str(here), there]
    programs = ":".join(map(str, (*path, VIRTUAL_ENVIRONMENT / "bin", "/usr/sbin:/usr/bin:/sbin:/bin")))
    environ = {"PATH": programs, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return [*command, "--remount-ro", "/", "--chdir", str(PROJECT_ROOT), "--clearenv", *with_environ(environ)]


def with_environ(environ):
    return [part for name, value in environ.items() for part in ("--setenv", name, str(value))]


def _shared(entry):
    if entry.name in HIDDEN:
        return []
    if entry.is_symlink():
        return ["--symlink", str(entry.readlink()), str(entry)]
    return ["--ro-bind", str(entry), str(entry)] if entry.is_dir() else []
