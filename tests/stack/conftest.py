"""What the tests of OpenAI's API share. Those of Anthropic's have a stack and a client of their own."""

import pytest

from harness.openai_client import openai_client


@pytest.fixture(scope="module")
def client(chat):
    with openai_client(chat) as client:
        yield client


@pytest.fixture(scope="module")
def model(chat):
    return chat.settings.model_name
