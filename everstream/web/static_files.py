"""The files of the page and of the clients. Each is at `/static/<path>`, where browsers ask every time whether it has
changed, and at `/static/v-<version>/<path>`, which they keep for a year: a change of any file makes a new version.

Modules import each other by relative addresses, so a page that starts with one version gets all of it.
"""

import hashlib
from pathlib import Path

from flask import Flask, Response, send_from_directory

from everstream.settings import PROJECT_ROOT
from everstream.web.access.rules import PUBLIC, allow

FOLDER = PROJECT_ROOT / "static"
YEAR_S = 31_536_000
UNVERSIONED, VERSIONED = ENDPOINTS = ("static", "versioned_static")


Stamp = tuple[int, int]


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _stamps_of(folder: Path) -> dict[Path, Stamp]:
    return {path: _stamp(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _version_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in _stamps_of(folder):
        for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
            digest.update(b"%d " % len(part) + part)
    return digest.hexdigest()[:16]


_STAMPS = _stamps_of(FOLDER)
VERSION = _version_of(FOLDER)


def register(app: Flask) -> None:
    app.add_url_rule("/static/<path:filename>", UNVERSIONED, send)
    app.add_url_rule("/static/v-<version>/<path:filename>", VERSIONED, send_versioned)
    # The folder as templates write it: relative, for services under a path.
    app.jinja_env.globals["static"] = f"static/v-{VERSION}"


@allow(PUBLIC)
def send(filename: str) -> Response:
    return send_from_directory(FOLDER, filename)


@allow(PUBLIC)
def send_versioned(version: str, filename: str) -> Response:
    response = send_from_directory(FOLDER, filename)
    # During a deploy, a process may be asked for another version's files, or its own may change on disk. It sends what
    # it has, but browsers must not keep that.
    path = FOLDER / filename
    if version == VERSION and _STAMPS.get(path) == _stamp(path):
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
    else:
        response.headers["Cache-Control"] = "no-store"
    return response
