"""`?format=text`: the text itself as the data of events, for pages that show `event.data`."""

import json
import re
import shutil
from contextlib import ExitStack

import pytest
import requests

from harness.sse_client import assert_whole, connect, read_all
from harness.stack import MODELS, wait_for
from tests.stack.test_wire import NASTY, stream_url

NASTY_LINES = [re.sub("\r\n?", "\n", text) for text in NASTY]


def texts_of(events):
    return [event.data for event in events if event.type == "message"]


def text_url(stack, generation):
    return f"{stack.events_url(generation)}?format=text"


def test_stream_of_text_byte_for_byte(fast):
    url = stream_url(fast, texts=[" The\n\n  end", ""], format="text")
    with requests.get(url, timeout=30) as answer:
        head, body = answer.content.decode().split("data: {", 1)
    generation = re.search(r'"generation":"([0-9a-f]{32})"', body)[1]
    assert head.endswith(f"event: open\nid: {generation}.0\n")
    assert body == (
        f'"generation":"{generation}","model":"smollm2-135m-instruct"}}\n\n'
        f"id: {generation}.1\n"
        "data:  The\n"
        "data: \n"
        "data:   end\n\n"
        f"id: {generation}.2\n"
        "data: \n\n"
        "event: done\n"
        f"id: {generation}.3\n"
        'data: {"finish_reason":"stop","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
    )


def test_nasty_text_survives_all_but_its_ends_of_lines(fast):
    with connect(stream_url(fast, texts=NASTY, format="text")) as stream:
        events = stream.read().events
    assert texts_of(events) == NASTY_LINES
    assert_whole(events)
    assert stream.decoder.ignored == []


def test_text_resumed_after_every_entry_equals_the_uncut_stream(fast):
    generation = fast.submit(texts=NASTY)
    whole = read_all(text_url(fast, generation))
    assert texts_of(whole) == NASTY_LINES
    in_json = read_all(fast.events_url(generation))
    assert [event.id for event in whole] == [event.id for event in in_json]
    for cut in range(1, len(whole)):
        last_id = whole[cut - 1].id
        rest = read_all(text_url(fast, generation), last_id=last_id)
        assert whole[:cut] + rest == whole
        # The address of the first request, as EventSource repeats it, and one made by hand.
        assert read_all(stream_url(fast, texts=NASTY, format="text"), last_id=last_id) == rest
        assert read_all(f"{fast.url}/stream?format=text&last_event_id={last_id}") == rest
        # The format is each request's own.
        assert read_all(f"{fast.url}/stream", last_id=last_id) == in_json[cut:]
    with connect(text_url(fast, generation), last_id=whole[-1].id) as again:
        assert again.status == 204


def test_live_text_beside_live_json(own_stack, gate):
    """One worker encodes each format once for all, and writes it directly to the sockets, except in HTTP/1.0."""
    stack, texts = own_stack(WEB_CONCURRENCY="1").start(), ["a\n", " b", "\r\n", "d"]
    generation = stack.submit(texts=texts, hold_before=2, gate=gate.path, pause_ms=20)
    with ExitStack() as opened:
        of_text, of_json = (
            [opened.enter_context(connect(url, http_version=version)) for version in ("HTTP/1.1", "HTTP/1.0")]
            for url in (text_url(stack, generation), stack.events_url(generation))
        )
        for stream in (*of_text, *of_json):
            stream.read(until=lambda seen: len(seen.events) == 2)
        gate.open()
        for stream in (*of_text, *of_json):
            assert_whole(stream.read().events)
    assert [texts_of(stream.events) for stream in of_text] == [["a\n", " b", "\n", "d"]] * 2
    assert [[json.loads(data)["text"] for data in texts_of(stream.events)] for stream in of_json] == [texts] * 2


def test_compact_text(fast):
    generation = fast.submit(texts=["a\n", "b\n", "\nc"])
    wait_for(lambda: fast.show(generation)["state"] == "done")
    assert texts_of(read_all(f"{text_url(fast, generation)}&compact=true")) == ["a\n", "b\n\nc"]


def test_failure_is_json_as_ever(fast):
    events = read_all(stream_url(fast, texts=["a", "b"], raise_before=2, format="text"))
    assert_whole(events)
    assert events[-1].json["message"] == "the model raised ValueError: told to raise\nover two lines"


@pytest.mark.parametrize("start", ["/stream?texts=a&format=", "/generations/" + "0" * 32 + "/events?format="])
def test_formats_are_names(fast, start):
    started = fast.metric("generations_started_total")
    answer = requests.get(f"{fast.url}{start}Text", timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "format")
    assert "text" in error["message"]
    assert fast.metric("generations_started_total") == started
    answer = requests.post(f"{fast.url}/generations", json={"texts": ["a"], "format": "text"}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "format")


def test_stream_has_every_format(fast):
    events = read_all(stream_url(fast, texts=["a", "b"], format="openai-chat"))
    generation = events[0].id.partition(".")[0]
    assert events[-1].data == "[DONE]"
    assert events == read_all(f"{fast.events_url(generation)}?format=openai-chat")
    assert texts_of(read_all(stream_url(fast, texts=["a"], format=""))) == ['{"text":"a"}']


def test_input_called_format_is_the_models_own(own_stack, tmp_path):
    """Also when an EventSource repeats the request to resume. Its outputs have no text, so their JSON is sent."""
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "echo", folder)
    (folder / "input_schema.py").write_text("INPUT_SCHEMA = {'format': {'datatype': 'STRING', 'required': True}}")
    stack = own_stack(app_dir=folder, WEB_CONCURRENCY="1").start()
    for given in ("png", "text"):
        events = read_all(f"{stack.url}/stream?format={given}")
        assert [json.loads(data) for data in texts_of(events)] == [{"input": "format", "json": f'"{given}"'}]
        assert read_all(f"{stack.url}/stream?format={given}", events[0].id) == events[1:]
    assert read_all(text_url(stack, events[0].json["generation"])) == events
