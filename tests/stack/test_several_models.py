"""Several models in one service: each has its own engine and queue, and none notices another's trouble."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
import requests
import valkey

from everstream.log.keys import Keys
from harness.sse_client import Decoder, assert_whole, connect, read_all, text_of
from harness.stack import MODELS, START_TIMEOUT_S, Supervised, free_port, running_stack, wait_for

SCRIPTED = MODELS / "scripted"
TWO = {"one": SCRIPTED, "two": SCRIPTED}
NAMES = ["chat", "one", "two", "count", "other-chat"]
BROKEN_SCHEMA = "INPUT_SCHEMA = {\n  'a': {'datatype': 'STRONG'},\n}\n"


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two chat models, two scripted ones, and one that runs one generation at a time."""
    models = {"chat": MODELS / "chat", **TWO, "count": MODELS / "plain", "other-chat": MODELS / "chat"}
    with running_stack(tmp_path_factory.mktemp("many"), models=models, WEB_CONCURRENCY="1") as stack:
        yield stack


def post(stack, **body):
    return requests.post(f"{stack.url}/generations", json=body, timeout=30)


def error_of(answer):
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def refusal(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["message"]


def models_of(stack):
    answer = requests.get(f"{stack.url}/models", timeout=30)
    assert answer.headers["Content-Type"] == "application/json"
    return {model["name"]: model for model in answer.json()["models"]}


def queue_length(stack, model):
    with closing(valkey.Valkey.from_url(stack.settings.log_url)) as client:
        return client.xlen(Keys(stack.settings.namespace, model).jobs)


@pytest.mark.parametrize(
    ("query", "model", "text"),
    [
        ("prompt=first+of+all", "chat", "first of all"),
        ("model=&prompt=empty", "chat", "empty"),
        ("model=chat&prompt=a+b", "chat", "a b"),
        ("model=two&texts=b", "two", "b"),
        ("model=count&count=2", "count", "0 1 "),
    ],
)
def test_stream_of_each_model(many, query, model, text):
    events = read_all(f"{many.url}/stream?{query}")
    assert_whole(events)
    assert (events[0].json["model"], text_of(events)) == (model, text)
    # The id alone is enough to find the generation.
    assert many.show(events[0].json["generation"])["text"] == text
    with connect(f"{many.url}/stream?{query}", last_id=events[1].id) as again:
        assert [event.id for event in again.read().events] == [event.id for event in events[2:]]


def test_generations_of_each_model(many):
    for model, inputs, text in (
        ("two", {"texts": ["a"]}, "a"),
        ("count", {"count": 1}, "0 "),
        (None, {"prompt": "x"}, "x"),
    ):
        answer = post(many, model=model, **inputs)
        assert answer.status_code == 201, answer.text
        assert text_of(read_all(many.events_url(answer.json()["id"]))) == text


@pytest.mark.parametrize("model", ["three", "x" * 1000, "", 7, ["one"]])
def test_unknown_model_is_refused(many, model):
    answer = post(many, model=model, texts=["a"])
    assert error_of(answer) == (400, "invalid_request", "model")
    message = answer.json()["error"]["message"]
    assert "one" in message and "count" in message and len(message) < 300
    if model and isinstance(model, str):
        assert error_of(requests.get(f"{many.url}/stream?texts=a&model={model}", timeout=30))[2] == "model"
        chat = {"model": model, "messages": [{"role": "user", "content": "a"}], "stream": True}
        assert error_of(requests.post(f"{many.url}/v1/chat/completions", json=chat, timeout=30))[2] == "model"


def test_model_given_twice_is_refused(many):
    assert error_of(requests.get(f"{many.url}/stream?texts=a&model=one&model=two", timeout=30))[2] == "model"


def test_inputs_are_checked_against_the_models_own_schema(many):
    assert error_of(post(many, model="count", texts=["a"])) == (400, "invalid_request", "texts")
    # `check_inputs` of its folder.
    assert error_of(post(many, model="one", repeat=1)) == (400, "invalid_request", "texts")


def openai_chat(stack, last_id="", **body):
    given = {"messages": [{"role": "user", "content": "a b"}], "stream": True, **body}
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    return requests.post(f"{stack.url}/v1/chat/completions", json=given, headers=headers, timeout=30)


def test_openai_routes_by_model(many):
    listed = requests.get(f"{many.url}/v1/models", timeout=30).json()["data"]
    assert [model["id"] for model in listed] == NAMES
    for given in ({"model": "chat"}, {"model": None}, {}):
        events = Decoder().feed(openai_chat(many, **given).content)
        assert {json.loads(event.data)["model"] for event in events[:-1]} == {"chat"}
    assert error_of(openai_chat(many, model="count")) == (400, "invalid_request", "messages")
    # The other chat model takes the same request, but it did not write this answer.
    conflict = openai_chat(many, last_id=events[1].id, model="other-chat")
    assert error_of(conflict) == (409, "last_event_id_conflict", "Last-Event-ID")


def test_request_id_of_another_model_is_a_conflict(many):
    request = {"texts": ["a"], "request_id": "0123456789abcdef-several"}
    first = post(many, model="one", **request).json()["id"]
    assert post(many, model="one", **request).json()["id"] == first
    answer = post(many, model="two", **request)
    assert error_of(answer) == (409, "request_id_conflict", "request_id")


def test_eight_clients_of_a_one_at_a_time_model(many, gate):
    """They are served in the order in which they came, and the others' queues stay empty."""
    held = post(many, model="count", count=2, hold_before=1, gate=gate.path).json()["id"]
    wait_for(lambda: many.show(held)["state"] == "running")
    with ExitStack() as opened:
        streams = []
        for count in range(1, 9):
            streams.append(opened.enter_context(connect(f"{many.url}/stream?model=count&count={count}")))
            streams[-1].read(until=lambda seen: len(seen.events) == 2)
        assert [stream.events[1].json["position"] for stream in streams] == list(range(1, 9))
        quick = read_all(f"{many.url}/stream?model=one&texts=a")
        assert [event.type for event in quick] == ["open", "message", "done"]
        assert many.metric("generations_queued") == 8
        gate.open()
        for count, stream in enumerate(streams, 1):
            stream.read()
            assert_whole(stream.events)
            assert text_of(stream.events) == "".join(f"{n} " for n in range(count))
            told = [event.json["position"] for event in stream.events if event.type == "queued"]
            assert told[0] == count and told == sorted(told, reverse=True)


def test_readiness_and_models_of_several(many):
    answer = many.readiness()
    assert answer["ready"] is True
    assert answer["models"] == [{"name": name, "state": "ready"} for name in NAMES]
    assert {engine["model"] for engine in answer["engines"]} == set(NAMES)
    models = models_of(many)
    assert list(models) == NAMES
    assert models["count"] == {
        "name": "count",
        "state": "ready",
        "error": None,
        "message": None,
        "is_streaming": True,
        "inputs": {
            "count": {"datatype": "INT32", "shape": [1], "required": True, "example": [3]},
            "hold_before": {"datatype": "INT32", "shape": [1], "required": False, "example": [3]},
            "gate": {"datatype": "STRING", "shape": [1], "required": False, "example": ["/tmp/gate"]},
        },
    }
    assert models["chat"]["inputs"]["temperature"]["maximum"] == 2


@pytest.mark.parametrize("death", ["kill_before", "segfault_before"])
def test_crash_of_one_engine_leaves_the_others_stream_alone(own_stack, gate, death):
    stack = own_stack(models=TWO).start()
    survivor = stack.engines[1]
    with connect(f"{stack.url}/stream?model=two&texts=a&texts=b&hold_before=2&gate={gate.path}") as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        crashing = post(stack, model="one", texts=["x"], **{death: 1}).json()["id"]
        number = signal.SIGKILL if death == "kill_before" else signal.SIGSEGV
        assert stack.engines[0].popen.wait(START_TIMEOUT_S) == -number
        waiting = post(stack, model="one", texts=["y"]).json()["id"]
        message = wait_for(lambda: stack.readiness().get("message"), what="the dead engine's lease to run out")
        assert message == "one: no engine process is reporting"
        assert text_of(read_all(f"{stack.url}/stream?model=two&texts=meanwhile")) == "meanwhile"
        requests.delete(f"{stack.url}/generations/{crashing}", timeout=30)
        stack.start_engine("one")
        assert text_of(read_all(stack.events_url(waiting))) == "y"
        gate.open()
        events = stream.read().events
    assert [event.type for event in events] == ["open", "message", "message", "done"]
    assert (survivor.popen.poll(), text_of(events)) == (None, "ab")


@pytest.fixture
def good_and_bad(own_stack, tmp_path):
    """Of two models, `bad` can't be loaded. No engine runs yet."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "app.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "bad" / "input_schema.py").write_text((SCRIPTED / "input_schema.py").read_text())
    stack = own_stack(models={"good": SCRIPTED, "bad": tmp_path / "bad"})
    stack.start_valkey()
    stack.start_web()
    return stack


@pytest.mark.parametrize("path", ["infer", "generate"])
def test_whole_response_of_a_model_that_can_not_be_loaded(good_and_bad, path):
    stack = good_and_bad
    body = {"parameters": {"texts": ["a"]}, "text_input": ""}
    headers = {"Accept": "application/json"}
    with ThreadPoolExecutor(1) as pool:
        url = f"{stack.url}/v2/models/bad/{path}"
        waiting = pool.submit(requests.post, url, json=body, headers=headers, timeout=30)
        wait_for(lambda: waiting.done() or queue_length(stack, "bad") == 1, what="the generation")
        assert stack.start_engine("bad").popen.wait(START_TIMEOUT_S) == 3
        answer = waiting.result()
    assert (answer.status_code, answer.json()["code"]) == (503, "model_failed"), answer.text


def test_model_that_can_not_be_loaded_fails_alone(good_and_bad, tmp_path):
    stack = good_and_bad
    early = post(stack, model="bad", texts=["a"]).json()["id"]
    good = post(stack, model="good", texts=["a"]).json()["id"]
    with connect(stack.events_url(early)) as stream, connect(stack.events_url(good)) as other:
        assert stack.start_engine("bad").popen.wait(START_TIMEOUT_S) == 3
        reason = f"{tmp_path / 'bad' / 'app.py'}:1: import app raised"
        failed = stream.read().events[-1]
        assert (failed.type, failed.json["code"]) == ("failed", "model_failed")
        assert failed.json["message"].startswith(reason)
        stack.start_engine("good")
        assert text_of(other.read().events) == "a"
    status, code, message = refusal(post(stack, model="bad", texts=["a"]))
    assert (status, code) == (503, "model_failed") and message.startswith(reason)
    assert text_of(read_all(f"{stack.url}/stream?texts=b")) == "b"
    answer = requests.get(f"{stack.url}/readyz", timeout=30)
    assert (answer.status_code, answer.json()["ready"], answer.json()["waiting_for"]) == (503, False, "model")
    assert answer.json()["message"].startswith(f"bad: {reason}") and "\n" not in answer.json()["message"]
    assert [model["state"] for model in answer.json()["models"]] == ["ready", "failed"]
    models = models_of(stack)
    assert models["good"]["error"] is None and models["bad"]["error"].startswith(reason)


def test_readiness_of_one_model(own_stack, tmp_path):
    port = free_port()
    models = {"good": SCRIPTED, "absent": tmp_path / "nowhere"}
    stack = own_stack(models=models, WEB_CONCURRENCY="1", EVERSTREAM_HEALTH_PORT=str(port))
    stack.start_valkey()
    stack.start_web()
    stack.start_engine("good")
    for url in (stack.url, f"http://127.0.0.1:{port}"):

        def ask(query, url=url):
            return requests.get(f"{url}/readyz{query}", timeout=30)

        wait_for(lambda: ask("?model=good").status_code == 200, what="the good model")
        answer = ask("?model=good").json()
        assert answer["ready"] is True and [engine["model"] for engine in answer["engines"]] == ["good"]
        answer = ask("?model=absent")
        message = "no engine process is reporting"
        assert (answer.status_code, answer.json()) == (
            503,
            {"ready": False, "waiting_for": "engine", "message": message},
        )
        for query in ("", "?model="):
            assert ask(query).status_code == 503 and len(ask(query).json()["models"]) == 2
        for query in ("?model=other", "?model=good&model=absent"):
            assert error_of(ask(query)) == (400, "invalid_request", "model")
        assert "'good', 'absent' are" in ask("?model=other").json()["error"]["message"]


def test_log_error_of_one_engine_ends_only_its_streams(own_stack, gate):
    stack = own_stack(models=TWO, WEB_CONCURRENCY="1").start()
    query = f"texts=a&texts=b&hold_before=2&gate={gate.path}"
    with (
        closing(valkey.Valkey.from_url(stack.settings.log_url)) as client,
        connect(f"{stack.url}/stream?model=one&{query}") as ended,
        connect(f"{stack.url}/stream?model=two&{query}") as waiting,
    ):
        for stream in (ended, waiting):
            stream.read(until=lambda seen: len(seen.events) == 2)
        # The other one's lease runs out, too, but for a reason that heals.
        stack.engines[1].kill()
        client.set(Keys(stack.settings.namespace, "one").jobs, "something else")
        assert stack.engines[0].popen.wait(START_TIMEOUT_S) == 5
        assert ended.read().events[-1].json["code"] == "log_error"
        assert post(stack, model="one", texts=["a"]).json()["error"]["code"] == "log_error"
        gate.open()
        stack.start_engine("two")
        events = waiting.read().events
    assert [event.type for event in events] == ["open", "message", "resumed", "message", "done"]
    assert text_of(read_all(f"{stack.url}/stream?model=two&texts=c")) == "c"


def test_queue_of_one_model_is_full(own_stack):
    stack = own_stack(models=TWO, EVERSTREAM_MAX_QUEUED="2")
    stack.start_valkey()
    stack.start_web()
    for _ in range(2):
        assert post(stack, model="one", texts=["a"]).status_code == 201
    refused = post(stack, model="one", texts=["a"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
    assert post(stack, model="two", texts=["a"]).status_code == 201
    assert (queue_length(stack, "one"), queue_length(stack, "two")) == (2, 1)


def test_idle_stack_has_no_job_of_any_model(own_stack):
    stack = own_stack(models=TWO, WEB_CONCURRENCY="1")
    stack.start_valkey()
    stack.start_web()
    stack.assert_idle()
    assert post(stack, model="two", texts=["a"]).status_code == 201
    with pytest.raises(AssertionError, match="the end of all jobs"):
        stack.assert_idle(timeout_s=1)


def test_bad_schema_of_one_folder(own_stack, tmp_path):
    for name, source in (("bad", BROKEN_SCHEMA), ("empty", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "input_schema.py").write_text(source)
    models = {"bad": tmp_path / "bad", "good": SCRIPTED, "empty": tmp_path / "empty"}
    stack = own_stack(models=models, WEB_CONCURRENCY="1")
    stack.start_valkey()
    stack.start_web()
    reason = f"{tmp_path / 'bad' / 'input_schema.py'}: INPUT_SCHEMA['a']: unknown datatype 'STRONG'"
    assert f"the schema of bad can't be loaded: {reason}" in stack.web.output
    # The first model.
    status, code, message = refusal(post(stack, texts=["a"]))
    assert (status, code) == (503, "model_failed") and message.startswith(reason)
    assert post(stack, model="good", texts=["a"]).status_code == 201
    message = stack.readiness()["message"]
    assert message.startswith(f"bad: {reason}") and "; good: no engine process is reporting" in message
    assert [model["state"] for model in stack.readiness()["models"]] == ["failed", "loading", "loading"]
    models = models_of(stack)
    assert models["bad"]["error"].startswith(reason)
    assert (models["bad"]["is_streaming"], models["bad"]["inputs"]) == (None, {})
    # Its inputs may be declared in `app.py`, which only its engine imports.
    assert (models["empty"]["is_streaming"], models["empty"]["inputs"]) == (None, {})
    assert stack.start_engine("bad").popen.wait(START_TIMEOUT_S) == 3
    assert post(stack, texts=["a"]).status_code == 503


def test_web_process_without_the_folder_uses_the_published_schema(own_stack, tmp_path):
    stack = own_stack(models={"good": SCRIPTED, "far": tmp_path / "nowhere"}, WEB_CONCURRENCY="1")
    stack.start_valkey()
    stack.start_web()
    answer = post(stack, model="far", count=2)
    assert refusal(answer)[:2] == (503, "model_loading")
    assert answer.headers["Retry-After"] == "5"
    assert models_of(stack)["far"]["inputs"] == {}
    stack.start_engine("far", MODELS=f"far={MODELS / 'plain'}")
    wait_for(lambda: post(stack, model="far", count=2).status_code == 201, what="the published schema")
    assert text_of(read_all(f"{stack.url}/stream?model=far&count=2")) == "0 1 "
    assert error_of(post(stack, model="far", texts=["a"])) == (400, "invalid_request", "texts")
    assert models_of(stack)["far"]["inputs"]["count"]["required"] is True


def test_published_schema_of_a_restarted_engine_replaces_the_old_one(own_stack, tmp_path):
    stack = own_stack(models={"far": tmp_path / "nowhere"}, WEB_CONCURRENCY="1")
    stack.start_valkey()
    stack.start_web()
    engine = stack.start_engine("far", MODELS=f"far={MODELS / 'plain'}")
    wait_for(lambda: post(stack, count=2).status_code == 201, what="the published schema")
    engine.stop()
    stack.start_engine("far", MODELS=f"far={SCRIPTED}")
    wait_for(lambda: post(stack, texts=["a"]).status_code == 201, what="the new schema")


def test_folders_with_modules_of_the_same_names(own_stack, tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "common.py").write_text(f"NAME = {name!r}\n")
        (folder / "app.py").write_text(
            "import common\n"
            "class InferlessPythonModel:\n"
            "    async def infer(self, inputs, stream_output_handler):\n"
            "        stream_output_handler.send_streamed_output({'text': common.NAME})\n"
        )
        (folder / "input_schema.py").write_text(
            "import common\n"
            "from everstream.errors import InvalidInput\n"
            "INPUT_SCHEMA = {'name': {'datatype': 'STRING'}}\n"
            "def check_inputs(inputs):\n"
            "    if inputs['name'] != common.NAME:\n"
            "        raise InvalidInput(f'I am {common.NAME}', param='name')\n"
        )
    stack = own_stack(models={name: tmp_path / name for name in ("one", "two")}, WEB_CONCURRENCY="1").start()
    for name, other in (("one", "two"), ("two", "one")):
        assert text_of(read_all(f"{stack.url}/stream?model={name}&name={name}")) == name
        assert post(stack, model=name, name=other).json()["error"]["message"] == f"I am {name}"


ENVIRONMENT_APP = """
import os

class InferlessPythonModel:
    async def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output({"text": os.environ.get(inputs["name"], "unset")})
"""


@pytest.fixture
def environment_model(tmp_path):
    """A model that outputs the value of an environment variable."""
    folder = tmp_path / "environment"
    folder.mkdir()
    (folder / "app.py").write_text(ENVIRONMENT_APP)
    (folder / "input_schema.py").write_text("INPUT_SCHEMA = {'name': {'datatype': 'STRING', 'example': ['PATH']}}\n")
    return folder


def test_supervisor_runs_an_engine_for_each_model(tmp_path, environment_model):
    environ = {"CUDA_VISIBLE_DEVICES__SAY_B": "1", "SOME_OTHER__SAY_A": "x", "EVERSTREAM_MAX_RUNNING__SAY_A": "1"}
    stack = Supervised(tmp_path, models={"say.a": "/not/this", "say.b": "/nor/this"}, **environ)
    stack.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        arguments = ["--model", f"say.a={environment_model}", "--model", f"say.b={environment_model}"]
        stack.launch(arguments=arguments)

        def value(model, name):
            return text_of(read_all(f"{stack.url}/stream?model={model}&name={name}"))

        for name in ("say.a", "say.b"):
            assert f"everstream | engine {name}: {environment_model}" in stack.supervisor.output
            command = f"everstream | {name} is ready: curl -N '{stack.url}/stream?model={name}&name=PATH'"
            wait_for(lambda: command in stack.supervisor.output, what=command)  # noqa: B023 - called at once
        assert value("say.a", "EVERSTREAM_ENGINE_MODEL") == "say.a"
        assert (value("say.a", "CUDA_VISIBLE_DEVICES"), value("say.b", "CUDA_VISIBLE_DEVICES")) == ("unset", "1")
        assert (value("say.a", "SOME_OTHER"), value("say.b", "SOME_OTHER")) == ("x", "unset")
        assert value("say.a", "EVERSTREAM_MAX_RUNNING") == "1"
        engines = {engine["model"]: engine["name"] for engine in stack.readiness()["engines"]}
        assert len(set(engines.values())) == 2
        killed, survivor = engine_pid(stack, "say.a"), engine_pid(stack, "say.b")
        killed.kill()
        wait_for(lambda: "engine say.a was killed by SIGKILL; restarting" in stack.supervisor.output)
        assert value("say.b", "EVERSTREAM_ENGINE_MODEL") == "say.b"
        assert value("say.a", "EVERSTREAM_ENGINE_MODEL") == "say.a"
        assert engine_pid(stack, "say.b") == survivor
    finally:
        stack.stop()


def engine_pid(stack, model):
    """The supervisor's child that runs this model."""
    engines = [child for child in stack.family() if "everstream.engine.main" in " ".join(child.cmdline())]
    return next(engine for engine in engines if engine.environ()["EVERSTREAM_ENGINE_MODEL"] == model)


def test_model_is_an_input_of_a_single_model_that_has_one(own_stack, tmp_path):
    (tmp_path / "app.py").write_text(
        ENVIRONMENT_APP.replace('os.environ.get(inputs["name"], "unset")', 'inputs["model"]')
    )
    (tmp_path / "input_schema.py").write_text("INPUT_SCHEMA = {'model': {'datatype': 'STRING'}}\n")
    stack = own_stack(app_dir=tmp_path, WEB_CONCURRENCY="1").start()
    assert text_of(read_all(f"{stack.url}/stream?model=x")) == "x"
    answer = post(stack, model="y")
    assert text_of(read_all(stack.events_url(answer.json()["id"]))) == "y"


def test_model_is_an_option_of_a_single_model_that_has_no_such_input(fast):
    name = fast.settings.model_name
    assert text_of(read_all(f"{fast.url}/stream?texts=a&model={name}")) == "a"
    answer = post(fast, texts=["a"], model="other")
    assert error_of(answer) == (400, "invalid_request", "model")
    assert f"{name!r} is" in answer.json()["error"]["message"]
    assert "models" not in fast.readiness()
    assert list(models_of(fast)) == [name]
