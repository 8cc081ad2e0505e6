"""The Open Inference Protocol: through the official clients, and on the wire."""

import http.client
import json
import os
import subprocess
from contextlib import closing

import pytest
import requests

from harness import client_environments, v2_clients
from harness.sse_client import Decoder, assert_whole
from harness.stack import MODELS, running_stack, wait_for

CALL_TIMEOUT_S = 120
EVENT_STREAM = {"Accept": "text/event-stream"}
JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    """All parts, with a model that does not stream, and returns its inputs. Its name has a slash, as on a hub."""
    options = {"app_dir": MODELS / "tensors", "WEB_CONCURRENCY": "1", "MODEL": "org/tensors"}
    options["EVERSTREAM_MAX_OUTPUT_BYTES"] = str(4 << 20)
    with running_stack(tmp_path_factory.mktemp("tensors"), **options) as stack:
        yield stack


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """Calls one of the functions of `v2_clients` in a process of the clients' own environment."""
    python = client_environments.python(tmp_path_factory.mktemp("clients") / "venv", "clients")

    def call(function, stack):
        command = [python, v2_clients.__file__, function.__name__, stack.url, stack.settings.model_name]
        output = subprocess.run(
            command, check=True, timeout=CALL_TIMEOUT_S, stdout=subprocess.PIPE, env=os.environ
        ).stdout
        return json.loads(output)

    return call


def url_of(stack, path="/infer"):
    return f"{stack.url}/v2/models/{stack.settings.model_name}{path}"


def post(stack, body, path="/infer", **headers):
    return requests.post(url_of(stack, path), json=body, headers=headers, timeout=60)


def events_of(answer):
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    return Decoder().feed(answer.content)


def tensor(name, datatype, data, shape=(1,), **more):
    return {"name": name, "shape": list(shape), "datatype": datatype, "data": data, **more}


def values(answer):
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert set(error) == {"error", "code", "param"} and isinstance(error["error"], str)
    return error


# The official clients.

ROUNDED = [int(number) for number in v2_clients.NUMBERS]
ALL_DATATYPES = {
    f"some_{datatype.lower()}": ROUNDED if "INT" in datatype else [float(number) for number in v2_clients.NUMBERS]
    for datatype in v2_clients.DATATYPES
} | {"texts": v2_clients.TEXTS, "text": ["one"], "flags": [True, False], "grid": [[1, 2, 3], [4, 5, 6]]}


@pytest.mark.parametrize("call", [v2_clients.triton_binary, v2_clients.triton_gzip])
def test_triton_client_with_binary_data(tensors, official, call):
    assert official(call, tensors) == ALL_DATATYPES


@pytest.mark.parametrize("call", [v2_clients.triton_json, v2_clients.triton_deflate])
def test_triton_client_with_json(tensors, official, call):
    # It has no JSON for bfloat16.
    expected = {name: value for name, value in ALL_DATATYPES.items() if name != "some_bf16"}
    assert official(call, tensors) == expected


def test_triton_client_gets_the_requested_output(tensors, official):
    assert official(v2_clients.triton_requested_output, tensors) == {
        "id": "42",
        "model_name": "org/tensors",
        "model_version": "1",
        "outputs": [tensor("text", "BYTES", ["a"])],
    }


def test_triton_client_of_a_streaming_model_gets_all_outputs(fast, official):
    answer = official(v2_clients.triton_of_a_streaming_model, fast)
    assert [output["data"] for output in answer["outputs"]] == [["a"], ["b"], ["c"]]
    ids = [output["parameters"]["event_id"] for output in answer["outputs"]]
    assert ids == [f"{answer['id']}.{n}" for n in (1, 2, 3)]


def test_triton_client_about_server_and_model(tensors, official):
    about = official(v2_clients.triton_about, tensors)
    assert {name: ready for name, ready in about.items() if isinstance(ready, bool)} == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "version_ready": True,
        "other_ready": False,
        "other_version_ready": False,
    }
    assert about["server"]["name"] == "everstream"
    assert "binary_tensor_data" in about["server"]["extensions"]
    assert about["index"] == [{"name": "org/tensors", "version": "1", "state": "READY", "reason": ""}]
    assert (about["model"]["name"], about["model"]["versions"]) == ("org/tensors", ["1"])
    assert about["model"]["inputs"][:2] == [
        {"name": "text", "datatype": "BYTES", "shape": [1]},
        {"name": "texts", "datatype": "BYTES", "shape": [-1]},
    ]


def test_triton_client_shows_errors(tensors, official):
    errors = official(v2_clients.triton_errors, tensors)
    statuses = {name: status for name, (status, _) in errors.items()}
    assert statuses == {
        "unknown model": "404",
        "wrong datatype": "400",
        "wrong shape": "400",
        "out of bounds": "400",
        "failing model": "500",
    }
    assert errors["unknown model"][1] == "there is no model 'other' here; there is org/tensors"
    assert errors["wrong datatype"][1] == "text has the datatype 'FP32'; allowed are BYTES"
    assert errors["wrong shape"][1] == "grid must have 6 items, got 2"
    assert errors["out of bounds"][1] == "one_int8 must be from -128 to 127, got 300"
    assert errors["failing model"][1] == "the model raised ValueError: told to fail"


def test_inferless_client(tensors, official):
    answer = official(v2_clients.inferless_data, tensors)
    assert answer["outputs"] == [
        tensor("text", "BYTES", ["a"]),
        tensor("texts", "BYTES", ["b", "c"], [2]),
        tensor("flag", "BOOL", [True]),
        tensor("one_int32", "INT64", [3]),
        tensor("some_fp32", "FP64", [0.5]),
        tensor("grid", "FP64", [1, 2, 3] * 2, [2, 3]),
    ]
    assert official(v2_clients.inferless_inputs, tensors)["outputs"] == [tensor("text", "BYTES", ["Once upon a time"])]


def test_inferless_client_with_a_batch_of_one(tensors, official):
    answer = official(v2_clients.inferless_batch, tensors)
    assert answer["outputs"] == [tensor("text", "BYTES", ["a"]), tensor("texts", "BYTES", ["b"])]


def test_inferless_openai_client(tensors, official):
    """It sends booleans as INT32, null for what is absent, and a key `optional`."""
    answer = official(v2_clients.inferless_openai, tensors)
    assert answer["outputs"] == [
        tensor("flag", "BOOL", [True]),
        tensor("one_fp32", "FP64", [0.5]),
        tensor("text", "BYTES", ["a"]),
    ]


def test_inferless_client_shows_errors(tensors, official):
    error = official(v2_clients.inferless_error, tensors)
    assert "status code 400" in error and "one_int8 must be from -128 to 127, got 300" in error


# The forms of a request.


@pytest.mark.parametrize("path", ["/infer", "/versions/1/infer"])
@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [tensor("texts", "BYTES", ["a", "b"], [2])]},
        {"inputs": [tensor("texts", "STRING", ["a", "b"], [2], optional=True)], "parameters": None, "outputs": []},
        {"parameters": {"texts": ["a", "b"]}},
        {"parameters": {"texts": ["a", "b"], "unknown": {"x": [1]}}},
        {"inputs": [tensor("unknown", "NONSENSE", [[1, "2"]], [7])], "parameters": {"texts": ["a", "b"]}},
        {"inputs": [tensor("texts", "BYTES", ["a", "b"], [2])], "parameters": {"texts": ["x"]}},
    ],
)
def test_streamed_outputs(fast, body, path):
    events = events_of(post(fast, body, path))
    assert_whole(events)
    assert [event.type for event in events if event.type != "queued"] == ["open", "message", "message", "done"]
    first = next(event for event in events if event.type == "message")
    generation = first.id.partition(".")[0]
    assert first.json == {
        "id": generation,
        "model_name": fast.settings.model_name,
        "model_version": "1",
        "outputs": [tensor("text", "BYTES", ["a"])],
    }


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        (None, True),
        ("*/*", True),
        ("text/event-stream", True),
        ("text/event-stream, */*", True),
        ("application/json", False),
        ("application/json, text/event-stream;q=0.5", False),
        ("application/json, text/event-stream", True),
        ("text/event-stream;q=0, */*", True),
    ],
)
def test_accept_decides_for_a_streaming_model(fast, accept, is_stream):
    headers = {} if accept is None else {"Accept": accept}
    answer = requests.post(url_of(fast), json={"parameters": {"texts": ["a"]}}, headers=headers, timeout=60)
    assert answer.headers["Content-Type"].startswith("text/event-stream") == is_stream


def test_a_model_that_does_not_stream_streams_on_request(tensors):
    events = events_of(post(tensors, {"parameters": {"text": "a"}}, **EVENT_STREAM))
    assert_whole(events)
    answer = post(tensors, {"parameters": {"text": "a"}}, Accept="*/*")
    assert (answer.headers["Content-Type"], values(answer)) == ("application/json", {"text": ["a"]})


def test_json_input_holds_json_text(tensors):
    settings = {"a": [1, {"b": None}]}
    answer = post(tensors, {"inputs": [tensor("settings", "BYTES", [json.dumps(settings)], [1, 1])]})
    assert json.loads(values(answer)["settings"][0]) == settings
    answer = post(tensors, {"parameters": {"settings": settings}})
    assert json.loads(values(answer)["settings"][0]) == settings
    error = error_of(post(tensors, {"inputs": [tensor("settings", "BYTES", ["{"])]}), 400)
    assert error["param"] == "settings"


def test_large_string_that_is_no_prompt(tensors):
    """Audio in base64, as voice models take it: longer than EVERSTREAM_MAX_PROMPT_CHARS."""
    audio = "A" * 1_600_000
    for body in ({"inputs": [tensor("audio", "BYTES", [audio])]}, {"parameters": {"audio": audio}}):
        assert values(post(tensors, body)) == {"audio": [audio]}


# Generate.


def test_generate(fast):
    body = {"text_input": json.dumps({"texts": ["a", "b"]}), "parameters": {"repeat": 3, "unknown": 1}, "repeat": 2}
    answer = post(fast, body, "/generate").json()
    assert answer["text_output"] == "abab"
    assert (answer["model_name"], answer["model_version"]) == (fast.settings.model_name, "1")
    assert answer["finish_reason"] == "stop"


def test_generate_stream(fast):
    body = {"text_input": json.dumps({"texts": ["a", "b"]}), "parameters": {"stream": True}}
    events = events_of(post(fast, body, "/generate_stream"))
    assert [event.type for event in events] == ["open", "message", "message", "done"]
    # A client that knows no event names reads these.
    assert "".join(event.json["text_output"] for event in events) == "ab"
    assert [event.json["done"] for event in events] == [False, False, False, True]
    rest = events_of(post(fast, body, "/generate_stream", **{"Last-Event-ID": events[1].id}))
    assert [(event.id, event.data) for event in rest] == [(event.id, event.data) for event in events[2:]]


def test_generate_without_text(tensors):
    assert post(tensors, {"text": "a"}, "/generate").json()["text_output"] == "a"
    error = error_of(post(tensors, {"text_input": "a"}, "/generate"), 400)
    assert error["param"] == "text_input"
    assert post(tensors, {"text": "a", "text_input": None}, "/generate").json()["text_output"] == "a"


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_failed_generate(fast, path):
    body = {"text_input": json.dumps({"texts": ["a", "b"], "raise_before": 2})}
    answer = post(fast, body, path)
    message = "the model raised ValueError: told to raise\nover two lines"
    if path == "/generate":
        assert error_of(answer, 500)["error"] == message
    else:
        last = events_of(answer)[-1]
        assert (last.type, last.json) == ("failed", {"error": message, "code": "model_error"})


# How a generation ends.

RAISES_INVALID_INPUT = """
from everstream.errors import InvalidInput


class InferlessPythonModel:
    def initialize(self):
        pass

    def infer(self, inputs):
        raise InvalidInput("text has no vowel", param="text")

    def finalize(self):
        pass
"""


def test_failed_generation(tensors):
    error = error_of(post(tensors, {"parameters": {"fail": "told to fail"}}), 500)
    assert error == {"error": "the model raised ValueError: told to fail", "code": "model_error", "param": None}
    events = events_of(post(tensors, {"parameters": {"fail": "told to fail"}}, **EVENT_STREAM))
    assert (events[-1].type, events[-1].json["code"]) == ("failed", "model_error")


def test_generation_that_takes_too_long(own_stack, gate):
    stack = own_stack(app_dir=MODELS / "tensors", EVERSTREAM_INFER_IDLE_TIMEOUT_S="1").start()
    error = error_of(post(stack, {"parameters": {"gate": gate.path}}), 504)
    assert error["code"] == "infer_timeout"
    gate.open()


def test_failure_that_names_an_input(own_stack, tmp_path):
    """Only `infer` itself can tell that the input is wrong."""
    (tmp_path / "app.py").write_text(RAISES_INVALID_INPUT)
    (tmp_path / "input_schema.py").write_text('INPUT_SCHEMA = {"text": {"datatype": "STRING"}}\n')
    stack = own_stack(app_dir=tmp_path).start()
    error = error_of(post(stack, {"parameters": {"text": "a"}}), 400)
    assert error == {"error": "text has no vowel", "code": "invalid_request", "param": "text"}


def in_background(stack, body):
    """A connection on which the request was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    connection.request("POST", url_of(stack).removeprefix(stack.url), json.dumps(body), JSON)
    return connection


def test_cancelled_generation(tensors, gate):
    request_id = "0123456789abcdef-cancelled"
    body = {"id": request_id, "parameters": {"gate": gate.path}}
    connection = in_background(tensors, body)
    wait_for(lambda: tensors.running() == 1)
    generation = first_event(tensors, body).json["generation"]
    requests.delete(f"{tensors.url}/generations/{generation}", timeout=30)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (409, "cancelled")
    connection.close()


def first_event(stack, body):
    """Of a stream that is then closed."""
    decoder = Decoder()
    with requests.post(url_of(stack), json=body, headers=EVENT_STREAM, stream=True, timeout=60) as answer:
        return next(event for piece in answer.iter_content(None) for event in decoder.feed(piece))


@pytest.mark.parametrize("app_dir", ["tensors", "scripted"])
def test_generation_of_a_client_that_leaves_is_abandoned(own_stack, gate, app_dir):
    options = {"EVERSTREAM_ABANDON_AFTER_S": "1", "EVERSTREAM_MAX_STREAMS": "1", "WEB_CONCURRENCY": "1"}
    stack = own_stack(app_dir=MODELS / app_dir, **options).start()
    held = {"texts": ["a"], "hold_before": 1} if app_dir == "scripted" else {}
    with closing(in_background(stack, {"parameters": {"gate": gate.path, **held}})):
        wait_for(lambda: stack.running() == 1)
        # A wait takes a stream's slot.
        assert post(stack, {"parameters": {"text": "a", "texts": ["a"]}}).json()["code"] == "too_many_streams"
        # It counts as a reader: by the time that a generation without one is abandoned, this one still runs.
        stack.submit(gate=gate.path, **held)
        wait_for(lambda: stack.metric("generations_cancelled_total") == 1)
        wait_for(lambda: stack.running() == 1)
        assert stack.streams() == 1
    wait_for(lambda: stack.metric("generations_cancelled_total") == 2, what="the generation to be abandoned")
    assert stack.streams() == 0
    gate.open()
    assert post(stack, {"parameters": {"text": "a", "texts": ["a"]}}, **JSON).status_code == 200
    assert "Traceback" not in stack.web.output


def test_waiting_client_is_told_that_the_process_stops(own_stack, gate):
    stack = own_stack(app_dir=MODELS / "tensors", WEB_CONCURRENCY="1", EVERSTREAM_DRAIN_S="0").start()
    body = {"id": "0123456789abcdef-stopped", "parameters": {"text": "a", "gate": gate.path}}
    connection = in_background(stack, body)
    wait_for(lambda: stack.running() == 1)
    stack.web.kill(15)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (503, "shutting_down")
    assert answer.headers["Retry-After"] == "5"
    connection.close()
    stack.start_web()
    gate.open()
    # The same request gets the same generation.
    assert values(post(stack, body))["text"] == ["a"]
    assert stack.metric("generations_started_total") == 1


# Ids.


def test_resume_and_end(fast):
    body = {"id": "x", "parameters": {"texts": ["a", "b", "c"]}}
    events = events_of(post(fast, body))
    assert {event.json["id"] for event in events if event.type == "message"} == {"x"}
    rest = events_of(post(fast, body, **{"Last-Event-ID": events[2].id}))
    assert [(event.id, event.data) for event in rest] == [(event.id, event.data) for event in events[3:]]
    again = post(fast, body, **{"Last-Event-ID": rest[-1].id})
    assert (again.status_code, again.content) == (204, b"")
    other = {"parameters": {"texts": ["x"]}}
    error = error_of(post(fast, other, **{"Last-Event-ID": events[2].id}), 409)
    assert (error["code"], error["param"]) == ("last_event_id_conflict", "Last-Event-ID")
    expired = events_of(post(fast, body, **{"Last-Event-ID": f"{'0' * 32}.3"}))
    assert (expired[-1].type, expired[-1].json["code"]) == ("failed", "generation_expired")


@pytest.mark.parametrize("where", ["body", "header"])
def test_request_id(fast, where):
    request_id = f"0123456789abcdef-v2-{where}"
    headers = {"Idempotency-Key": request_id} if where == "header" else {}
    body = {"parameters": {"texts": ["a"]}} | ({"id": request_id} if where == "body" else {})
    first, second = (events_of(post(fast, body, **headers)) for _ in range(2))
    assert [event.id for event in first] == [event.id for event in second]
    other = body | {"parameters": {"texts": ["b"]}}
    assert error_of(post(fast, other, **headers), 409)["code"] == "request_id_conflict"
    assert error_of(post(fast, other, **headers, **JSON), 409)["code"] == "request_id_conflict"


def test_long_key_is_taken(fast):
    """The rule is that of all other APIs."""
    key, body = f"order 42/{'x' * 200}", {"parameters": {"texts": ["a"]}}
    first, second = (events_of(post(fast, body, **{"Idempotency-Key": key})) for _ in range(2))
    assert [event.id for event in first] == [event.id for event in second]
    error = error_of(post(fast, {"parameters": {"texts": ["b"]}}, **{"Idempotency-Key": key}), 409)
    assert error["code"] == "request_id_conflict"


def test_guessable_id_is_only_repeated(fast):
    bodies = [{"id": "42", "parameters": {"texts": [text]}} for text in ("a", "b")]
    assert [values(post(fast, body, **JSON)) for body in bodies] == [{"text": ["a"]}, {"text": ["b"]}]
    error = error_of(post(fast, bodies[0], **{"Idempotency-Key": "42"}), 400)
    assert error["param"] == "Idempotency-Key"


# Addresses.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("HEAD", "/v2", 200),
        ("GET", "/v2/health/live", 200),
        ("HEAD", "/v2/health/ready", 200),
        ("GET", "/v2/models/{model}/versions/1", 200),
        ("HEAD", "/v2/models/{model}/ready", 200),
        ("GET", "/v2/models/{model}/versions/2", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/{model}/versions/2/generate", 404),
        ("POST", "/v2/models/{model}/nothing", 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/{model}", 405),
        ("GET", "/v2/nothing", 404),
        # HEAD starts nothing.
        ("HEAD", "/v2/models/{model}/infer", 404),
    ],
)
def test_addresses(tensors, method, path, status):
    started = tensors.metric("generations_started_total")
    answer = requests.request(method, tensors.url + path.format(model="org/tensors"), timeout=30)
    assert answer.status_code == status
    if status >= 400 and method != "HEAD":
        error_of(answer, status)
    assert tensors.metric("generations_started_total") == started


def test_index_of_ready_models(tensors):
    for body, status in (({}, 200), ({"ready": True}, 200), ({"ready": None}, 200), ({"ready": "yes"}, 400), ([], 400)):
        answer = requests.post(f"{tensors.url}/v2/repository/index", json=body, timeout=30)
        assert answer.status_code == status
        if status == 200:
            assert [model["name"] for model in answer.json()] == ["org/tensors"]


def test_before_any_engine_is_ready(own_stack):
    stack = own_stack(app_dir=MODELS / "tensors")
    stack.start_valkey()
    stack.start_web()
    assert requests.get(f"{stack.url}/v2/health/live", timeout=30).status_code == 200
    for path in ("/v2/health/ready", f"/v2/models/{stack.settings.model_name}/ready"):
        answer = requests.get(stack.url + path, timeout=30)
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
    models = requests.post(f"{stack.url}/v2/repository/index", timeout=30).json()
    assert [model["state"] for model in models] == ["UNAVAILABLE"]
    assert requests.post(f"{stack.url}/v2/repository/index", json={"ready": True}, timeout=30).json() == []


# Hostile bodies.


def raw_post(stack, body, **headers):
    return requests.post(url_of(stack), data=body, headers=headers, timeout=60)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", "body", "body can't be read"),
        (b"[]", "body", "Expected `object`, got `array`"),
        (b'{"inputs": {}}', "body", "Expected `array | null`, got `object`"),
        (b'{"inputs": [{}]}', "body", "missing required field `name`"),
        (b'{"inputs": [{"name": "texts"}]}', "texts", "texts has no shape"),
        (b'{"inputs": [{"name": "texts", "shape": [1]}]}', "texts", "texts has no datatype"),
        (b'{"inputs": [{"name": "texts", "shape": [1], "datatype": "BYTES"}]}', "texts", "texts needs data"),
        (b'{"inputs":' + b"[" * 100_000, "body", "can't be read"),
        (b'{"parameters": {"settings":' + b"[" * 100_000, "body", "can't be read"),
        (b'{"parameters": {"texts": ' + b"[" * 300 + b"]" * 300 + b"}}", "texts", "must be a string"),
        (json.dumps({"inputs": [tensor("texts", "BYTES", ["a"], [10**12])]}), "texts", "at most 1000 are allowed"),
        (json.dumps({"inputs": [tensor("some_fp32", "FP32", [1], [10**12])]}), "some_fp32", "at most 262144"),
        (json.dumps({"inputs": [tensor("some_fp32", "FP32", [1], [10**18] * 8)]}), "some_fp32", "at most 262144"),
        (json.dumps({"inputs": [tensor("texts", "BYTES", ["a"], [10**20])]}), "texts", "each dimension of texts"),
        (json.dumps({"inputs": [tensor("texts", "BYTES", ["a"], [-1])]}), "texts", "each dimension of texts"),
        (json.dumps({"inputs": [tensor("texts", "BYTES", ["a"], [1] * 9)]}), "texts", "9 dimensions"),
        (json.dumps({"inputs": [tensor("texts", "BYTES", ["a"], [2])]}), "texts", "data of texts has 1 items"),
        (json.dumps({"inputs": [tensor("text", "BYTES", ["a", "b"], [2])]}), "text", "its shape must be [1]"),
        (json.dumps({"inputs": [tensor("text", "BYTES", [], [0])]}), "text", "its shape must be [1]"),
        (json.dumps({"inputs": [tensor("text", "BYTES", [7])]}), "text", "does not fit its datatype"),
        (json.dumps({"inputs": [tensor("flag", "INT32", [2])]}), "flag", "true or false, got 2"),
        (json.dumps({"inputs": [tensor("grid", "FP32", [[1, 2], [3, 4, 5, 6]], [2, 3])]}), "grid", "nested"),
        (json.dumps({"inputs": [tensor("some_fp32", "FP32", [float("nan")])]}), "body", "can't be read"),
        (json.dumps({"inputs": [tensor("text", "BYTES", ["a"])] * 2}), "text", "given twice"),
        (json.dumps({"inputs": [tensor("unknown", "BYTES", ["a"])] * 1001}), "inputs", "1001 items; at most 1000"),
        (json.dumps({"outputs": [{"name": "a"}] * 1001}), "outputs", "1001 items; at most 1000"),
        (json.dumps({"id": "x" * 257}), "id", "at most 256 characters"),
        (json.dumps({"id": 7}), "body", "Expected `str | null`"),
        (
            json.dumps({"inputs": [tensor("text", "BYTES", [], parameters={"shared_memory_region": "x"})]}),
            "text",
            "shared memory",
        ),
    ],
)
def test_hostile_bodies(tensors, body, param, message):
    started = tensors.metric("generations_started_total")
    error = error_of(raw_post(tensors, body), 400)
    assert message in error["error"]
    assert error["param"] == param
    assert tensors.metric("generations_started_total") == started


def test_a_thousand_inputs(tensors):
    inputs = [tensor(f"unknown{n}", "BYTES", ["a"]) for n in range(999)] + [tensor("text", "BYTES", ["a"])]
    assert values(post(tensors, {"inputs": inputs})) == {"text": ["a"]}


BINARY_TEXT = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
HEAD = json.dumps({"inputs": [BINARY_TEXT]}).encode()


@pytest.mark.parametrize(
    ("body", "size", "param"),
    [
        (HEAD + b"\1\0\0\0a", len(HEAD) + 6, "Inference-Header-Content-Length"),
        (HEAD + b"\1\0\0\0a", -1, "Inference-Header-Content-Length"),
        (HEAD + b"\1\0\0\0a", "1_0", "Inference-Header-Content-Length"),
        (HEAD + b"\1\0\0\0a", 0, "body"),
        (HEAD + b"\1\0\0\0", len(HEAD), "text"),
        (HEAD + b"\1\0\0\0ab", len(HEAD), "inputs"),
        (HEAD + b"\2\0\0\0a", len(HEAD), "text"),
        (HEAD + b"\xff\xff\xff\xffa", len(HEAD), "text"),
        (HEAD + b"\0\0\0\0\0", len(HEAD), "text"),
        (HEAD + b"\1\0\0\0\xff", len(HEAD), "text"),
    ],
)
def test_malformed_binary_data(tensors, body, size, param):
    error = error_of(raw_post(tensors, body, **{"Inference-Header-Content-Length": str(size)}), 400)
    assert error["param"] == param


def test_compressed_bodies(tensors):
    import gzip
    import zlib

    body = json.dumps({"parameters": {"text": "a"}}).encode()
    for encoding, sent in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        assert values(raw_post(tensors, sent, **{"Content-Encoding": encoding})) == {"text": ["a"]}
    assert error_of(raw_post(tensors, body, **{"Content-Encoding": "br"}), 415)["param"] == "Content-Encoding"
    for sent in (body, gzip.compress(body)[:-1], gzip.compress(body) * 2, b""):
        assert error_of(raw_post(tensors, sent, **{"Content-Encoding": "gzip"}), 400)["param"] == "body"
    bomb = gzip.compress(b" " * (tensors.settings.max_body_bytes + 1))
    assert len(bomb) < 10_000
    assert error_of(raw_post(tensors, bomb, **{"Content-Encoding": "gzip"}), 413)["code"] == "body_too_large"
