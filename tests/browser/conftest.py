"""What the browser tests share."""

import pytest

from harness.stack import MODELS, Stack, wait_for


@pytest.fixture(scope="session")
def several(tmp_path_factory):
    """A chat model, one that is no chat, and one that no engine runs."""
    models = {"say": MODELS / "scripted", "echo": MODELS / "echo", "absent": MODELS / "nowhere"}
    stack = Stack(tmp_path_factory.mktemp("several"), models=models, WEB_CONCURRENCY="1")
    try:
        stack.start_valkey()
        stack.start_web()
        for name in ("say", "echo"):
            stack.start_engine(name)
        wait_for(lambda: len(stack.readiness().get("engines", ())) == 2 and is_ready(stack, "echo"))
        yield stack
    finally:
        stack.stop()


def is_ready(stack, name):
    return next(model["state"] for model in stack.readiness()["models"] if model["name"] == name) == "ready"
