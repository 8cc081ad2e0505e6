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
UNVERSIONED = "static"
"""The endpoint that Flask has for the folder."""
ENDPOINTS = (UNVERSIONED, "send_versioned")


def _version_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
            digest.update(b"%d " % len(part) + part)
    return digest.hexdigest()[:16]


VERSION = _version_of(FOLDER)


def register(app: Flask) -> None:
    app.add_url_rule("/static/v-<version>/<path:filename>", view_func=send_versioned)
    # The folder as templates write it: relative, for services under a path.
    app.jinja_env.globals["static"] = f"static/v-{VERSION}"


@allow(PUBLIC)
def send_versioned(version: str, filename: str) -> Response:
    response = send_from_directory(FOLDER, filename)
    # While versions are being replaced, one process may be asked for another's files. Its own are the best that it has.
    if version == VERSION:
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
    else:
        response.headers["Cache-Control"] = "no-store"
    return response
