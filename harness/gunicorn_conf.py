"""What gunicorn.conf.py makes of an environment."""

import os
import runpy
from collections.abc import Mapping
from unittest import mock

from everstream.settings import PROJECT_ROOT


def graceful_timeout_s(environ: Mapping[str, str]) -> int:
    """How long gunicorn's workers may take to end."""
    with mock.patch.dict(os.environ, environ, clear=True):
        found: int = runpy.run_path(str(PROJECT_ROOT / "gunicorn.conf.py"))["graceful_timeout"]
    return found
