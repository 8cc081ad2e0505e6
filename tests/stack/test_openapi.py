"""`GET /openapi.json`: every route is described, and does what is said."""

from itertools import islice

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)

from everstream.apis import APIS
from everstream.settings import load_settings
from everstream.web.factory import create_app
from harness.stack import MODELS, running_stack, wait_for

EXAMPLES = 6
COVERAGE_CASES = 25
MAX_TOKENS = 5
REQUEST_TIMEOUT_S = 60
MESSAGES = [{"role": "user", "content": "a b c"}]
FAIL = [{"role": "user", "content": "fail"}]
FUNCTION = {"name": "look", "parameters": {"type": "object"}}
CHATS = {
    "plain": {},
    "choices": {"n": 2},
    "logprobs": {"logprobs": True},
    "tools": {"tools": [{"type": "function", "function": FUNCTION}], "reasoning_effort": "low"},
}
RESPONSES = [
    {},
    {"include": ["message.output_text.logprobs"], "text": {"format": {"type": "text"}, "verbosity": "low"}},
    {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "auto", "reasoning": {"effort": "low"}},
    {"metadata": {"a": "b"}, "instructions": "Be terse.", "max_output_tokens": 1},
]
REFUSED = ["400", "404", "405", "409", "413", "414", "415"]
RESPONSE = "/v1/responses/{response_id}"
REFUSES_VALID = {
    "POST /tickets",
    "GET /stream",
    "GET /generations/{generation}/events",
    f"GET {RESPONSE}",
    f"GET {RESPONSE}/input_items",
    *("GET /topics/{name}", "GET /v1/stream/{name}", "GET /v1/stream/generations/{generation}"),
    "PUT /v1/stream/{name}",
    "GET /api/chat/{run}/stream",
    "GET /api/ag-ui",
}
"""Queries whose schema can't say what goes with what, or which ids there are."""
MAY_NOT_SUCCEED = {
    *("POST /v1/embeddings", "POST /v1/responses", "POST /v1/messages", "POST /v2/models/{name}/generate"),
    *(
        "POST /tickets",
        "POST /shares",
        "POST /api/chat",
        *("POST /api/ag-ui", "GET /api/ag-ui", "DELETE /api/ag-ui"),
        "POST /topics/{name}",
        "POST /topics",
        "POST /v1/stream/{name}",
    ),
}
"""Few generated bodies are conversations, or name a generation that exists; those in `answers` do."""
ENDLESS = {"GET /dashboard/events", "GET /topics"}
"""`test_dashboard` and `test_topics` compare their events with what is said."""
TOPICS = ("/topics/{name}", "/v1/stream/{name}")
KNOWN = "the generation that has ended"
QUERIES = {
    "GET /stream": {"prompt": "a"},
    "GET /events": {"generation": "0" * 32},
    "GET /presence": {"topic": "a"},
    "GET /api/ag-ui": {"runId": "a-run-of-the-client"},
    "DELETE /api/ag-ui": {"runId": "a-run-of-the-client"},
    "GET /topics/{name}": {"last_event_id": "0" * 15 + "1"},
}
NEEDS_NO_LOG = {
    *("GET /", "GET /dashboard", "GET /healthz", "GET /version", "GET /openapi.json", "GET /docs", "GET /v2"),
    "GET /v2/health/live",
    *("GET /v2/models/{name}", "GET /v2/models/{name}/versions/{version}"),
    "POST /v1/embeddings",
    *("GET /session", "POST /session", "DELETE /session"),
    *("GET /examples/", "GET /examples/{name}", "GET /examples/source/{name}"),
}
PAGES = {"GET /examples/{name}": {"name": "log"}, "GET /examples/source/{name}": {"name": "log.html"}}
TEXT = {"type": "string"}
AG_UI_RUN = {"threadId": "1", "runId": "1"}
PRODUCER = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """All parts, with a model that takes the chat model's inputs and echoes the prompt."""
    options = {"WEB_CONCURRENCY": "1", "EVERSTREAM_MAX_PROMPT_CHARS": "1000"}
    with running_stack(tmp_path_factory.mktemp("chat"), app_dir=MODELS / "chat", **options) as stack:
        yield stack


def app_of(model):
    return create_app(APIS, load_settings({"EVERSTREAM_ACCESS": "open", "EVERSTREAM_APP_DIR": str(MODELS / model)}))


def operations(document):
    return [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]


OPERATIONS = operations(app_of("chat").test_client().get("/openapi.json").json)


@pytest.fixture(scope="module")
def schema(chat):
    """What the service says of itself, with responses that may have no other fields."""
    document = requests.get(f"{chat.url}/openapi.json", timeout=REQUEST_TIMEOUT_S).json()
    for methods in document["paths"].values():
        for operation in methods.values():
            close(operation["responses"], document)
    return schema_of(document, chat.url)


def schema_of(document, url):
    config = {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
    found = schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(config))
    found.config.update(base_url=url)
    return found


def close(schema, document):
    """Allow no fields besides those described, at any depth."""
    if isinstance(schema, list):
        for each in schema:
            close(each, document)
    elif isinstance(schema, dict):
        if "$ref" in schema and "/schemas/" in schema["$ref"]:
            close(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
        if "additionalProperties" in schema:
            return
        if "properties" in schema:
            schema["additionalProperties"] = False
        for each in list(schema.values()):
            close(each, document)


@pytest.fixture(scope="module")
def generation(chat):
    """One that has ended."""
    found = chat.submit(prompt="a b c")
    wait_for(lambda: chat.show(found)["state"] == "done")
    return found


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", [label for label in OPERATIONS if "/versions/" not in label and label not in ENDLESS])
def test_operation_does_what_is_said(schema, chat, generation, label, mode):
    """Valid requests and invalid ones: systematic ones first, then random ones, always the same."""
    known = {"generation": generation, "run": generation, "response_id": background_response(chat)}
    if label.endswith(TOPICS):
        known["name"] = topic_for(chat, label)
    known |= PAGES.get(label, {})
    statuses = set()
    operation = schema.find_operation_by_label(label)
    coverage = schema.iter_coverage_cases(
        operation, generation_modes=[mode], generation_config=schema.config.generation_for(operation=operation)
    )
    for case in islice(coverage, COVERAGE_CASES):
        statuses.add(check(case, known))

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check_random(case):
        statuses.add(check(case, known))

    if mode.is_positive or has_input(operation):
        check_random()
    if mode.is_positive and label not in MAY_NOT_SUCCEED:
        assert min(statuses) < 300


def topic_for(chat, label):
    """A topic of its own, closed if it is to be read: else that would never end."""
    method, _, path = label.partition(" ")
    name = f"described/{method}{path.count('/')}"
    headers = {"Content-Type": "application/json", **({"Stream-Closed": "true"} if method == "GET" else {})}
    if method != "PUT":
        requests.put(f"{chat.url}/v1/stream/{name}", headers=headers, data="[1, 2]", timeout=REQUEST_TIMEOUT_S)
    return name


def has_input(operation):
    """Only then a request can be invalid."""
    checked = [each for each in operation.iter_parameters() if each.definition["schema"] != TEXT]
    return bool(checked or operation.body)


def background_response(chat):
    body = {"input": MESSAGES, "background": True}
    return requests.post(f"{chat.url}/v1/responses", json=body, timeout=REQUEST_TIMEOUT_S).json()["id"]


def test_document_is_valid(schema):
    schema.validate()


def answers():
    """Requests for answers of every kind, whole and streamed, with the status that they get."""
    yield "GET /stream", {"query": {"prompt": "a b c"}}, 200
    yield "GET /stream", {"query": {"prompt": "fail"}}, 200
    yield "POST /generations", {"body": {"messages": MESSAGES, **CHATS["tools"]}}, 201
    for kind in CHATS.values():
        for stream in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
            yield "POST /v1/chat/completions", {"body": {"messages": MESSAGES, **kind, **stream}}, 200
    for more in ({}, {"n": 2, "logprobs": 1}, {"max_tokens": 1}, {"stream": True}, {"stream": True, "logprobs": 1}):
        yield "POST /v1/completions", {"body": {"prompt": "a b c", **more}}, 200
    yield "POST /v1/completions", {"body": {"prompt": "fail"}}, 500
    yield "POST /v1/completions", {"body": {"prompt": "fail", "stream": True}}, 200
    for more in RESPONSES:
        for stream in (False, True):
            yield "POST /v1/responses", {"body": {"input": "a b c", "stream": stream, **more}}, 200
    yield "POST /v1/responses", {"body": {"input": "fail", "stream": True}}, 200
    for more in ({}, {"tools": [{"name": "look", "input_schema": {}}], "output_config": {"effort": "low"}}):
        for stream in (False, True):
            body = {"messages": MESSAGES, "max_tokens": 9, "stream": stream, **more}
            yield "POST /v1/messages", {"body": body}, 200
    yield "POST /v1/messages", {"body": {"messages": FAIL, "max_tokens": 9, "stream": True}}, 200
    yield "POST /v1/messages", {"body": {"messages": FAIL, "max_tokens": 9}}, 500
    tensor = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a b c"]}
    for accept in ("application/json", "text/event-stream"):
        yield "POST /v2/models/{name}/infer", {"body": {"inputs": [tensor]}, "headers": {"Accept": accept}}, 200
    for path in ("generate", "generate_stream"):
        yield f"POST /v2/models/{{name}}/{path}", {"body": {"text_input": "a b c"}}, 200
    yield "POST /v2/models/{name}/generate_stream", {"body": {"text_input": "fail"}}, 200
    yield "GET /stream", {"query": {"prompt": "a b c", "format": "text"}}, 200
    yield from ai_sdk_answers()
    yield from ag_ui_answers()
    for wanted in ("text", "ag-ui", "openai-chat", "completions", "responses", "messages", "ui-message-stream"):
        yield "GET /generations/{generation}/events", {"query": {"format": wanted}}, 200
    yield "GET /generations/{generation}/events", {"query": {"ping": "true"}}, 200
    yield "GET /events", {"query": {"generation": KNOWN}}, 200
    for query in ({}, {"limit": 1}, {"after": 2}):
        yield "GET /generations/{generation}", {"query": query}, 200
    yield "POST /tickets", {"body": {"access": "start"}}, 201
    yield from answers_of_topics()
    yield "POST /tokenize", {"body": {"messages": MESSAGES}}, 200
    yield "POST /detokenize", {"body": {"tokens": [1, 2]}}, 200
    yield "POST /v1/messages/count_tokens", {"body": {"messages": MESSAGES}}, 200


def answers_of_topics():
    yield "PUT /topics/{name}", {"body": {"history": 3}}, 201
    yield "PUT /topics/{name}", {"body": {"history": 3}}, 200
    yield "PUT /topics/{name}", {"body": {"history": 4}}, 409
    for body in ({"data": {"a": [1]}, "event": "note", "id": "1"}, [{"data": 1}, {"data": "a", "ttl_s": 3}]):
        yield "POST /topics/{name}", {"body": body}, 200
    yield "POST /topics/{name}", {"body": {"data": 1}, "headers": PRODUCER}, 200
    yield "POST /topics/{name}", {"body": {"data": 1}, "headers": PRODUCER | {"Producer-Seq": "2"}}, 409
    yield "POST /topics", {"body": [{"topic": "a", "data": 1}, {"topic": "b", "data": 2}]}, 200
    yield "GET /topics", {}, 200
    yield "DELETE /topics/{name}", {}, 204
    yield "PUT /v1/stream/{name}", {"body": [1, 2], "headers": {"Stream-TTL": "100"}}, 201
    yield "POST /v1/stream/{name}", {"body": [1, {"a": 2}]}, 204
    yield "POST /v1/stream/{name}", {"body": {"b": 2}, "headers": PRODUCER}, 200
    yield "POST /v1/stream/{name}", {"body": 3, "headers": {"Stream-Closed": "true"}}, 204
    yield "POST /v1/stream/{name}", {"body": 4}, 409
    for live in ({}, {"live": "sse"}, {"live": "long-poll"}):
        for path in ("{name}", "generations/{generation}"):
            yield f"GET /v1/stream/{path}", {"query": {"offset": "-1", **live}}, 200
    yield "GET /v1/stream/{name}", {"query": {"offset": "0" * 15 + "1"}}, 410
    yield "GET /v1/stream/{name}", {"query": {"offset": "now", "live": "long-poll"}}, 204
    yield "GET /topics/{name}", {"query": {"last_event_id": "0" * 16}}, 200
    yield "DELETE /v1/stream/{name}", {}, 204


def ai_sdk_answers():
    for text in ("a b c", "fail"):
        for tools in ({}, {"look": {"inputSchema": {}}}):
            messages = [{"role": "user", "parts": [{"type": "text", "text": text}]}]
            yield "POST /api/chat", {"body": {"messages": messages, "tools": tools, "reasoning_effort": "low"}}, 200
    for query in ({}, {"startIndex": "2"}, {"startIndex": "-1"}):
        yield "GET /api/chat/{run}/stream", {"query": query}, 200 if query else 204
    yield "POST /api/chat/{run}/stop", {}, 200


def ag_ui_answers():
    for text in ("a b c", "fail"):
        for tools in ([], [{"name": "look"}]):
            messages = [{"role": "user", "content": text}]
            yield "POST /api/ag-ui", {"body": {**AG_UI_RUN, "messages": messages, "tools": tools}}, 200
    yield "POST /api/ag-ui", {"body": {**AG_UI_RUN, "runId": "a-run-of-the-client", "messages": messages}}, 200
    yield "GET /api/ag-ui", {"query": {"runId": "a-run-of-the-client"}}, 200
    yield "DELETE /api/ag-ui", {"query": {"runId": "a-run-of-the-client"}}, 200
    yield "GET /api/ag-ui", {"query": {"runId": "unknown-run-of-nobody"}}, 404


@pytest.mark.parametrize(
    ("label", "given", "status"), list(answers()), ids=lambda each: each if isinstance(each, str) else ""
)
def test_answer_is_what_is_said(schema, generation, label, given, status):
    """Every field and every event."""
    operation = schema.find_operation_by_label(label)
    name = "a/topic" if label.endswith(TOPICS) else "smollm2-135m-instruct"
    known = {"name": name, "generation": generation, "run": generation}
    path = {each.name: known[each.name] for each in operation.path_parameters}
    case = operation.Case(path_parameters=path, **given)
    case.query = {name: generation if value is KNOWN else value for name, value in (case.query or {}).items()}
    response = case.call(timeout=REQUEST_TIMEOUT_S)
    assert response.status_code == status, response.text
    case.validate_response(response, excluded_checks=[not_a_server_error])


def test_statuses_without_valkey_are_what_is_said(own_stack):
    """Each route that reads the log says 503, in its API's format."""
    stack = own_stack(app_dir=MODELS / "chat", WEB_CONCURRENCY="1").start()
    document = requests.get(f"{stack.url}/openapi.json", timeout=REQUEST_TIMEOUT_S).json()
    response_id = background_response(stack)
    stack.valkey.popen.kill()
    stack.valkey.popen.wait(REQUEST_TIMEOUT_S)
    # What was read of the engines before is used for a moment.
    wait_for(lambda: requests.get(f"{stack.url}/models", timeout=REQUEST_TIMEOUT_S).status_code == 503)
    close(document["paths"], document)
    described = schemathesis.openapi.from_dict(document)
    described.config.update(base_url=stack.url)
    bodies = {label: given["body"] for label, given, _ in answers() if "body" in given}
    bodies["POST /shares"] = {"generation": "0" * 32}
    known = {"name": "smollm2-135m-instruct", "version": "1", "generation": "0" * 32, "response_id": response_id}
    known["run"] = known["generation"]
    statuses = {}
    for label in set(operations(document)) - ENDLESS:
        operation = described.find_operation_by_label(label)
        path = {each.name: known[each.name] for each in operation.path_parameters}
        query = QUERIES.get(label, {})
        body = {"body": bodies.get(label.replace("/versions/{version}", ""), {})} if operation.body else {}
        case = operation.Case(path_parameters=path, query=query, **body)
        response = case.call(timeout=REQUEST_TIMEOUT_S)
        case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])
        statuses[label] = response.status_code
    assert {label for label, status in statuses.items() if status != 503} == NEEDS_NO_LOG


def test_stored_response_is_what_is_said(schema, chat):
    response_id = background_response(chat)
    for label, query in (
        ("GET /v1/responses/{response_id}", {"stream": "true"}),
        ("GET /v1/responses/{response_id}", {}),
        ("GET /v1/responses/{response_id}/input_items", {"limit": 1}),
        ("POST /v1/responses/{response_id}/cancel", {}),
        ("DELETE /v1/responses/{response_id}", {}),
    ):
        operation = schema.find_operation_by_label(label)
        case = operation.Case(path_parameters={"response_id": response_id}, query=query)
        response = case.call(timeout=REQUEST_TIMEOUT_S)
        assert response.status_code == 200, response.text
        case.validate_response(response)


def check(case, known):
    """The response's status. `known`: values for the path."""
    shorten(case.body)
    shorten(case.query)
    if case.meta.generation.mode.is_positive:
        case.path_parameters |= {name: known[name] for name in case.path_parameters.keys() & known.keys()}
    response = case.call(timeout=REQUEST_TIMEOUT_S)
    # Paths that end with any name match more than their own.
    excluded = [allow_header_conformance]
    if case.operation.body or case.operation.label in REFUSES_VALID:
        # A schema can't say what goes with what.
        excluded.append(positive_data_acceptance)
    if resumes(case) or "" in (case.query or {}).values():
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded)
    if response.status_code == 400:
        assert param_of(response.json()) is not None, response.text
    return response.status_code


def shorten(fields):
    """Have it end soon."""
    if isinstance(fields, dict):
        if isinstance(fields.get("max_tokens"), int) and fields["max_tokens"] > MAX_TOKENS:
            fields["max_tokens"] = MAX_TOKENS
        shorten(fields.get("parameters"))


def resumes(case):
    """Then the rest of the query is not looked at. (And an empty option is as good as none.)"""
    return "Last-Event-ID" in (case.headers or {}) or "last_event_id" in (case.query or {})


def param_of(body):
    """The field at fault."""
    error = body["error"]
    return body["param"] if isinstance(error, str) else error.get("details", error)["param"]
