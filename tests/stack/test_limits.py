"""What one client may use, so that others get theirs: through the real service, by all workers together."""

import re
from contextlib import ExitStack, contextmanager

import openai
import pytest
import requests

from harness.callers import Caller, keys
from harness.sse_client import connect, text_of
from harness.stack import running_stack, wait_for

TIMEOUT_S = 30


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service that needs keys, with two gunicorn workers, whose engine runs two generations at a time."""
    options = {"EVERSTREAM_ACCESS": "keys", "EVERSTREAM_MAX_RUNNING": "2", "EVERSTREAM_MAX_QUEUED": "20"}
    with running_stack(tmp_path_factory.mktemp("limited"), **options) as stack:
        yield stack


@pytest.fixture
def caller(guarded, request):
    """Makes someone with a key, with these limits."""

    def make(name, *limits):
        return Caller(guarded, keys(guarded, "add", f"{request.node.name[:40]}-{name}", *limits))

    return make


@contextmanager
def flood(caller, tmp_path, count):
    """As many generations of this caller, which run until the end."""
    gate = tmp_path / "gate"
    yield [caller.start(texts=["x"], hold_before=1, gate=str(gate)) for _ in range(count)]
    gate.touch()


def test_requests_a_minute(caller):
    """The limit is one for both workers."""
    limited = caller("limited", "--requests-per-minute", "6")
    answers = [limited.call("POST", "/generations", json={"texts": ["a"]}) for _ in range(10)]
    assert [answer.status_code for answer in answers] == [201] * 6 + [429] * 4
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:6]] == list("543210")
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-ratelimit-limit-requests"] == "6"
    assert re.fullmatch(r"[0-9.]+s", refused.headers["x-ratelimit-reset-requests"])
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    # Reading what it has is free, and so are others.
    assert limited.call("GET", f"/generations/{answers[0].json()['id']}").ok
    assert caller("other").call("POST", "/generations", json={"texts": ["a"]}).status_code == 201


def test_eventsource_is_told_to_come_back(guarded, caller):
    limited = caller("limited", "--requests-per-minute", "1")
    events = limited.read("/stream?texts=a&texts=b")
    assert text_of(events) == "ab"
    with connect(f"{guarded.url}/stream?texts=a", headers=limited.headers) as stream:
        assert stream.status == 200
        stream.read()
        assert stream.events[-1].type == "busy" and stream.events[-1].json["code"] == "rate_limit_exceeded"
        assert stream.decoder.retry_ms >= 1000
    # A reconnect is no request; but its header makes no request free.
    for path in ("/generations", "/v1/chat/completions?last_event_id=" + events[1].id):
        free = limited.call("POST", path, json={"texts": ["a"]}, headers={"Last-Event-ID": events[1].id})
        assert free.status_code in (400, 429), path
    assert text_of(limited.read("/stream", last_id=events[1].id)) == "b"


def test_sdks_know_the_limit(guarded, caller):
    limited = caller("limited", "--requests-per-minute", "1")
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=limited.key, max_retries=0)
    limited.start(texts=["a"])
    with pytest.raises(openai.RateLimitError) as refused:
        client.completions.create(model="smollm2-135m-instruct", prompt='{"texts": ["a"]}')
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_tokens_a_minute(caller):
    """Those of a prompt and of an answer count, once each."""
    limited = caller("limited", "--tokens-per-minute", "10")
    generation = limited.start(texts=["x"] * 20)
    assert len(limited.read(f"/generations/{generation}/events")) == 22
    answer = limited.call("POST", "/generations", json={"texts": ["a"]})
    assert answer.status_code == 429
    assert "10 tokens a minute" in answer.json()["error"]["message"]
    assert answer.headers["x-ratelimit-remaining-tokens"] == "0"


def test_running_and_waiting_generations(caller, tmp_path):
    limited = caller("limited", "--running", "1", "--queued", "2")
    with flood(limited, tmp_path, 1) as (first,):
        wait_for(lambda: limited.call("GET", f"/generations/{first}").json()["state"] == "running", what="the first")
        with flood(limited, tmp_path, 2) as waiting:
            answer = limited.call("POST", "/generations", json={"texts": ["a"]})
            assert (answer.status_code, "2 of your requests" in answer.text) == (429, True)
            # A slot is free, but not for this client.
            other = caller("other")
            assert text_of(other.read(f"/generations/{other.start(texts=['mine'])}/events")) == "mine"
            assert {limited.call("GET", f"/generations/{each}").json()["state"] for each in waiting} == {"queued"}
    for generation in waiting:
        assert text_of(limited.read(f"/generations/{generation}/events")) == "x"


def test_streams_of_a_client(guarded, caller, tmp_path):
    """The limit is one for both workers. A killed worker's streams count for some seconds."""
    limited = caller("limited", "--streams", "3")
    with flood(limited, tmp_path, 1) as (generation,), ExitStack() as opened:
        url = guarded.events_url(generation)
        for _ in range(3):
            stream = opened.enter_context(connect(url, headers=limited.headers))
            stream.read(lambda got: got.events)
        with connect(url, headers=limited.headers) as refused:
            assert refused.read().events[-1].json["code"] == "rate_limit_exceeded"
        snapshot = limited.call("GET", f"/generations/{generation}")
        assert snapshot.ok
        stream.close()

        def has_room():
            with connect(url, headers=limited.headers) as another:
                another.read(lambda got: got.events)
                return another.events[-1].type != "busy"

        wait_for(has_room, what="the closed stream's slot")


def test_flood_delays_others_by_one_turn(caller, tmp_path):
    """A full queue of one client: another's generation is next, and is taken in."""
    flooder, victim = caller("flooder"), caller("victim")
    with flood(flooder, tmp_path, 22) as flooding:
        assert flooder.call("POST", "/generations", json={"texts": ["a"]}).status_code == 503
        own = victim.start(texts=["mine"])
        with connect(f"{victim.stack.events_url(own)}", headers=victim.headers) as stream:
            stream.read(lambda got: any(event.type == "queued" for event in got.events))
            place = next(event.json for event in stream.events if event.type == "queued")
            assert place["position"] <= 2 and place["length"] == 21
    assert text_of(victim.read(f"/generations/{own}/events")) == "mine"
    for generation in flooding:
        flooder.read(f"/generations/{generation}/events")


def test_many_bad_keys(guarded, caller):
    good = caller("good")
    statuses = [
        requests.get(f"{guarded.url}/models", headers={"x-api-key": f"bad{n}"}, timeout=TIMEOUT_S).status_code
        for n in range(65)
    ]
    assert statuses == [401] * 60 + [429] * 5
    # Good ones from the same address are served.
    assert good.call("GET", "/models").ok


def test_addresses_are_clients_of_a_service_without_keys(own_stack, tmp_path):
    stack = own_stack(EVERSTREAM_PROXIES="1", EVERSTREAM_CLIENT_REQUESTS_PER_MINUTE="2", WEB_CONCURRENCY="1").start()

    def status(address):
        headers = {"X-Forwarded-For": address}
        body = {"texts": ["a"]}
        return requests.post(f"{stack.url}/generations", json=body, headers=headers, timeout=TIMEOUT_S).status_code

    assert [status("192.0.2.1") for _ in range(3)] == [201, 201, 429]
    assert status("192.0.2.2") == 201
    assert [status(f"2001:db8::{n}") for n in range(3)] == [201, 201, 429]
