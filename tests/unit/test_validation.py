"""What an engine replies to a web process that asks its model."""

import asyncio

import msgspec
import pytest

from everstream.engine.validation import validate
from everstream.log.records import ValidationReply, ValidationRequest
from harness.folders import adapted


class Model:
    async def infer(self, inputs, stream_output_handler):
        pass

    async def tokenize(self, inputs):
        return inputs["tokens"]


class OneRequest:
    """The engine's side of a log in which one request waits."""

    def __init__(self, request):
        self.request = request
        self.encoded = b""

    async def next_validation(self, *, is_long):
        return self.request

    async def reply(self, request, reply):
        self.encoded = msgspec.json.encode(reply)


def reply_to(method, **inputs):
    log = OneRequest(ValidationRequest("reply", inputs, method))
    asyncio.run(validate(adapted(Model()), log, is_long=False))
    return msgspec.json.decode(log.encoded, type=ValidationReply)


def test_result_comes_back():
    assert reply_to("tokenize", tokens=[1, 2]).result == [1, 2]
    assert reply_to("check") == ValidationReply()
    assert reply_to("detokenize").message == "the served model can't detokenize"


@pytest.mark.parametrize("tokens", [object(), "\ud800"])
def test_result_that_is_not_json_is_the_models_error(tokens):
    """It must not end the engine, as an error of its own would."""
    reply = reply_to("tokenize", tokens=tokens)
    assert reply.is_bug and reply.message.startswith("the model's tokenize raised ")
