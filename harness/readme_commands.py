"""Runs the commands in the README of `examples/` as written, but on a free port, and compares what they print."""

import re
import shlex
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass

from everstream.settings import PROJECT_ROOT
from harness.stack import Supervised

README = PROJECT_ROOT / "examples" / "README.md"
DOCUMENTED_ADDRESS = "http://127.0.0.1:8000"
COMMAND_TIMEOUT_S = 120
ANYTHING = "…"


@dataclass(frozen=True)
class Example:
    """One section: the settings before `make run`, the commands after it, and the lines that these print."""

    settings: dict[str, str]
    commands: list[str]
    output: list[str]


def read_example(name):
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)[1]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (commands,) = [text.splitlines() for language, text in blocks if language == "sh"]
    output = [line for language, text in blocks if not language for line in text.splitlines()]
    # `make test` has built the model.
    launch, *rest = [command for command in commands if command != "make model"]
    *settings, make, target = shlex.split(launch)
    assert (make, target) == ("make", "run")
    return Example(dict(setting.split("=", 1) for setting in settings), rest, output)


@contextmanager
def launched_example(folder, example, **environ):
    """Everstream, started by the supervisor with the example's settings."""
    stack = Supervised(folder, **example.settings, **environ)
    try:
        yield stack.launch()
    finally:
        stack.stop()


def run_commands(stack, example, folder):
    """Run the commands in `folder`, and return the lines that they print."""
    script = "\n".join(["set -euo pipefail", *example.commands])
    assert DOCUMENTED_ADDRESS in script
    done = subprocess.run(
        ["bash", "-c", script.replace(DOCUMENTED_ADDRESS, stack.url)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=True,
    )
    return done.stdout.splitlines()


def assert_printed(expected, lines):
    """The expected lines occur in this order, perhaps with others between them."""
    rest = iter(lines)
    for wanted in expected:
        pattern = ".*".join(re.escape(part) for part in wanted.split(ANYTHING))
        assert any(re.fullmatch(pattern, line) for line in rest), f"{wanted!r} is missing in {lines}"
