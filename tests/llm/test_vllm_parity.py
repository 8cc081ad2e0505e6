"""Everstream's OpenAI API beside `vllm serve` with the same model and arguments: the same answers to the same requests.

In float32, greedy or seeded, so that the model says the same. A difference that is not in `known_differences` fails,
and so does one that is there and no longer occurs.
"""

import re
from math import isclose

import pytest
import requests

from everstream.llm import demo_model
from everstream.settings import PROJECT_ROOT, load_settings
from harness.openai_requests.accepted import ACCEPTED, SOLITARY
from harness.openai_requests.answers import all_answers
from harness.openai_requests.refused import REFUSED
from harness.vllm_serve import running_vllm_serve
from input_schema import INPUT_SCHEMA
from tests.llm.known_differences import DIFFERENCES, LEFT_OUT, known_paths

pytestmark = pytest.mark.timeout(600)
"""The first two tests get all answers, of one server each."""
ENGINE = ["--dtype", "float32", "--max-model-len", "2048", "--kv-cache-memory-bytes", "256M", "--enforce-eager"]
"""As in the `llm` stack, and in `everstream.llm.vllm_start`."""
MORE = ["--gpu-memory-utilization", "0.1", "--disable-log-stats"]
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--tool-strict-level", "parameter"]
TOLERANCE = 1e-3
"""Of log probabilities. Batches are put together differently each time, and so are their sums."""
TABLE = [*ACCEPTED, *SOLITARY, *REFUSED]
NOT_IN_TABLE = {
    "ec_transfer_params",
    "kv_transfer_params",
    "mm_payload",
    "return_mm_kwargs",
    "return_token_offsets",
    "routed_experts_prompt_start",
    "watermarking",
}
"""Parameters of vLLM's that do nothing with this model and these arguments."""
NOT_OF_REQUESTS = {"prompts", "raw", "system"}
"""Inputs of the chat model that no field of a request is called."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """vLLM's answers, by name. It is stopped before Everstream's turn."""
    model, folder = demo_model.folder(load_settings()), tmp_path_factory.mktemp("parity")
    arguments = [*ENGINE, *MORE, *TOOLS]
    with running_vllm_serve("vllm serve", model, demo_model.NAME, arguments, folder, OMP_NUM_THREADS="1") as (_, url):
        return answers_of(url)


@pytest.fixture(scope="module")
def ours(llm, theirs):
    """Everstream's answers, by name."""
    return answers_of(llm.url)


def answers_of(url):
    answers = all_answers(url, demo_model.NAME, [*ACCEPTED, *REFUSED])
    for request in SOLITARY:
        answers |= all_answers(url, demo_model.NAME, [request])
    return answers


def test_table(theirs):
    """vLLM accepts and refuses what the tables say."""
    refused = {request.name for request in REFUSED}
    assert {name for name, answer in theirs.items() if answer["status"] != requests.codes.ok} == refused
    assert not [name for name, answer in theirs.items() if "error" in answer]


@pytest.mark.parametrize("name", [request.name for request in TABLE])
def test_same_answer(theirs, ours, name):
    found = dict(differences(without_left_out(theirs[name]), without_left_out(ours[name])))
    assert found.keys() == known_paths(name), found


def differences(theirs, ours, path=""):
    """Pairs of a path and the two values there."""
    if path == "" and theirs["status"] != ours["status"]:
        yield "status", (theirs, ours)
    elif isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            below = f"{path}[]" if key.isdigit() else f"{path}.{key}".lstrip(".")
            yield from differences(theirs.get(key), ours.get(key), below)
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for their, our in zip(theirs, ours, strict=True):
            yield from differences(their, our, f"{path}[]")
    elif not are_same(theirs, ours, path):
        yield path, (theirs, ours)


def are_same(theirs, ours, path):
    if path == "param":
        # vLLM often names no field. Within a field, both have their own notation.
        return theirs is None or first_name(theirs) == first_name(ours)
    if isinstance(theirs, float) and isinstance(ours, float):
        return isclose(theirs, ours, abs_tol=TOLERANCE)
    return theirs == ours


def first_name(param):
    return re.match(r"\w*", param or "")[0]


def without_left_out(value):
    """Without the keys that are null or empty, and that may be absent."""
    if isinstance(value, list):
        return [without_left_out(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: without_left_out(item)
        for key, item in value.items()
        if key not in LEFT_OUT or (item and key != "system_fingerprint")
    }
    if "every_chunk" in kept:
        kept["every_chunk"] = [key for key in kept["every_chunk"] if key.removeprefix("choices[].") not in LEFT_OUT]
    return kept


def test_each_parameter_of_vllm_is_tried(parameters):
    tried = {field for request in TABLE for field in request.body} | {"model"}
    assert parameters - tried == NOT_IN_TABLE


@pytest.fixture(scope="module")
def parameters(vllm):
    """The fields of vLLM's requests."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    return ChatCompletionRequest.model_fields.keys() | CompletionRequest.model_fields.keys()


@pytest.fixture(scope="module")
def document():
    return (PROJECT_ROOT / "docs/openai.md").read_text()


def test_each_parameter_is_documented(document, parameters):
    """vLLM's, and the chat model's inputs."""
    first_column = "\n".join(re.findall(r"^\| (.*?) \|", document, re.MULTILINE))
    in_table = set(re.findall(r"`(\w+)`", first_column))
    assert (parameters | INPUT_SCHEMA.keys()) - in_table == NOT_OF_REQUESTS


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: each.requests[0])
def test_each_difference_is_documented_and_concerns_a_request(document, difference):
    assert difference.why in " ".join(document.split())
    for pattern in difference.requests:
        alone = type(difference)((pattern,), (), "")
        assert any(alone.concerns(request.name) for request in TABLE), pattern
