"""GET /generations/<id>: partial reads, large answers in little memory, no cut response that looks complete."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
import valkey

from everstream.apis import APIS
from everstream.apis.native import snapshot
from everstream.errors import UnknownGeneration
from everstream.log.entries import encode_entry
from everstream.log.keys import Keys
from everstream.log.records import Generation
from everstream.log.web_log import READ_BYTES
from everstream.web.factory import create_app
from harness.models.large.app import audio
from harness.stack import MODELS, running_stack, wait_for
from tests.stack.test_flow import open_without_reading
from tests.stack.test_wire import NASTY

LARGE = {"texts": ["x" * 1000], "repeat": 30_000}
"""Far more than the buffers of a connection, the buffers of nginx or a page of the log."""


def show(stack, generation, query=""):
    return requests.get(f"{stack.url}/generations/{generation}{query}", timeout=60)


def finished(stack, **inputs):
    generation = stack.submit(**inputs)
    wait_for(
        lambda: show(stack, generation, "?after=999999999").json()["state"] == "done", what="the generation to finish"
    )
    return generation


def log_of(stack):
    return valkey.Valkey.from_url(stack.settings.log_url)


# Partial reads.


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?after=0", ("abc", "done", 4, None)),
        ("?after=2", ("c", "done", 4, None)),
        ("?after=4", ("", "done", 4, None)),
        ("?after=99", ("", "done", 4, None)),
        ("?limit=1", ("a", "running", 1, True)),
        ("?limit=3", ("abc", "running", 3, True)),
        ("?limit=4", ("abc", "done", 4, False)),
        ("?limit=999999999", ("abc", "done", 4, False)),
        ("?after=1&limit=1", ("b", "running", 2, True)),
        ("?after=3&limit=1", ("", "done", 4, False)),
        ("?after=4&limit=1", ("", "done", 4, False)),
    ],
)
def test_partial_reads(fast, query, expected):
    generation = finished(fast, texts=["a", "b", "c"])
    shown = show(fast, generation, query).json()
    whole = show(fast, generation).json()
    assert (shown["text"], shown["state"], shown["last"], shown.get("more")) == expected
    # The finish reason and the usage come with the end, and only then.
    end = whole if shown["state"] == "done" else {"finish_reason": None, "usage": None}
    assert (shown["finish_reason"], shown["usage"]) == (end["finish_reason"], end["usage"])
    assert whole["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(("query", "text"), [("?after=1", ""), ("?after=7", ""), ("?limit=5", "a")])
def test_partial_reads_of_a_running_generation(fast, gate, query, text):
    generation = fast.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    wait_for(lambda: fast.show(generation)["last"] == 1)
    shown = show(fast, generation, query).json()
    assert (shown["text"], shown["state"], shown["last"]) == (text, "running", 1)


@pytest.mark.parametrize("name", ["after", "limit"])
@pytest.mark.parametrize("value", ["", "-1", "x", "1.5", "1e3", "01", "٣", "1000000000", "1&{name}=2"])
def test_invalid_numbers(fast, name, value):
    answer = show(fast, finished(fast, texts=["a"]), f"?{name}={value.format(name=name)}")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", name)
    assert error["message"].startswith(f"{name} must be one whole number from ")


def test_limit_of_zero(fast):
    assert show(fast, finished(fast, texts=["a"]), "?limit=0").json()["error"]["param"] == "limit"


# Outputs that are more than text.


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """All parts, with a model whose outputs have no text."""
    with running_stack(tmp_path_factory.mktemp("outputs"), app_dir=MODELS / "large", WEB_CONCURRENCY="1") as stack:
        yield stack


@pytest.mark.parametrize(
    ("query", "numbers", "state"),
    [
        ("", [0, 1, 2], "done"),
        ("?after=1", [1, 2], "done"),
        ("?limit=2", [0, 1], "running"),
        ("?after=1&limit=1", [1], "running"),
        ("?after=3", [], "done"),
        ("?after=99", [], "done"),
    ],
)
def test_outputs(large, query, numbers, state):
    shown = show(large, finished(large, size=20, count=3), query).json()
    assert shown["outputs"] == [{"n": n, "audio": audio(n, 20)} for n in numbers]
    assert (shown["text"], shown["state"]) == ("", state)


def test_outputs_of_many_pages(large):
    size, count = READ_BYTES // 3, 20
    shown = show(large, finished(large, size=size, count=count)).json()
    assert shown["outputs"] == [{"n": n, "audio": audio(n, size)} for n in range(count)]


@pytest.mark.parametrize("query", ["", "?after=1", "?limit=1"])
def test_no_outputs_beside_text(fast, query):
    assert "outputs" not in show(fast, finished(fast, texts=["a", "b"]), query).json()


def test_no_outputs_of_a_model_that_says_nothing(large):
    shown = show(large, finished(large, size=1, count=0)).json()
    assert ("outputs" in shown, shown["state"]) == (False, "done")


# Large answers.


def test_text_of_many_pages_is_exact(fast):
    generation = finished(fast, texts=NASTY, repeat=3000)
    whole = "".join(NASTY) * 3000
    assert 3000 * sum(len(encode_entry("", {"text": text})) for text in NASTY) > 4 * READ_BYTES
    shown = show(fast, generation).json()
    assert (shown["text"] == whole, shown["state"], shown["last"]) == (True, "done", 3000 * len(NASTY) + 1)
    parts, last, more = [], 0, True
    while more:
        part = show(fast, generation, f"?after={last}&limit=20000").json()
        parts.append(part["text"])
        assert part["last"] > last
        last, more = part["last"], part["more"]
    assert "".join(parts) == whole


def test_large_answers_cost_little_memory(own_stack):
    stack = own_stack(WEB_CONCURRENCY="1").start()
    generation = finished(stack, **LARGE)
    (worker,) = stack.workers()
    url = f"{stack.url}/generations/{generation}"
    requests.get(url, timeout=60)
    before = psutil.Process(worker).memory_info().rss
    slow = [open_without_reading(url) for _ in range(12)]
    for connection in slow:
        connection.settimeout(60)
        assert connection.recv(1) == b"H"
    with ThreadPoolExecutor(4) as pool:
        texts = [answer.json()["text"] for answer in pool.map(requests.get, [url] * 4)]
    assert {len(text) for text in texts} == {30_000_000}
    # The bound is the same as for a reader of the stream, a megabyte each.
    assert psutil.Process(worker).memory_info().rss - before < 16 << 20
    for connection in slow:
        connection.close()


@pytest.fixture(params=[{"EVERSTREAM_SEND_TIMEOUT_S": "600"}], ids=["patient"])
def crowded(request, own_stack):
    """One worker whose only slot for large answers is taken by a client that reads nothing."""
    stack = own_stack(EVERSTREAM_MAX_STREAMS="1", WEB_CONCURRENCY="1", **request.param).start()
    stack.large = finished(stack, **LARGE)
    stack.slow = open_without_reading(f"{stack.url}/generations/{stack.large}")
    stack.slow.settimeout(60)
    assert stack.slow.recv(1) == b"H"
    yield stack
    stack.slow.close()


def test_large_answers_take_the_slots_of_streams(crowded):
    small = crowded.submit(texts=["a"])
    refused = show(crowded, crowded.large)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_streams")
    assert refused.headers["Retry-After"] == "5"
    wait_for(lambda: show(crowded, small).json()["text"] == "a")
    assert show(crowded, crowded.large, "?limit=5").json()["last"] == 5
    # HEAD reads nothing from the log, and takes no slot.
    connection = http.client.HTTPConnection("127.0.0.1", crowded.port, timeout=30)
    for _ in range(2):
        connection.request("HEAD", f"/generations/{crowded.large}")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"], answer.read()) == (200, "application/json", b"")
    connection.close()


@pytest.mark.parametrize("crowded", [{"EVERSTREAM_SEND_TIMEOUT_S": "2"}], indirect=True, ids=["impatient"])
def test_stalled_client_is_cut(crowded):
    wait_for(lambda: crowded.metric("streams_stalled_total") == 1)
    assert len(show(crowded, crowded.large).json()["text"]) == 30_000_000


def test_log_is_not_read_further_for_a_closed_client(crowded):
    client = log_of(crowded)
    crowded.slow.close()
    wait_for(lambda: show(crowded, crowded.large, "?limit=100").ok)
    read = client.info("commandstats")["cmdstat_getrange"]["calls"]
    assert len(show(crowded, crowded.large).json()["text"]) == 30_000_000
    whole = client.info("commandstats")["cmdstat_getrange"]["calls"] - read
    assert read < whole / 2
    client.close()


# A log that fails.


@pytest.mark.parametrize("failure", ["valkey", "expiry"])
def test_log_failure_midway_leaves_an_incomplete_response(own_stack, failure):
    stack = own_stack(WEB_CONCURRENCY="1").start()
    generation = finished(stack, **LARGE)
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    connection.request("GET", f"/generations/{generation}")
    answer = connection.getresponse()
    begun = answer.read(1000)
    if failure == "valkey":
        stack.valkey.kill()
    else:
        keys = Keys(stack.settings.namespace)
        client = log_of(stack)
        client.delete(keys.generation(generation), keys.log(generation))
        client.close()
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    connection.close()
    with pytest.raises(json.JSONDecodeError):
        json.loads(begun + cut.value.partial)
    assert stack.web.output.count("a response was cut: ") == 1
    assert "Traceback" not in stack.web.output


def test_log_failure_before_the_first_byte_is_an_error(own_stack):
    stack = own_stack(WEB_CONCURRENCY="1").start()
    generation = finished(stack, texts=["a"])
    stack.valkey.kill()
    answer = show(stack, generation)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")


def test_generation_that_expires_before_it_is_read(fast):
    """Between the look-up and the read."""
    app = create_app(APIS, fast.settings)
    known = Generation("0" * 32, "open", "model", top=1)
    with app.test_request_context("/"), pytest.raises(UnknownGeneration):
        snapshot.show(known)
