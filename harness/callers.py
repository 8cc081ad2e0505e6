"""People who use a service that needs keys."""

import subprocess
import sys

import requests

from everstream.settings import PROJECT_ROOT
from harness.sse_client import read_all

TIMEOUT_S = 30
CLI_TIMEOUT_S = 60


def keys(stack, *arguments):
    """Run `everstream keys`; returns its stdout."""
    command = [sys.executable, "-m", "everstream.cli", "keys", *arguments]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=stack.environ, capture_output=True, text=True, timeout=CLI_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Caller:
    """Someone with a key."""

    def __init__(self, stack, key):
        self.stack, self.key = stack, key
        self.headers = {"Authorization": f"Bearer {key}"}

    def call(self, method, path, **options):
        headers = self.headers | options.pop("headers", {})
        return requests.request(method, self.stack.url + path, headers=headers, timeout=TIMEOUT_S, **options)

    def start(self, **inputs):
        answer = self.call("POST", "/generations", json=inputs)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def read(self, path, last_id=""):
        return read_all(self.stack.url + path, last_id=last_id, headers=self.headers)
