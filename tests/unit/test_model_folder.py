"""Model folders: which ones load, and the errors for those that do not."""

import asyncio
import json
import sys
import types

import pytest

from everstream.contract.loader import Declaration, load_schema
from everstream.contract.model import load_model
from everstream.contract.output_handler import GenerationStopped, HandlerOptions, StreamOutputHandler
from everstream.errors import ModelLoadError
from harness.folders import adapted


@pytest.fixture(autouse=True)
def modules():
    """Restores `app` and `input_schema`, which other tests import as this repository's own modules."""
    path, before = list(sys.path), {name: sys.modules.get(name) for name in ("app", "input_schema")}
    yield
    sys.path[:] = path
    for name, module in before.items():
        if module is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = module


def write(folder, source):
    """A model folder; its class gets an `infer` if the source has none."""
    infer = "\n def infer(self, inputs): pass\n" if "InferlessPythonModel" in source and "infer(" not in source else ""
    (folder / "app.py").write_text(source + infer)
    (folder / "input_schema.py").write_text("INPUT_SCHEMA = {}\n")
    return folder


def load(folder):
    async def main():
        model = load_model(folder)
        await model.initialize()
        return model

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("source", "expected"),
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
def test_load_error_is_one_line(tmp_path, source, expected):
    with pytest.raises(ModelLoadError) as raised:
        load(write(tmp_path, source))
    message = str(raised.value)
    assert expected in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_load_error_names_the_models_line_not_a_librarys(tmp_path):
    library = tmp_path / "site-packages" / "library.py"
    library.parent.mkdir()
    library.write_text("def load():\n    raise RuntimeError('no weights')\n")
    source = f"import sys\nsys.path.append({str(library.parent)!r})\nimport library\nlibrary.load()\n"
    with pytest.raises(ModelLoadError, match=r"app\.py:4: import app raised RuntimeError: no weights"):
        load_model(write(tmp_path, source))


def test_missing_file_is_reported(tmp_path):
    with pytest.raises(ModelLoadError, match=r"app\.py does not exist"):
        load_model(tmp_path)
    with pytest.raises(ModelLoadError, match=r"input_schema\.py does not exist"):
        load_schema(tmp_path)
    (tmp_path / "input_schema.py").write_text("INPUT_SCHEMA = 7")
    with pytest.raises(ModelLoadError, match="INPUT_SCHEMA must be a dict, not int"):
        load_schema(tmp_path)


@pytest.mark.parametrize("parameters", ["self", "self, context", "self, context=None", "self, *args"])
def test_variants_of_initialize_and_finalize(tmp_path, parameters):
    source = f"class InferlessPythonModel:\n def initialize({parameters}): self.up = True\n"
    model = load(write(tmp_path, source + f" def finalize({parameters}): self.up = False\n"))
    assert model._model.up
    asyncio.run(model.finalize())
    assert not model._model.up


class Sink:
    """Collects a model's outputs. If `narrow`, it has room for one at a time."""

    def __init__(self, narrow):
        self.sent, self.joinable, self.ends, self.waiting = [], [], [], 0
        self.most_waiting = 0
        self._narrow = narrow
        self.writable = asyncio.Event()
        self.writable.set()

    def put(self, output, resume, may_join):
        self.sent.append(json.loads(output))
        self.joinable.append(may_join)
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        if self._narrow:
            self.writable.clear()
            asyncio.get_running_loop().call_later(0.01, self.empty)

    def end(self, state, data):
        self.ends.append((state, data))

    def progress(self):
        pass

    def reject(self, data):
        self.ends.append(("failed", data))

    def empty(self):
        self.waiting = 0
        self.writable.set()


CONCURRENT = Declaration(is_concurrent=True)


def run(model, delivered=(), states=(), *, narrow=False, declaration=None, stop_raises=False):
    async def main():
        sink = Sink(narrow)
        options = HandlerOptions(max_output_bytes=100, stop_raises=stop_raises)
        handler = StreamOutputHandler(sink, list(delivered), list(states), options)
        loaded = adapted(model, declaration)
        async with asyncio.timeout(60):
            await loaded.infer({}, handler)
            assert await loaded.wait_until_idle(60) == ""
            while not (sink.ends or handler.stopped):
                await asyncio.sleep(0)
        return sink

    return asyncio.run(main())


def infer(model, delivered=(), **options):
    """A model's outputs and terminal states, given the outputs that were already delivered."""
    sink = run(model, delivered, **options)
    return sink.sent, sink.ends


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


class SendingTooMuch:
    def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output({"text": "x" * 100})


class SendingManyBytes:
    """Few characters, but four bytes each."""

    def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output({"text": "🙂" * 30})


class SendingNonJson:
    def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output({"text": object()})


class Draining:
    async def infer(self, inputs, stream_output_handler):
        for n in range(3):
            stream_output_handler.send_streamed_output({"n": n})
            await stream_output_handler.drain()


END = [("done", {"finish_reason": "stop", "usage": None})]


def test_streaming():
    assert infer(Plain()) == ([{"n": 0}, {"n": 1}, {"n": 2}], END)


def test_model_that_does_not_stream():
    assert infer(Returning()) == ([{"n": 0}], END)


@pytest.mark.parametrize("model", [Plain(), Continuing()])
def test_nothing_is_sent_twice_after_a_crash(model):
    """Whether the model continues from `delivered` or starts over."""
    assert infer(model, delivered=[{"n": 0}, {"n": 1}]) == ([{"n": 2}], END)
    assert infer(model, delivered=[{"n": 0}, {"n": 1}, {"n": 2}]) == ([], END)


@pytest.mark.parametrize("model", [Plain(), Draining()])
def test_model_waits_for_a_slow_log(model):
    sink = run(model, narrow=True)
    assert sink.sent == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert sink.most_waiting == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SendingText(), "an output must be a dict, got str"),
        (SendingTooMuch(), "111 bytes of JSON; at most 100 are allowed"),
        (SendingManyBytes(), "131 bytes of JSON; at most 100 are allowed"),
        (SendingNonJson(), "holds an object of type object, which can't be sent as JSON"),
    ],
)
def test_output_that_cant_be_sent_ends_the_generation(model, message):
    [(state, data)] = infer(model)[1]
    assert (state, data["code"]) == ("failed", "model_error")
    assert message in data["message"]


def test_sending_after_the_end_is_dropped(caplog):
    assert infer(SendingAfterTheEnd()) == ([], END)
    assert "after the end" in caplog.text


class SendingAfterAStop:
    async def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output({"n": 0})
        stream_output_handler.stop()
        assert stream_output_handler.stopped
        stream_output_handler.send_streamed_output({"n": 1})
        stream_output_handler.finalise_streamed_output()


def test_sending_after_a_stop_is_dropped():
    assert infer(SendingAfterAStop(), declaration=CONCURRENT) == ([{"n": 0}], [])


def test_sending_after_a_stop_raises_if_the_model_wants_that():
    with pytest.raises(GenerationStopped):
        infer(SendingAfterAStop(), declaration=CONCURRENT, stop_raises=True)


class SendingWithResume:
    async def infer(self, inputs, stream_output_handler):
        for output, resume in [
            ({"text": "a"}, [1]),
            ({"text": "a"}, []),
            ({"text": "a"}, {"at": 1}),
            ({"text": "a"}, None),
            ({"text": None}, [1]),
        ]:
            stream_output_handler.send_streamed_output(output, resume=resume)


def test_only_plain_text_with_a_list_as_resume_may_be_joined():
    assert run(SendingWithResume()).joinable == [True, False, False, False, False]


def test_modules_of_two_folders_with_the_same_names(tmp_path):
    """Each folder's `check_inputs` uses its own `common.py`, and nothing of either stays importable."""
    checks, modules, path = [], set(sys.modules), list(sys.path)
    for name in ("one", "two"):
        (tmp_path / name / "lib").mkdir(parents=True)
        (tmp_path / name / "common.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / name / "lib" / "deep.py").write_text(f"DEEP = {name!r}\n")
        source = "import common, lib.deep\nINPUT_SCHEMA = {common.NAME: {'datatype': 'STRING'}}\n"
        source += "def check_inputs(inputs):\n    return common.NAME, lib.deep.DEEP\n"
        (tmp_path / name / "input_schema.py").write_text(source)
        schema = load_schema(tmp_path / name, isolated=True)
        assert list(schema.inputs) == [name]
        checks.append(schema.check)
    assert [check({}) for check in checks] == [("one", "one"), ("two", "two")]
    assert (set(sys.modules), sys.path) == (modules, path)


def test_isolated_folder_restores_a_module_of_the_same_name(tmp_path):
    (tmp_path / "input_schema.py").write_text("raise RuntimeError\n")
    sys.modules["input_schema"] = earlier = types.ModuleType("input_schema")
    try:
        with pytest.raises(ModelLoadError):
            load_schema(tmp_path, isolated=True)
        assert sys.modules["input_schema"] is earlier
    finally:
        del sys.modules["input_schema"]


def test_declarations(tmp_path, monkeypatch):
    """In either file, or put into the environment by `@inferless.config`; not what the environment had before."""
    monkeypatch.setenv("BATCH_SIZE", "8")
    source = "import os\nos.environ['IS_STREAMING_OUTPUT'] = 'True'\nSTOP_RAISES = True\nclass InferlessPythonModel:"
    folder = write(tmp_path, source)
    (folder / "input_schema.py").write_text("INPUT_SCHEMA = {}\nRESUMABLE = False\n")
    declared = load_model(folder).declaration
    assert declared == Declaration(is_streaming=True, is_resumable=False, stop_raises=True)
    monkeypatch.delenv("IS_STREAMING_OUTPUT")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CONCURRENT = 'perhaps'", "CONCURRENT must be True or False, got 'perhaps'"),
        ("BATCH_SIZE = 'many'", "BATCH_SIZE must be a whole number, got 'many'"),
        ("BATCH_SIZE = 4\nIS_STREAMING_OUTPUT = True", "BATCH_SIZE and IS_STREAMING_OUTPUT = True can't go together"),
    ],
)
def test_declaration_that_is_refused_at_load(tmp_path, line, message):
    with pytest.raises(ModelLoadError, match=message):
        load_model(write(tmp_path, f"{line}\nclass InferlessPythonModel:"))
