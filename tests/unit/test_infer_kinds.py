"""Every way in which models of the contract declare `infer` and give outputs, through the real adapter."""

import asyncio
import datetime
import functools
import json
import threading

import pytest

from everstream.contract.loader import Declaration
from everstream.contract.output_handler import GenerationStopped, HandlerOptions, StreamOutputHandler
from everstream.contract.outputs import OutputSchema, encode_output
from everstream.errors import ModelLoadError, ModelRaised
from harness.folders import adapted

STREAMING, WHOLE, UNSAID = (Declaration(is_streaming=value) for value in (True, False, None))
CONCURRENT = Declaration(is_concurrent=True)
A_AND_B = [b'{"x":"a"}', b'{"x":"b"}']


class Sink:
    def __init__(self):
        self.sent, self.end_state = [], None
        self.writable = asyncio.Event()
        self.writable.set()

    def put(self, output, resume, may_join):
        self.sent.append(output)

    def end(self, state, data):
        self.end_state = state

    def progress(self):
        self.progressed = True

    def reject(self, data):
        self.end_state = data["message"]


def run(infer, declaration=STREAMING):
    """The outputs and the end of a model whose method `infer` is this function."""

    async def main():
        model = type("InferlessPythonModel", (), {"infer": infer})()
        sink = Sink()
        handler = StreamOutputHandler(sink, [], [], HandlerOptions(10_000))
        loaded = adapted(model, declaration)
        async with asyncio.timeout(60):
            await loaded.infer({"x": 1}, handler)
            assert await loaded.wait_until_idle(60) == ""
            while sink.end_state is None:
                await asyncio.sleep(0)
        return sink.sent, sink.end_state

    return asyncio.run(main())


def send_both(handler):
    handler.send_streamed_output({"x": "a"})
    handler.send_streamed_output(output_dict={"x": "b"})


def plain(self, inputs, stream_output_handler):
    send_both(stream_output_handler)


def with_default(self, inputs, stream_output_handler=None):
    send_both(stream_output_handler)


def other_name_with_default(self, inputs, out=None):
    send_both(out)


def keyword_only(self, inputs, *, stream_output_handler):
    send_both(stream_output_handler)


def star_args(self, *args):
    send_both(args[1])


def star_keywords(self, inputs, **keywords):
    send_both(keywords["stream_output_handler"])


def undecorated_wrapper(function):
    def wrapper(*args, **keywords):
        return function(*args, **keywords)

    return wrapper


def decorated_wrapper(function):
    @functools.wraps(function)
    def wrapper(*args, **keywords):
        return function(*args, **keywords)

    return wrapper


async def coroutine(self, inputs, stream_output_handler):
    await stream_output_handler.send_streamed_output({"x": "a"})
    await stream_output_handler.send_streamed_output({"x": "b"})
    await stream_output_handler.finalise_streamed_output()


def generator(self, inputs):
    yield {"x": "a"}
    yield {"x": "b"}


async def async_generator(self, inputs):
    yield {"x": "a"}
    await asyncio.sleep(0)
    yield {"x": "b"}


@pytest.mark.parametrize(
    "infer",
    [
        plain,
        with_default,
        other_name_with_default,
        keyword_only,
        star_args,
        star_keywords,
        undecorated_wrapper(plain),
        decorated_wrapper(plain),
        undecorated_wrapper(coroutine),
        undecorated_wrapper(async_generator),
        coroutine,
        generator,
        async_generator,
    ],
)
def test_streaming(infer):
    assert run(infer) == (A_AND_B, "done")


@pytest.mark.parametrize("infer", [coroutine, async_generator])
def test_concurrent(infer):
    assert run(infer, CONCURRENT) == (A_AND_B, "done")


@pytest.mark.parametrize("infer", [plain, with_default, generator, async_generator])
def test_is_streaming_need_not_be_said(infer):
    assert run(infer, UNSAID) == (A_AND_B, "done")


def returning(self, inputs):
    return {"x": "a"}


async def returning_async(self, inputs):
    return {"x": "a"}


def returning_with_unused_default(self, inputs, context=None):
    return {"x": "a" if context is None else "b"}


@pytest.mark.parametrize("infer", [returning, returning_async, returning_with_unused_default])
@pytest.mark.parametrize("declaration", [WHOLE, UNSAID])
def test_answer_in_one_piece(infer, declaration):
    assert run(infer, declaration) == ([b'{"x":"a"}'], "done")


def test_batch_of_one():
    def infer(self, inputs):
        assert inputs == [{"x": 1}]
        return [{"x": "a"}]

    assert run(infer, Declaration(is_batched=True)) == ([b'{"x":"a"}'], "done")


@pytest.mark.parametrize(
    ("infer", "message"),
    [
        (None, "has no method infer"),
        (lambda self: None, "must take the inputs"),
        (lambda self, inputs, handler, more: None, r"not \(inputs, handler, more\)"),
    ],
)
def test_infer_that_cant_be_called_does_not_load(infer, message):
    with pytest.raises(ModelLoadError, match=message):
        run(infer, UNSAID)


def test_concurrent_needs_an_async_infer():
    with pytest.raises(ModelLoadError, match="needs an async infer"):
        run(plain, CONCURRENT)


def exiting(self, inputs):
    raise SystemExit("no")


def interrupting(self, inputs):
    raise KeyboardInterrupt


async def cancelling(self, inputs):
    raise asyncio.CancelledError


@pytest.mark.parametrize("infer", [exiting, interrupting, cancelling])
def test_exception_that_would_end_the_process_is_the_models_error(infer):
    with pytest.raises(ModelRaised):
        run(infer)


@pytest.mark.parametrize("declaration", [STREAMING, CONCURRENT])
def test_async_exit_is_the_models_error(declaration):
    async def infer(self, inputs):
        raise SystemExit("no")

    with pytest.raises(ModelRaised):
        run(infer, declaration)


def test_exhausted_iterator_is_the_models_error():
    """A StopIteration can't be set on a future, so the generation would never end."""

    def infer(self, inputs):
        return next(iter([]))

    with pytest.raises(ModelRaised):
        run(infer)


def test_plain_code_may_run_event_loops_of_its_own():
    async def say():
        return {"x": "a"}

    def infer(self, inputs, stream_output_handler):
        stream_output_handler.send_streamed_output(asyncio.run(say()))

    def generator(self, inputs):
        yield asyncio.run(say())

    assert run(infer) == run(generator) == ([b'{"x":"a"}'], "done")


def test_all_of_a_models_code_runs_in_one_thread():
    """Libraries keep settings per thread: torch its device, for one."""

    async def main():
        threads = []
        note = lambda *_: threads.append(threading.get_ident())  # noqa: E731
        model = type("Model", (), {"initialize": note, "infer": lambda self, inputs: note(), "finalize": note})()
        loaded = adapted(model)
        handler = StreamOutputHandler(Sink(), [], [], HandlerOptions(1000))
        await loaded.initialize()
        await loaded.infer({}, handler)
        await loaded.finalize()
        return threads

    threads = asyncio.run(main())
    assert len(threads) == 3 and len(set(threads)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_error_in_a_thread_is_not_a_normal_end():
    """Although the thread ends the stream, as `generate` may in a `finally`, and `infer` finalises."""

    def infer(self, inputs, stream_output_handler):
        thread = threading.Thread(target=generate, args=(stream_output_handler,), name="generate")
        thread.start()
        thread.join()
        stream_output_handler.send_streamed_output({"x": "b"})
        stream_output_handler.finalise_streamed_output()

    def generate(handler):
        handler.send_streamed_output({"x": "a"})
        raise RuntimeError("CUDA out of memory")

    async def main():
        loaded, sink = adapted(type("Model", (), {"infer": infer})()), Sink()
        handler = StreamOutputHandler(sink, [], [], HandlerOptions(1000))
        await loaded.infer({}, handler)
        assert "CUDA out of memory" in await loaded.wait_until_idle(60)
        return sink.sent, sink.end_state

    sent, end = asyncio.run(main())
    assert sent == A_AND_B
    assert end == "the model's thread 'generate' raised RuntimeError: CUDA out of memory"


def test_iterators_that_are_no_generators():
    class Outputs:
        def __init__(self):
            self.texts = ["a", "b"]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.texts:
                raise StopAsyncIteration
            return {"x": self.texts.pop(0)}

    assert run(lambda self, inputs: map(json.loads, ['{"x":"a"}', '{"x":"b"}'])) == (A_AND_B, "done")
    assert run(lambda self, inputs: Outputs()) == (A_AND_B, "done")


def resumed(infer, declaration, delivered):
    """What happens after an engine's death, in a generation that delivered these outputs."""

    async def main():
        loaded, sink = adapted(type("Model", (), {"infer": infer})(), declaration), Sink()
        handler = StreamOutputHandler(sink, delivered, [None] * len(delivered), HandlerOptions(1000))
        await loaded.infer({}, handler)
        while sink.end_state is None:
            await asyncio.sleep(0)
        return sink

    return asyncio.run(main())


def test_answer_of_one_output_is_not_made_again():
    def infer(self, inputs):
        raise AssertionError

    sink = resumed(infer, WHOLE, [{"x": "a"}])
    assert (sink.sent, sink.end_state) == ([], "done")


def test_dict_returned_beside_a_handler_is_compared_with_the_one_in_the_log():
    sink = resumed(lambda self, inputs, stream_output_handler: {"x": "a"}, STREAMING, [{"x": "a"}])
    assert (sink.sent, sink.end_state) == ([], "done")
    sink = resumed(lambda self, inputs, stream_output_handler: {"x": "b"}, STREAMING, [{"x": "a"}])
    assert "did not repeat" in sink.end_state


def test_generator_goes_on_although_it_does_not_stream():
    """One output in the log is not its whole answer."""
    sink = resumed(generator, WHOLE, [{"x": "a"}])
    assert (sink.sent, sink.end_state) == (A_AND_B[1:], "done")


def test_repeating_what_is_in_the_log_counts_as_work():
    """Otherwise a long job would run into the limit on the time without output."""
    sink = resumed(generator, STREAMING, [{"x": "a"}])
    assert sink.progressed


def test_shorter_answer_than_the_one_in_the_log_is_not_the_same():
    sink = resumed(generator, STREAMING, [{"x": "a"}, {"x": "b"}, {"x": "c"}])
    assert "did not repeat" in sink.end_state


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit, GenerationStopped])
def test_thread_may_end_itself(error):
    def end():
        raise error

    def infer(self, inputs, stream_output_handler):
        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
        send_both(stream_output_handler)

    assert run(infer) == (A_AND_B, "done")


def test_parameters_that_only_sound_like_the_handler():
    def infer(self, inputs, stream=False, upstream=None):
        return {"x": "a" if stream is False and upstream is None else "b"}

    assert run(infer, WHOLE) == ([b'{"x":"a"}'], "done")


def test_idle_worker_of_a_pool_does_not_hold_the_next_request():
    from concurrent.futures import ThreadPoolExecutor

    pools = []

    def infer(self, inputs, stream_output_handler):
        pools.append(ThreadPoolExecutor(1))
        pools[0].submit(send_both, stream_output_handler).result()

    assert run(infer) == (A_AND_B, "done")
    pools[0].shutdown()


def test_background_thread_of_a_library_does_not_hold_the_next_request():
    ended = threading.Event()

    class Monitor(threading.Thread):
        daemon = True

        def run(self):
            ended.wait(60)

    def infer(self, inputs, stream_output_handler):
        Monitor().start()
        send_both(stream_output_handler)

    assert run(infer) == (A_AND_B, "done")
    ended.set()


class Array:
    """What NumPy's arrays and scalars, and torch's tensors, have in common."""

    def __init__(self, value):
        self._value = value

    def tolist(self):
        return self._value


class Dumpable:
    def model_dump(self):
        return {"y": 1}


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (Array([[1, 2], [3, 4]]), b"[[1,2],[3,4]]"),
        (Array(1.5), b"1.5"),
        (b"\x00\xff", b'"AP8="'),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), b'"2026-01-02T03:04:05Z"'),
        (Dumpable(), b'{"y":1}'),
        ({"deep": [None, True]}, b'{"deep":[null,true]}'),
        ("\u2028\n", '"\u2028\\n"'.encode()),
    ],
)
def test_types_of_outputs(value, encoded):
    assert encode_output({"x": value}) == b'{"x":' + encoded + b"}"


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), Array([1.0, float("nan")]), {"y": [float("inf")]}]
)
def test_number_that_json_lacks(value):
    with pytest.raises(ValueError, match=r"'x' holds (nan|inf|-inf), which JSON can't represent"):
        encode_output({"ok": None, "x": value})


def test_answer_that_is_a_model_of_pydantic():
    assert run(lambda self, inputs: Dumpable(), WHOLE) == ([b'{"y":1}'], "done")


@pytest.mark.parametrize(
    ("first", "second", "change"),
    [
        ({"a": 1}, {"a": 1.5}, ""),
        ({"a": None}, {"a": "b"}, ""),
        ({"a": "b"}, {"a": None}, ""),
        ({"a": Array(1)}, {"a": 2}, ""),
        ({"a": [1]}, {"a": ["x"]}, ""),
        ({"a": 1}, {"a": True}, "'a' was a number in the first output, and is a boolean now"),
        ({"a": {}}, {"a": []}, "'a' was an object in the first output, and is an array now"),
        ({"a": 1}, {"a": 1, "b": 2}, "the first output had the keys 'a', this one has 'a', 'b'"),
        ({"a": 1}, {}, "the first output had the keys 'a', this one has none"),
    ],
)
def test_output_schema(first, second, change):
    schema = OutputSchema()
    assert schema.change_in(first) == ""
    assert schema.change_in(second) == change


def test_output_schema_remembers_a_type_that_followed_null():
    schema = OutputSchema()
    assert [schema.change_in({"a": value}) for value in (None, "x")] == ["", ""]
    assert "was a string" in schema.change_in({"a": 1})
