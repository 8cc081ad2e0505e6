"""A model that can't be loaded is said in one readable line, everywhere it matters, and nothing hangs."""

import pytest
import requests

from everstream.settings import REPO_ROOT
from tests.sse_client import connect
from tests.stack import MODELS, START_TIMEOUT_S, wait_for

SCHEMA = (MODELS / "scripted" / "input_schema.py").read_text()


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "input_schema.py").write_text(SCHEMA)
    return folder


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("import nothing_of_this_name\n", ":1", "No module named 'nothing_of_this_name'"),
        ("class Other:\n    pass\n", "", "has no class InferlessPythonModel"),
        (
            "class InferlessPythonModel:\n    def initialize(self):\n        raise RuntimeError('no weights')\n",
            ":3",
            "initialize raised RuntimeError: no weights",
        ),
    ],
)
def test_a_model_that_does_not_load(own_stack, model_folder, source, line, said):
    (model_folder / "app.py").write_text(source)
    place = f"{model_folder / 'app.py'}{line}"
    stack = own_stack(app_dir=model_folder)
    stack.start_valkey()
    stack.start_web()
    early = stack.submit(texts=["a"])
    with connect(stack.events_url(early)) as stream:
        engine = stack.start_engine()
        assert engine.popen.wait(START_TIMEOUT_S) == 3
        # One line with what, and where.
        assert [row for row in engine.output.splitlines() if place in row and said in row]
        assert "Traceback" not in engine.output
        readiness = stack.readiness()
        assert (readiness["ready"], readiness["waiting_for"]) == (False, "model")
        assert place in readiness["message"] and said in readiness["message"]
        # Who came before it was known is told as well.
        event = stream.read().events[-1]
    assert (event.type, event.json["code"]) == ("failed", "model_failed")
    assert said in event.json["message"]
    answer = requests.post(f"{stack.url}/generations", json={"texts": ["a"]}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_failed")
    assert said in answer.json()["error"]["message"]


def test_a_model_that_was_mended_serves(own_stack, model_folder):
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


def test_a_wrong_engine_argument_is_said_in_one_line(own_stack):
    stack = own_stack(app_dir=REPO_ROOT, ENGINE_ARGS="--no-such-argument 1")
    stack.start_valkey()
    stack.start_web()
    engine = stack.start_engine()
    assert engine.popen.wait(START_TIMEOUT_S) == 3
    said = "initialize raised SettingsError: ENGINE_ARGS: unrecognized arguments: --no-such-argument 1"
    assert said in stack.readiness()["message"]
    assert said in engine.output and "usage:" not in engine.output


def test_what_a_models_checks_raise_is_no_answer_but_said(own_stack, model_folder):
    """A bug in `check_inputs` is told as one of the server, and one in `check` as the model's; neither is a yes."""
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
