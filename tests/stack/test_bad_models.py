"""A model that can't be loaded is reported in one readable line wherever it matters, and nothing hangs."""

import pytest
import requests

from everstream.settings import PROJECT_ROOT
from harness.sse_client import connect
from harness.stack import MODELS, START_TIMEOUT_S, wait_for

SCHEMA = (MODELS / "scripted" / "input_schema.py").read_text()


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "input_schema.py").write_text(SCHEMA)
    return folder


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("import nothing_of_this_name\n", ":1", "No module named 'nothing_of_this_name'"),
        ("class Other:\n    pass\n", "", "has no class InferlessPythonModel"),
        (
            "class InferlessPythonModel:\n    def infer(self, inputs): pass\n"
            "    def initialize(self):\n        raise RuntimeError('no weights')\n",
            ":4",
            "initialize raised RuntimeError: no weights",
        ),
    ],
)
def test_model_that_does_not_load(own_stack, model_folder, source, line, reason):
    (model_folder / "app.py").write_text(source)
    location = f"{model_folder / 'app.py'}{line}"
    stack = own_stack(app_dir=model_folder)
    stack.start_valkey()
    stack.start_web()
    early = stack.submit(texts=["a"])
    with connect(stack.events_url(early)) as stream:
        engine = stack.start_engine()
        assert engine.popen.wait(START_TIMEOUT_S) == 3
        # One line that says what failed, and where.
        assert [row for row in engine.output.splitlines() if location in row and reason in row]
        assert "Traceback" not in engine.output
        readiness = stack.readiness()
        assert (readiness["ready"], readiness["waiting_for"]) == (False, "model")
        assert location in readiness["message"] and reason in readiness["message"]
        # A request from before the failure was known fails too.
        event = stream.read().events[-1]
    assert (event.type, event.json["code"]) == ("failed", "model_failed")
    assert reason in event.json["message"]
    answer = requests.post(f"{stack.url}/generations", json={"texts": ["a"]}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_failed")
    assert reason in answer.json()["error"]["message"]


def test_fixed_model_serves(own_stack, model_folder):
    (model_folder / "app.py").write_text("import nothing_of_this_name\n")
    stack = own_stack(app_dir=model_folder)
    stack.start_valkey()
    stack.start_web()
    assert stack.start_engine(EVERSTREAM_ENGINE_NAME="engine").popen.wait(START_TIMEOUT_S) == 3
    (model_folder / "app.py").write_text((MODELS / "scripted" / "app.py").read_text())
    stack.start_engine(EVERSTREAM_ENGINE_NAME="engine")
    stack.wait_ready()
    generation = stack.submit(texts=["a"])
    wait_for(lambda: stack.show(generation)["state"] == "done")


def test_invalid_engine_argument_is_reported_in_one_line(own_stack):
    stack = own_stack(app_dir=PROJECT_ROOT, ENGINE_ARGS="--no-such-argument 1")
    stack.start_valkey()
    stack.start_web()
    engine = stack.start_engine()
    assert engine.popen.wait(START_TIMEOUT_S) == 3
    reason = "initialize raised SettingsError: ENGINE_ARGS: unrecognized arguments: --no-such-argument 1"
    assert reason in stack.readiness()["message"]
    assert reason in engine.output and "usage:" not in engine.output


def test_exceptions_in_a_models_checks_are_reported_as_errors(own_stack, model_folder):
    """A bug in `check_inputs` is an internal error, and one in `check` a model error. Neither accepts the request."""
    raising = "\n\ndef check_inputs(inputs):\n    assert inputs['texts'] != ['bug'], 'secret'\n"
    (model_folder / "input_schema.py").write_text(SCHEMA + raising)
    scripted = (MODELS / "scripted" / "app.py").read_text()
    checking = "    def check(self, inputs):\n        raise KeyError('secret')\n\n    def finalize("
    source = (
        scripted.replace("400_000", "5")
        .replace("    def check(", "    def unused(")
        .replace("    def finalize(", checking)
    )
    (model_folder / "app.py").write_text(source)
    stack = own_stack(app_dir=model_folder).start()
    answer = requests.post(f"{stack.url}/generations", json={"texts": ["bug"]}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text and "secret" in stack.web.output
    answer = requests.post(f"{stack.url}/generations", json={"texts": ["a"]}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "model_error")
    assert answer.json()["error"]["message"] == "the model's check raised KeyError"
    assert "the model's check failed" in stack.engines[0].output and "secret" in stack.engines[0].output


def test_readiness_while_the_model_loads(own_stack, model_folder, gate):
    (model_folder / "app.py").write_text(
        "import pathlib, time\n"
        "class InferlessPythonModel:\n"
        "    def initialize(self):\n"
        f"        while not pathlib.Path({gate.path!r}).exists(): time.sleep(0.02)\n"
        "    def infer(self, inputs, stream_output_handler): pass\n"
    )
    stack = own_stack(app_dir=model_folder)
    stack.start_valkey()
    stack.start_web()
    stack.start_engine()
    wait_for(lambda: stack.readiness()["waiting_for"] == "model", what="the engine's first report")
    assert stack.readiness()["message"] == f"{stack.settings.model_name} is loading"
    gate.open()
    stack.wait_ready()
