"""What the Messages API sends, as Anthropic's own Python client takes it: validated, and put together."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.apis.anthropic.encoder import MessageEncoder
from everstream.apis.anthropic.errors import error_body
from everstream.apis.anthropic.events import MessageEvents
from everstream.apis.anthropic.whole_message import whole_message
from everstream.errors import InvalidInput
from everstream.log.entries import encode_json
from everstream.log.records import Generation
from everstream.web.sse import Queued
from harness.chat_outputs import ENDS, OUTPUTS, call, calls, end, entries, piece

anthropic = pytest.importorskip("anthropic")
httpx2 = pytest.importorskip("httpx2")
pydantic = pytest.importorskip("pydantic")

GENERATION = Generation("0123456789abcdef" * 2, "open", "demo", 0)
EVENT = pydantic.TypeAdapter(anthropic.types.RawMessageStreamEvent)
ERROR = pydantic.TypeAdapter(anthropic.types.ErrorResponse)
REQUEST = {"model": "demo", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}


def events(*outputs, **end):
    machine = MessageEvents(GENERATION)
    return [*machine.start(), *(event for entry in entries(*outputs, **end) for event in machine.entry(entry))]


def wire(*outputs, has_ids=False, **end):
    """The same as a stream, in which the model pauses after each output."""
    encoder = MessageEncoder(GENERATION, has_ids=has_ids)
    frames = [encoder.entry(entry) for entry in entries(*outputs, **end)]
    return encoder.start(1000, is_new=True) + encoder.queued(Queued(1, 1)) + encoder.heartbeat.join(frames)


@pytest.fixture(scope="module")
def sent():
    """What the service says next."""
    return {}


@pytest.fixture(scope="module")
def client(sent):
    """The client itself, with our bytes in place of the network."""

    def respond(request):
        body = sent["body"]
        kind = "text/event-stream" if json.loads(request.content).get("stream") else "application/json"
        return httpx2.Response(200, headers={"content-type": kind}, content=body)

    transport = httpx2.MockTransport(respond)
    with httpx2.Client(transport=transport) as http, anthropic.Anthropic(api_key="k", http_client=http) as client:
        yield client


@given(OUTPUTS, ENDS)
def test_events_have_the_published_types(outputs, end):
    for event in events(*outputs, **end):
        data = encode_json(event)
        if event.__struct_config__.tag == "error":
            ERROR.validate_json(data, strict=True)
        else:
            assert EVENT.validate_json(data, strict=True).model_extra in (None, {})


@given(OUTPUTS, ENDS)
def test_messages_have_the_published_type(outputs, end):
    made = events(*outputs, **end)
    if made[-1].__struct_config__.tag == "message_stop":
        anthropic.types.Message.model_validate_json(encode_json(whole_message(made)), strict=True)


_TEXTS = st.text(max_size=5)
_SAID = st.one_of(_TEXTS.map(lambda said: piece(text=said)), _TEXTS.map(lambda thought: piece(reasoning=thought)))


def cut_call(index, city, at, amid):
    """A call, whose arguments are JSON, because the client refuses others; and text amid them."""
    arguments = encode_json({"city": city}).decode()
    return [calls(call(index, arguments[:at], name="f")), {"text": amid}, calls(call(index, arguments[at:]))]


@given(st.lists(_SAID), st.lists(st.tuples(_TEXTS, st.integers(0, 12), _TEXTS), max_size=3))
def test_the_client_makes_the_same_of_a_stream(client, sent, said, called):
    outputs = [output for index, given in enumerate(called) for output in cut_call(index, *given)]
    sent["body"] = encode_json(whole_message(events(*said, *outputs, **end("stop"))))
    whole = client.messages.create(**REQUEST).model_dump()
    for has_ids in (False, True):
        sent["body"] = wire(*said, *outputs, has_ids=has_ids, **end("stop"))
        with client.messages.stream(**REQUEST) as stream:
            assert stream.get_final_message().model_dump() == whole


def test_the_client_raises_a_streams_error(client, sent):
    sent["body"] = wire({"text": "a"}, event="failed", code="engine_crashed", message="it died")
    with (
        pytest.raises(anthropic.APIStatusError, match="it died") as caught,
        client.messages.stream(**REQUEST) as stream,
    ):
        stream.until_done()
    assert caught.value.type == "api_error"
    assert caught.value.error_code == "engine_crashed"


def test_error_bodies_have_the_published_type():
    body = error_body(InvalidInput("top_p is too large", param="top_p"), "req_1")
    assert ERROR.validate_json(encode_json(body), strict=True).request_id == "req_1"
