"""Models that declare their inputs by pydantic classes in `app.py`, without an `input_schema.py`: only the engine
imports that file, so the web processes learn of the inputs from it."""

import pytest
import requests

from harness.sse_client import connect, read_all
from harness.stack import running_stack

APP = """
from typing import List, Optional

import inferless
from pydantic import BaseModel, Field

IS_STREAMING_OUTPUT = True


@inferless.request
class RequestObjects(BaseModel):
    prompt: str = Field(default="a horse near a beach")
    steps: int = Field(default=2, ge=1, le=5)
    tags: Optional[List[str]] = None
    note: Optional[str]


@inferless.response
class ResponseObjects(BaseModel):
    text: str = Field(default="Test output")


app = inferless.Cls(gpu="T4")


class InferlessPythonModel:
    @app.load
    def initialize(self):
        pass

    @app.infer
    def infer(self, inputs, stream_output_handler):
        assert isinstance(inputs, RequestObjects)
        for n in range(inputs.steps):
            stream_output_handler.send_streamed_output(ResponseObjects(text=f"{inputs.prompt} {n} {inputs.tags} "))
        stream_output_handler.finalise_streamed_output()
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pydantic")
    model = folder / "model"
    model.mkdir()
    (model / "app.py").write_text(APP)
    # pydantic deprecates things that public models still use.
    with running_stack(folder, app_dir=model, WEB_CONCURRENCY="1", PYTHONWARNINGS="ignore") as stack:
        yield stack


def test_request_object_and_response_objects(stack):
    with connect(f"{stack.url}/stream?prompt=a&steps=2&tags=x&tags=y") as stream:
        events = stream.read().events
    assert [event.json for event in events if event.type == "message"] == [
        {"text": "a 0 ['x', 'y'] "},
        {"text": "a 1 ['x', 'y'] "},
    ]
    assert events[-1].type == "done"


def test_defaults(stack):
    texts = [event.json["text"] for event in read_all(stack.events_url(stack.submit())) if event.type == "message"]
    assert texts == ["a horse near a beach 0 None ", "a horse near a beach 1 None "]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"steps": 6}, "steps", "from 1 to 5"),
        ({"steps": "many"}, "steps", "a whole number"),
        ({"tags": [1]}, "tags", "each item of tags must be a string"),
        ({"stepz": 1}, "stepz", "did you mean steps?"),
    ],
)
def test_invalid_inputs(stack, body, param, message):
    answer = requests.post(f"{stack.url}/generations", json=body, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]
