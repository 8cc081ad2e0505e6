"""The packages of the servers that `bench.topics` compares with, installed once into the user's cache directory.

Nothing of them gets into Everstream's own environment. Raises AssertionError, with the installer's output, if something
can't be installed.
"""

import hashlib
import shutil
from functools import cache
from pathlib import Path

from everstream.settings import PROJECT_ROOT, load_settings
from harness import client_environments

FOLDER = Path(__file__).parent
LOCKS = (PROJECT_ROOT / "hashes-peers.txt", FOLDER / "package-lock.json")


@cache
def _home():
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in LOCKS)).hexdigest()
    return load_settings().cache_path / f"bench-peers-{digest[:12]}"


@cache
def python():
    """The Python that has sse-starlette, flask-sse and Node."""
    return str(_once("python", lambda folder: client_environments.python(folder, "peers")) / "bin/python")


@cache
def node():
    return str(client_environments.node_home(python()) / "bin/node")


@cache
def node_packages():
    """The folder of Node's packages."""
    return _once("node", lambda folder: client_environments.npm_install(FOLDER, folder, python()))


def _once(name, install):
    """The folder that `install` fills. What was interrupted is installed again."""
    target = _home() / name
    done = target / ".installed"
    if not done.exists():
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        install(target)
        done.touch()
    return target
