"""What the tests of OpenAI's API share. Those of Anthropic's have a stack and a client of their own."""

import pytest

from harness.openai_client import openai_client
from harness.stack import MODELS, running_stack


@pytest.fixture(scope="session")
def chat(tmp_path_factory):
    """All parts, with a model that takes the chat model's inputs and echoes the prompt, and two gunicorn workers."""
    with running_stack(tmp_path_factory.mktemp("chat", numbered=False), app_dir=MODELS / "chat") as stack:
        yield stack


@pytest.fixture(scope="module")
def client(chat):
    with openai_client(chat) as client:
        yield client


@pytest.fixture(scope="module")
def model(chat):
    return chat.settings.model_name
