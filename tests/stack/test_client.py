"""The Python client with the real parts: start, follow, stop, close, and how an answer ends."""

import asyncio
import gc
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from everstream.client import (
    AnswerCancelled,
    AnswerClosed,
    AnswerFailed,
    AsyncClient,
    Client,
    InvalidStream,
    RequestRefused,
)
from everstream.settings import PROJECT_ROOT
from harness.cutting_proxy import CuttingProxy
from harness.python_client import READERS
from harness.stack import tries, wait_for

PROMPT = '{"texts": ["a", "b"]}'
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.fixture
def proxy(fast):
    with CuttingProxy(fast.port) as proxy:
        yield proxy


def assert_numbered(events):
    numbers = [event.n for event in events if event.n is not None]
    assert numbers == list(range(len(numbers)))
    assert events[-1].is_terminal


def test_events_and_result(fast, reader):
    result, events = reader.answer(fast.url, texts=["a", "b"])
    logged = [event for event in events if event.n is not None]
    assert [(event.type, event.n, event.text) for event in logged] == [
        ("open", 0, ""),
        ("message", 1, "a"),
        ("message", 2, "b"),
        ("done", 3, ""),
    ]
    assert [event.id for event in logged] == [f"{result.id}.{n}" for n in range(4)]
    assert (result.text, result.state, result.finish_reason, result.usage) == ("ab", "done", "stop", USAGE)
    assert (result.error, result.outputs) == (None, ())


@pytest.mark.parametrize("inputs", [{"prompt": PROMPT}, {"inputs": {"texts": ["a", "b"]}}, {"texts": ["a", "b"]}])
def test_kinds_of_input(fast, reader, inputs):
    assert reader.texts(fast.url, **inputs) == ["a", "b"]


def test_prompt_is_positional(fast):
    with Client(fast.url) as client:
        assert "".join(client.start(PROMPT).texts()) == "ab"


def test_messages(chat, reader):
    result, _ = reader.answer(
        chat.url, messages=[{"role": "user", "content": "hello"}], max_tokens=5, temperature=0, model=None, flush_ms=0
    )
    assert (result.state, result.error) == ("done", None)
    assert result.text


def test_refusals_name_the_input(fast, reader):
    with pytest.raises(RequestRefused) as raised:
        reader.answer(fast.url, texts=["a"], other=1)
    assert (raised.value.code, raised.value.param, raised.value.status) == ("invalid_request", "other", 400)


def test_same_request_id_is_the_same_generation(fast, reader):
    first, _ = reader.answer(fast.url, texts=["a"], request_id="0123456789abcdef-" + reader.http.__name__)
    again, _ = reader.answer(fast.url, texts=["a"], request_id="0123456789abcdef-" + reader.http.__name__)
    assert first == again


def test_follow(fast, reader):
    generation = fast.submit(texts=["a", "b", "c"])
    result, events = reader.answer(fast.url, follow=generation)
    assert_numbered(events)
    assert result.text == "abc"
    result, events = reader.answer(fast.url, follow=generation, after=2)
    assert [event.n for event in events if event.n is not None] == [3, 4]
    assert (result.text, result.state) == ("c", "done")


def test_follow_after_the_end(fast, reader):
    """The server says 204, and the client asks how it ended."""
    generation = fast.submit(texts=["a", "b"])
    whole, _ = reader.answer(fast.url, follow=generation)
    result, events = reader.answer(fast.url, follow=generation, after=3)
    assert events == []
    assert (result.text, result.state, result.usage) == ("", "done", whole.usage)


def test_unknown_generation(fast, reader):
    result, _ = reader.answer(fast.url, follow="0" * 32, after=3)
    assert (result.state, result.error.code) == ("failed", "generation_expired")
    result, _ = reader.answer(fast.url, follow=fast.submit(texts=["a"]), after=77)
    assert (result.state, result.error.code) == ("failed", "entries_lost")


def test_failed_answer(fast, reader):
    inputs = {"texts": ["a", "b"], "raise_before": 2}
    result, events = reader.answer(fast.url, **inputs)
    assert (events[-1].type, result.text, result.state, result.error.code) == ("failed", "a", "failed", "model_error")
    with pytest.raises(AnswerFailed) as raised:
        reader.texts(fast.url, **inputs)
    assert raised.value.code == "model_error"


def test_stop(fast, reader, gate):
    def stop(event, answer):
        if event.n == 1:
            assert READERS["sync"].stop(fast.url, answer.id) == "stopping"

    result, events = reader.answer(fast.url, stop, texts=["a", "b"], hold_before=2, gate=gate.path)
    assert (events[-1].type, result.text, result.state) == ("cancelled", "a", "cancelled")
    assert reader.stop(fast.url, result.id) == "cancelled"
    assert reader.stop(fast.url, "0" * 32) == "expired"
    with pytest.raises(AnswerCancelled, match="requested"), Client(fast.url) as client:
        list(client.follow(result.id).texts())


def test_answers_stop_themselves(fast, gate):
    inputs = {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path}
    with Client(fast.url) as client, client.start(**inputs) as answer:
        assert next(answer.texts()) == "a"
        assert answer.stop() == "stopping"
        assert answer.result().state == "cancelled"

    async def stop():
        async with AsyncClient(fast.url) as client, await client.start(**inputs) as answer:
            assert await anext(answer.texts()) == "a"
            assert await answer.stop() == "stopping"
            assert (await answer.result()).state == "cancelled"

    asyncio.run(stop())


def test_reading_goes_on_where_it_stopped(fast):
    with Client(fast.url) as client:
        answer = client.start(texts=["a", "b", "c"])
        assert next(answer.texts()) == "a"
        assert next(answer).text == "b"
        assert answer.result().text == "abc"
        assert list(answer) == []


def test_event_above_the_bound(fast, reader):
    with pytest.raises(InvalidStream) as raised:
        reader.answer(fast.url, texts=["x" * 2000], options={"max_event_bytes": 1000})
    assert raised.value.code == "event_too_large"


def test_base_path_headers_and_transport(fast, reader):
    """A server below a path, behind a proxy that removes it."""
    seen = []

    def remove_path(request):
        seen.append((request.method, request.headers["X-Key"], request.headers["Accept"]))
        assert request.url.path.startswith("/ai/generations")
        return httpx.URL(fast.url).copy_with(raw_path=request.url.raw_path.removeprefix(b"/ai"))

    class Below(reader.transport):
        def handle_request(self, request):
            request.url = remove_path(request)
            return super().handle_request(request)

        def handle_async_request(self, request):
            request.url = remove_path(request)
            return super().handle_async_request(request)

    options = {"transport": Below(), "headers": {"X-Key": "k", "accept": "x/y"}}
    result, _ = reader.answer("http://host/ai/", texts=["a"], options=options)
    assert result.text == "a"
    assert seen == [("POST", "k", "application/json"), ("GET", "k", "text/event-stream")]


def test_given_http_client_stays_open(fast):
    with httpx.Client() as http:
        with Client(fast.url, http_client=http) as client:
            assert client.start(PROMPT).result().text == "ab"
        assert http.get(f"{fast.url}/healthz").status_code == 200


def test_threads_and_tasks(fast):
    texts = [[f"{number}-{n} " for n in range(20)] for number in range(60)]
    with Client(fast.url) as client, ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda each: client.start(texts=each, pause_ms=1).result().text, texts[:12])
        assert list(found) == ["".join(each) for each in texts[:12]]

    async def read_all():
        async with AsyncClient(fast.url) as client:

            async def read(each):
                return (await (await client.start(texts=each, pause_ms=1)).result()).text

            return await asyncio.gather(*map(read, texts))

    assert asyncio.run(read_all()) == ["".join(each) for each in texts]


def test_closing_leaves_nothing(fast, proxy, gate, recwarn):
    inputs = {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path}
    with Client(proxy.url) as client:
        with client.start(**inputs) as answer:
            for text in answer.texts():
                assert text == "a"
                break
        with pytest.raises(AnswerClosed):
            next(answer)
        with pytest.raises(AnswerClosed):
            answer.result()
        generation = answer.id
        wait_for(lambda: proxy.open == 0, what="the end of the answer's connection")

    async def close():
        async with AsyncClient(proxy.url) as client:
            async with await client.start(**inputs) as answer:
                async for text in answer.texts():
                    assert text == "a"
                    break
            with pytest.raises(AnswerClosed):
                await answer.result()
            wait_for(lambda: proxy.open == 0, what="the end of the answer's connection")
            # One that is left open ends with its client.
            await anext(client.follow(answer.id).texts())

    asyncio.run(close(), debug=True)
    wait_for(lambda: proxy.open == 0, what="the end of the async client's connections")
    gc.collect()
    assert not recwarn.list
    assert fast.show(generation)["state"] == "running"


def test_close_from_another_thread(proxied, gate):
    """At once, without waiting for a heartbeat, which would come after 30 s."""
    with Client(proxied.url) as client:
        answer = client.start(texts=["a", "b"], hold_before=2, gate=gate.path)
        assert next(answer.texts()) == "a"
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(answer.result)
            wait_for(lambda: answer._is_busy, what="the thread to read")
            answer.close()
            with pytest.raises(AnswerClosed):
                reading.result(20)


def test_close_from_another_task(proxied, gate):
    async def close():
        async with AsyncClient(proxied.url) as client:
            answer = await client.start(texts=["a", "b"], hold_before=2, gate=gate.path)
            assert await anext(answer.texts()) == "a"
            reading = asyncio.create_task(answer.result())
            for _ in tries(60, "the task to read"):
                if answer._waiting:
                    break
                await asyncio.sleep(0)
            await answer.close()
            with pytest.raises(AnswerClosed):
                await asyncio.wait_for(reading, 20)

    asyncio.run(close(), debug=True)


def test_cancelled_task(fast, proxy, gate):
    """Cancelling whoever reads closes the connection, and is no error of the client's."""

    async def cancel():
        async with AsyncClient(proxy.url) as client:
            answer = await client.start(texts=["a", "b"], hold_before=2, gate=gate.path)
            assert await anext(answer.texts()) == "a"
            before = proxy.open
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer.result(), 0.05)
            wait_for(lambda: proxy.open < before, what="the end of the connection")

    asyncio.run(cancel(), debug=True)


SCRIPTS = {
    "sync": """
import sys
from everstream.client import Client
with Client(sys.argv[1]) as client:
    for text in client.follow(sys.argv[2]).texts():
        print(text, flush=True)
""",
    "async": """
import asyncio, sys
from everstream.client import AsyncClient
async def main():
    async with AsyncClient(sys.argv[1]) as client:
        async for text in client.follow(sys.argv[2]).texts():
            print(text, flush=True)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_ctrl_c(fast, proxy, gate, name):
    generation = fast.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    command = [sys.executable, "-W", "error", "-c", SCRIPTS[name], proxy.url, generation]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "a\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    for unwanted in ("Exception ignored", "ResourceWarning", "EverstreamError", "Task", "RuntimeError"):
        assert unwanted not in errors
    wait_for(lambda: proxy.open == 0, what="the end of its connections")
