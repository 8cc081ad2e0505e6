"""Model folders: what loads, and what is said of what does not."""

import asyncio
import json
import sys

import pytest

from everstream import contract
from everstream.errors import ModelLoadError
from everstream.pacing import Paces


@pytest.fixture(autouse=True)
def modules():
    """A model folder's modules have bare names, which other tests import as this repository's own."""
    path, before = list(sys.path), {name: sys.modules.get(name) for name in ("app", "input_schema")}
    yield
    sys.path[:] = path
    for name, module in before.items():
        if module is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = module


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


def test_the_fault_is_the_models_own_line_and_not_a_librarys(tmp_path):
    library = tmp_path / "site-packages" / "library.py"
    library.parent.mkdir()
    library.write_text("def load():\n    raise RuntimeError('no weights')\n")
    source = f"import sys\nsys.path.append({str(library.parent)!r})\nimport library\nlibrary.load()\n"
    with pytest.raises(ModelLoadError, match=r"app\.py:4: import app raised RuntimeError: no weights"):
        contract.load_model(write(tmp_path, source))


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


class Sink:
    """Takes what a model sends; has room for one output at a time if it is `narrow`."""

    def __init__(self, narrow):
        self.sent, self.ends, self.waiting = [], [], 0
        self.most_waiting = 0
        self._narrow = narrow
        self.has_room = asyncio.Event()
        self.has_room.set()

    def put(self, entry, resume=""):
        self.sent.append(json.loads(entry)[1])
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        if self._narrow:
            self.has_room.clear()
            asyncio.get_running_loop().call_later(0.01, self.empty)

    def end(self, state, data):
        self.ends.append((state, data))

    def empty(self):
        self.waiting = 0
        self.has_room.set()


def run(model, delivered=(), states=(), narrow=False):
    async def main():
        sink = Sink(narrow)
        handler = contract.StreamOutputHandler(sink, list(delivered), list(states), max_output_bytes=100)
        await contract.infer(model, {}, handler)
        return sink

    return asyncio.run(main())


def infer(model, delivered=()):
    """What a model sends and how it ends, given what was delivered."""
    sink = run(model, delivered)
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


class SendingMuch:
    def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output({"text": "x" * 100})


class SendingManyBytes:
    """Few characters, of four bytes each."""

    def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output({"text": "🙂" * 30})


class SendingWhatIsNoJson:
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


def test_a_model_that_does_not_stream():
    assert infer(Returning()) == ([{"n": 0}], END)


@pytest.mark.parametrize("model", [Plain(), Continuing()])
def test_after_a_death_nothing_is_sent_twice(model):
    """Neither by a model that goes on from `delivered`, nor by one that starts over."""
    assert infer(model, delivered=[{"n": 0}, {"n": 1}]) == ([{"n": 2}], END)
    assert infer(model, delivered=[{"n": 0}, {"n": 1}, {"n": 2}]) == ([], END)


@pytest.mark.parametrize("model", [Plain(), Draining()])
def test_a_model_waits_for_a_log_that_is_slow(model):
    sink = run(model, narrow=True)
    assert sink.sent == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert sink.most_waiting == 1


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (SendingAfterTheEnd(), RuntimeError),
        (SendingText(), TypeError),
        (SendingMuch(), ValueError),
        (SendingManyBytes(), ValueError),
        (SendingWhatIsNoJson(), TypeError),
    ],
)
def test_misuse_is_an_error(model, error):
    with pytest.raises(error):
        infer(model)


class Clock:
    """An event loop's time, moved by hand."""

    def __init__(self, loop):
        self.now = 100.0
        loop.time = lambda: self.now

    async def pass_s(self, seconds):
        self.now += seconds
        # One turn for timers that are due, one for what they did.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class Taken:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.has_room = asyncio.Event()
        self.entries = []

    def put(self, entry, resume=b""):
        self.entries.append((json.loads(entry)[1], json.loads(resume or b"null")))

    def end(self, state, data):
        self.entries.append((state, data["finish_reason"]))


def paced(script, flush_ms=16, max_output_bytes=1000):
    """What reaches the log when `script(send, pass_s, handler)` has run."""

    async def main():
        clock, sink = Clock(asyncio.get_running_loop()), Taken()
        handler = contract.StreamOutputHandler(sink, [], [], max_output_bytes, Paces().of(flush_ms))

        def send(text, *tokens, **more):
            handler.send_streamed_output({"text": text, **more}, resume=list(tokens) or None)

        await script(send, clock.pass_s, handler)
        return sink.entries

    return asyncio.run(main())


def test_what_comes_within_flush_ms_is_one_entry_and_the_first_never_waits():
    async def script(send, pass_s, handler):
        send("a", 1)
        send('b"\n', 2, 3)
        send("\u2028c", 4)
        await pass_s(0.017)
        send("d", 5)
        handler.finalise_streamed_output()

    assert paced(script) == [
        ({"text": "a"}, [1]),
        ({"text": 'b"\n\u2028c'}, [2, 3, 4]),
        ({"text": "d"}, [5]),
        ("done", "stop"),
    ]


def test_what_is_held_goes_when_its_time_has_come_though_nothing_follows():
    async def script(send, pass_s, handler):
        send("a", 1)
        send("b", 2)
        await pass_s(0.017)
        # Long after the last one: at once.
        await pass_s(1)
        send("c", 3)

    assert paced(script) == [({"text": "a"}, [1]), ({"text": "b"}, [2]), ({"text": "c"}, [3])]


def test_generations_flush_together_when_the_model_says_something():
    """What is held goes with the first output of the next beat, and not by a timer between two steps of the model."""

    async def main():
        clock, paces, sinks = Clock(asyncio.get_running_loop()), Paces(), [Taken(), Taken()]
        handlers = [contract.StreamOutputHandler(sink, [], [], 1000, paces.of(100)) for sink in sinks]
        for text, passes_s in (("a", 0.01), ("b", 0.06), ("c", 0.06), ("d", 0.06), ("e", 0.06)):
            await clock.pass_s(passes_s)
            for handler in handlers:
                handler.send_streamed_output({"text": text}, resume=[ord(text)])
        return [[output["text"] for output, _ in sink.entries] for sink in sinks]

    assert asyncio.run(main()) == [["a", "bc", "de"], ["a", "bc", "de"]]


def test_each_that_holds_something_is_flushed_when_its_own_time_has_come():
    async def main():
        clock, pace, sinks = Clock(asyncio.get_running_loop()), Paces().of(100), [Taken(), Taken()]
        handlers = [contract.StreamOutputHandler(sink, [], [], 1000, pace) for sink in sinks]

        def texts():
            return ["".join(output["text"] for output, _ in sink.entries) for sink in sinks]

        await clock.pass_s(0.01)
        for handler in handlers:
            handler.send_streamed_output({"text": "a"}, resume=[1])
        await clock.pass_s(0.01)
        handlers[0].send_streamed_output({"text": "b"}, resume=[2])
        await clock.pass_s(0.05)
        handlers[1].send_streamed_output({"text": "b"}, resume=[2])
        await clock.pass_s(0.051)
        seen = [texts()]
        await clock.pass_s(0.05)
        # Nothing is kept of a generation that holds nothing.
        return [*seen, texts()], pace._holding

    assert asyncio.run(main()) == ([["ab", "a"], ["ab", "ab"]], {})


class RaisingWhileSomeIsHeld:
    async def infer(self, inputs, stream_output_handler):
        for text in "abc":
            stream_output_handler.send_streamed_output({"text": text}, resume=[ord(text)])
        raise ValueError


def test_what_is_held_is_not_lost_where_the_model_raises():
    async def main():
        Clock(asyncio.get_running_loop())
        sink = Taken()
        handler = contract.StreamOutputHandler(sink, [], [], 1000, Paces().of(16))
        with pytest.raises(ValueError):
            await contract.infer(RaisingWhileSomeIsHeld(), {}, handler)
        return [output["text"] for output, _ in sink.entries]

    assert asyncio.run(main()) == ["a", "bc"]


def test_what_can_not_be_joined_keeps_its_place():
    async def script(send, pass_s, handler):
        send("a", 1)
        send("b", 2)
        send("c", 3, logprob=-1)
        send("d")
        send("e", 4)
        send(7, 5)
        send("f", 6)
        handler.finalise_streamed_output()

    assert paced(script) == [
        ({"text": "a"}, [1]),
        ({"text": "b"}, [2]),
        ({"text": "c", "logprob": -1}, [3]),
        ({"text": "d"}, None),
        ({"text": "e"}, [4]),
        ({"text": 7}, [5]),
        ({"text": "f"}, [6]),
        ("done", "stop"),
    ]


def test_joined_outputs_keep_the_bound_of_one():
    async def script(send, pass_s, handler):
        for token in range(20):
            send("x" * 90, token)
        handler.finalise_streamed_output()

    *entries, _ = paced(script)
    assert "".join(output["text"] for output, _ in entries) == "x" * 1800
    assert [token for _, tokens in entries for token in tokens] == list(range(20))
    assert 3 <= len(entries) <= 4


def test_without_flush_ms_each_output_is_an_entry():
    async def script(send, pass_s, handler):
        send("a", 1)
        send("b", 2)

    assert paced(script, flush_ms=0) == [({"text": "a"}, [1]), ({"text": "b"}, [2])]


@pytest.mark.parametrize("flush_ms", [0, 16])
def test_a_model_that_still_sends_after_a_stop_is_told(flush_ms):
    async def script(send, pass_s, handler):
        send("a", 1)
        handler.stop()
        with pytest.raises(contract.GenerationStopped):
            send("b", 2)
        with pytest.raises(contract.GenerationStopped):
            handler.finalise_streamed_output()

    assert paced(script, flush_ms) == [({"text": "a"}, [1])]


def test_a_stopped_generation_says_nothing_more():
    async def script(send, pass_s, handler):
        send("a", 1)
        send("b", 2)
        handler.stop()
        await pass_s(1)

    assert paced(script) == [({"text": "a"}, [1])]
