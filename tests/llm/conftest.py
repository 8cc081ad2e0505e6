"""OpenAI's client, and environments for other people's clients, once per run and test process."""

import os
import shutil

import pytest

from harness import client_environments
from harness.client_environments import Client
from harness.openai_client import openai_client

APART = ("instructor_calls", "guidellm_calls")
"""The calls of clients in requirements-sdks-apart.txt."""
OF_CLIENTS = ("ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_", "LLM_", "OPENAI_")
"""How the names of these clients' own settings begin; tests must not see the developer's."""


@pytest.fixture(scope="module")
def client(llm):
    with openai_client(llm) as client:
        yield client


@pytest.fixture(scope="module")
def model(llm):
    return llm.settings.model_name


@pytest.fixture(scope="session")
def sdk_python(tmp_path_factory):
    """The Python of the environment that most clients share; it has Node too."""
    folder = tmp_path_factory.mktemp("sdks") / "venv"
    yield client_environments.python(folder, "sdks")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sdk_python_apart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdks-apart") / "venv"
    executable = client_environments.python(folder, "sdks-apart")
    client_environments.lend_ours(executable)
    yield executable
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sdk_node(sdk_python, tmp_path_factory):
    """The command that runs the calls of the clients from npm."""
    folder = tmp_path_factory.mktemp("sdks-node") / "calls"
    yield client_environments.node(folder, sdk_python)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sdk(request, tmp_path_factory):
    """Makes a call from `harness/sdk_clients`: `sdk("openai_calls.chat", stack)` returns what it returned."""
    clients = {}
    logs = tmp_path_factory.mktemp("sdk-logs")

    def start(module):
        if module == "node":
            command = request.getfixturevalue("sdk_node")
        else:
            python = request.getfixturevalue("sdk_python_apart" if module in APART else "sdk_python")
            command = [python, client_environments.CALLS / "serve_calls.py", module]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(OF_CLIENTS)}
        return Client(command, environ, logs / module)

    def call(name, stack, *more):
        module, _, function = name.partition(".")
        if module not in clients:
            clients[module] = start(module)
        return clients[module].call(function, stack.url, stack.settings.model_name, *more)

    yield call
    for client in clients.values():
        client.stop()
