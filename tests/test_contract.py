"""Model folders: what loads, and what is said of what does not."""

import asyncio

import pytest

from everstream import contract
from everstream.errors import ModelLoadError


def write(folder, source):
    (folder / "app.py").write_text(source)
    return folder


def load(folder):
    async def main():
        model = contract.load_model(folder)
        await contract.initialize(model, folder)
        return model

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_this_name", "app.py:1: import app raised ModuleNotFoundError: No module named"),
        ("x = 1\nx +\n", "app.py:2: import app raised SyntaxError"),
        ("class Other: pass", "app.py has no class InferlessPythonModel"),
        ("import sys\nsys.exit('no')", "app.py:2: import app raised SystemExit: no"),
        (
            "class InferlessPythonModel:\n def initialize(self):\n  raise RuntimeError('no\\nweights')",
            "app.py:3: initialize raised RuntimeError: no weights",
        ),
        (
            "class InferlessPythonModel:\n async def initialize(self):\n  {}['weights']",
            "app.py:3: initialize raised KeyError: 'weights'",
        ),
        ("class InferlessPythonModel:\n def __init__(self, x): pass", "InferlessPythonModel() raised TypeError"),
    ],
)
def test_what_does_not_load_is_said_in_one_line(tmp_path, source, said):
    with pytest.raises(ModelLoadError) as raised:
        load(write(tmp_path, source))
    message = str(raised.value)
    assert said in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ModelLoadError, match=r"app\.py does not exist"):
        contract.load_model(tmp_path)
    with pytest.raises(ModelLoadError, match=r"input_schema\.py does not exist"):
        contract.load_schema(tmp_path)
    (tmp_path / "input_schema.py").write_text("INPUT_SCHEMA = 7")
    with pytest.raises(ModelLoadError, match="has no dict INPUT_SCHEMA"):
        contract.load_schema(tmp_path)


@pytest.mark.parametrize("parameters", ["self", "self, context", "self, context=None", "self, *args"])
def test_variants_of_initialize_and_finalize(tmp_path, parameters):
    source = f"class InferlessPythonModel:\n def initialize({parameters}): self.up = True\n"
    model = load(write(tmp_path, source + f" def finalize({parameters}): self.up = False\n"))
    assert model.up
    asyncio.run(contract.finalize(model))
    assert not model.up


def infer(model, delivered=(), states=()):
    """What a model sends and how it ends, given what was delivered."""
    sent, ends = [], []

    async def main():
        handler = contract.StreamOutputHandler(
            lambda output, resume: sent.append(output), ends.append, list(delivered), list(states)
        )
        await contract.infer(model, {}, handler)

    asyncio.run(main())
    return sent, ends


class Plain:
    def infer(self, inputs, stream_output_handler):
        for n in range(3):
            stream_output_handler.send_streamed_output({"n": n})
        stream_output_handler.finalise_streamed_output()
        stream_output_handler.finalise_streamed_output()


class Returning:
    def infer(self, inputs):
        return {"n": 0}


class Continuing:
    async def infer(self, inputs, stream_output_handler):
        for n in range(len(stream_output_handler.delivered), 3):
            stream_output_handler.send_streamed_output({"n": n})


class SendingAfterTheEnd:
    def infer(self, inputs, stream_output_handler):
        stream_output_handler.finalise_streamed_output()
        stream_output_handler.send_streamed_output({})


class SendingText:
    def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output("text")


END = [{"finish_reason": "stop", "usage": None}]


def test_streaming():
    assert infer(Plain()) == ([{"n": 0}, {"n": 1}, {"n": 2}], END)


def test_a_model_that_does_not_stream():
    assert infer(Returning()) == ([{"n": 0}], END)


@pytest.mark.parametrize("model", [Plain(), Continuing()])
def test_after_a_death_nothing_is_sent_twice(model):
    """Neither by a model that goes on from `delivered`, nor by one that starts over."""
    assert infer(model, delivered=[{"n": 0}, {"n": 1}]) == ([{"n": 2}], END)
    assert infer(model, delivered=[{"n": 0}, {"n": 1}, {"n": 2}]) == ([], END)


@pytest.mark.parametrize(("model", "error"), [(SendingAfterTheEnd(), RuntimeError), (SendingText(), TypeError)])
def test_misuse_is_an_error(model, error):
    with pytest.raises(error):
        infer(model)
