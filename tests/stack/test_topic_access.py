"""Who may publish to and follow which topics: owners, scopes, patterns, tickets, share links, tokens."""

import secrets
import time
from contextlib import closing

import jwt
import pytest
import requests
import valkey
from msgspec import structs

from everstream.log.api_keys import KeyStore
from everstream.log.keys import Keys
from everstream.web.access import signed
from everstream.web.access.signed import Ticket
from harness.callers import Caller, keys
from harness.sse_client import connect
from harness.stack import running_stack

TIMEOUT_S = 30
JWT_SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    options = {"EVERSTREAM_ACCESS": "keys", "EVERSTREAM_JWT_SECRET": JWT_SECRET}
    with running_stack(tmp_path_factory.mktemp("topic-access"), **options) as stack:
        yield stack


@pytest.fixture(scope="module")
def alice(guarded):
    return Caller(guarded, keys(guarded, "add", "alice", "--scopes", "infer,publish"))


@pytest.fixture(scope="module")
def mallory(guarded):
    return Caller(guarded, keys(guarded, "add", "mallory", "--scopes", "infer,publish"))


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


def publish(caller, topic, data="x"):
    answer = caller.call("POST", f"/topics/{topic}", json={"data": data})
    assert answer.status_code == 200, answer.text
    return answer.json()["ids"][0]


def messages(url, count=1, **options):
    """The first so many messages."""
    with connect(url, **options) as stream:
        assert stream.status == 200, stream.response.read()
        stream.read(until=lambda seen: sum(event.type == "message" for event in seen.events) >= count)
        return [event for event in stream.events if event.type == "message"]


def aged(guarded, text):
    """The same ticket, when its time is over."""
    with closing(valkey.Valkey.from_url(guarded.settings.log_url)) as client:
        secret = KeyStore(client, Keys(guarded.settings.namespace)).secret()
    ticket = signed.unsign(secret, text, Ticket)
    return signed.sign(secret, structs.replace(ticket, expires_at=int(time.time()) - 1))


def test_names_are_each_owners_own(alice, mallory):
    publish(alice, "private/a", "hers")
    publish(mallory, "private/a", "his")
    for caller, data in ((alice, "hers"), (mallory, "his")):
        for path in ("/topics/private/a?last=9", "/topics?topic=private/*&last=9", "/topics?topic=**&last=1"):
            found = messages(caller.stack.url + path, headers=caller.headers)
            assert [event.json["data"] if "topic=" in path else event.json for event in found] == [data]
        listed = caller.call("GET", "/topics").json()["topics"]
        assert [each["messages"] for each in listed if each["topic"] == "private/a"] == [1]
        read = caller.call("GET", "/v1/stream/private/a?offset=-1")
        assert (read.json(), read.headers["Cache-Control"].partition(",")[0]) == ([data], "private")


def test_an_id_of_another_owner_is_only_a_time(alice, mallory):
    seen = publish(alice, "timed", "hers")
    publish(mallory, "timed", "his")
    (found,) = messages(f"{mallory.stack.url}/topics/timed", headers=mallory.headers, last_id=seen)
    assert found.json == "his"


def test_what_one_deletes_resets_nobody_else(alice, mallory):
    seen = publish(mallory, "kept", 1)
    publish(alice, "kept", 1)
    assert alice.call("DELETE", "/topics/kept").status_code == 204
    publish(mallory, "kept", 2)
    with connect(f"{mallory.stack.url}/topics/kept", headers=mallory.headers, last_id=seen) as stream:
        stream.read(until=lambda seen: seen.events)
        assert [(event.type, event.json) for event in stream.events] == [("message", 2)]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/topics/a"), ("PUT", "/topics/a"), ("DELETE", "/topics/a"), ("POST", "/v1/stream/a")]
)
def test_publishing_needs_its_scope(guarded, method, path):
    reader = Caller(guarded, keys(guarded, "add", f"reader{method}{path.count('v')}", "--scopes", "infer"))
    assert error_of(reader.call(method, path, json={"data": 1})) == (403, "insufficient_scope")


def test_a_publisher_does_not_read(guarded):
    sensor = Caller(guarded, keys(guarded, "add", "sensor", "--scopes", "publish"))
    publish(sensor, "sensors/a")
    for path in ("/topics/sensors/a", "/topics?topic=sensors/*", "/topics", "/presence?topic=sensors/a"):
        assert error_of(sensor.call("GET", path)) == (403, "insufficient_scope")
    assert error_of(sensor.call("POST", "/generations", json={"texts": ["a"]})) == (403, "insufficient_scope")


def test_a_publisher_forks_nothing(guarded, alice):
    """A fork would be a copy of what it may not read."""
    publish(alice, "forked/secret", "secret")
    writer = Caller(guarded, keys(guarded, "add", "writer", "--scopes", "publish", "--owner", "alice"))
    for source in ("forked/secret", "forked/none"):
        fork = {"Stream-Forked-From": f"/v1/stream/{source}"}
        assert error_of(writer.call("PUT", "/v1/stream/forked/copy", headers=fork)) == (403, "insufficient_scope")


def test_a_topic_of_any_type_runs_no_scripts(alice):
    for kind in ("text/html", "image/svg+xml", "text/plain"):
        body, headers = "<script>alert(1)</script>", {"Content-Type": kind}
        assert alice.call("PUT", f"/v1/stream/any/{kind}", data=body, headers=headers).status_code == 201
        read = alice.call("GET", f"/v1/stream/any/{kind}")
        assert (read.text, read.headers["Content-Type"].partition(";")[0]) == (body, kind)
        assert read.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert read.headers["X-Content-Type-Options"] == "nosniff"


def test_patterns_of_a_key(guarded, alice):
    options = ["--scopes", "read,publish", "--owner", "alice", "--publish", "logs/**", "--follow", "news/*,logs/a"]
    limited = Caller(guarded, keys(guarded, "add", "limited", *options))
    publish(limited, "logs/a")
    publish(limited, "logs/b/c")
    publish(alice, "news/sport", "goal")
    publish(alice, "secret", "no")
    assert error_of(limited.call("POST", "/topics/news/a", json={"data": 1})) == (403, "topic_not_allowed")
    several = limited.call("POST", "/topics", json=[{"topic": "logs/a", "data": 1}, {"topic": "news/a", "data": 1}])
    assert error_of(several) == (403, "topic_not_allowed")
    assert error_of(limited.call("PUT", "/v1/stream/x", headers={"Content-Type": "text/plain"})) == (
        403,
        "topic_not_allowed",
    )
    for refused in ("/topics/secret", "/topics?topic=**", "/topics?topic=news/**", "/topics?topic=logs/*"):
        assert error_of(limited.call("GET", refused)) == (403, "topic_not_allowed"), refused
    assert error_of(limited.call("GET", "/v1/stream/secret")) == (403, "topic_not_allowed")
    assert error_of(limited.call("GET", "/presence?topic=secret")) == (403, "topic_not_allowed")
    fork = {"Stream-Forked-From": "/v1/stream/secret", "Content-Type": "application/json"}
    assert error_of(limited.call("PUT", "/v1/stream/logs/fork", headers=fork)) == (403, "topic_not_allowed")
    (found,) = messages(f"{guarded.url}/topics?topic=news/*&last=1", headers=limited.headers)
    assert found.json == {"topic": "news/sport", "data": "goal"}
    assert {each["topic"] for each in limited.call("GET", "/topics").json()["topics"]} == {"logs/a", "news/sport"}


def test_ticket_to_follow(guarded, alice):
    issued = alice.call("POST", "/tickets", json={"access": "follow", "topics": ["tickets/*"]}).json()
    publish(alice, "tickets/a", 1)
    url = f"{guarded.url}{issued['url']}&last_event_id=0000000000000000"
    (first,) = messages(url)
    publish(alice, "tickets/b", 2)
    # An EventSource reconnects to the same address, when the ticket has expired.
    late = f"{guarded.url}{issued['url']}".replace(issued["ticket"], aged(guarded, issued["ticket"]))
    (second,) = messages(late, last_id=first.id)
    assert (first.json["data"], second.json["data"]) == (1, 2)
    for last_id in ("", first.id.partition(".")[0], f"{first.id[:-1]}{'0' if first.id[-1] != '0' else '1'}"):
        with connect(late, last_id=last_id) as refused:
            assert refused.status == 401, last_id


def test_ticket_is_for_its_topics_alone(guarded, alice):
    publish(alice, "others/a")
    generation = alice.start(texts=["secret"])
    ticket = alice.call("POST", "/tickets", json={"access": "follow", "topics": ["tickets/*"]}).json()["ticket"]
    for path in (
        "/topics/others/a?last=1&",
        "/topics?topic=**&",
        "/presence?topic=others/a&",
        f"/generations/{generation}/events?",
        f"/generations/{generation}?",
        "/stream?texts=a&",
        "/v1/stream/others/a?",
        "/models?",
    ):
        answer = requests.get(f"{guarded.url}{path}ticket={ticket}", timeout=TIMEOUT_S)
        assert answer.status_code in (401, 403), path
    answer = requests.post(f"{guarded.url}/topics/tickets/a?ticket={ticket}", json={"data": 1}, timeout=TIMEOUT_S)
    assert answer.status_code == 401
    listed = requests.get(f"{guarded.url}/topics?ticket={ticket}", timeout=TIMEOUT_S).json()["topics"]
    assert {each["topic"].partition("/")[0] for each in listed} <= {"tickets"}


def test_ticket_for_a_generation_follows_no_topics(guarded, alice):
    generation = alice.start(texts=["a"])
    for body in ({"access": "start"}, {"access": "read", "generation": generation}):
        ticket = alice.call("POST", "/tickets", json=body).json()["ticket"]
        answer = requests.get(f"{guarded.url}/topics?topic=**&ticket={ticket}", timeout=TIMEOUT_S)
        assert error_of(answer) == (403, "invalid_ticket")


def test_share_link_lasts_and_ends_with_its_key(guarded):
    key = keys(guarded, "add", "sharer", "--scopes", "read,publish")
    sharer = Caller(guarded, key)
    publish(sharer, "shared", 1)
    issued = sharer.call("POST", "/shares", json={"topics": ["shared"], "expires_in_s": 3600}).json()
    url = f"{guarded.url}{issued['url']}"
    (first,) = messages(f"{url}&last=1")
    publish(sharer, "shared", 2)
    # Its ids need no signature.
    (second,) = messages(url, last_id=first.id)
    assert (len(first.id), second.json) == (16, 2)
    with connect(url) as stream:
        stream.read(until=lambda seen: seen.events)
        keys(guarded, "revoke", "sharer")
        stream.read()
        assert stream.events[-1].json["code"] == "invalid_api_key"
    with connect(url) as refused:
        assert refused.status == 401


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"access": "follow"}, "topics"),
        ({"access": "follow", "topics": []}, "topics"),
        ({"access": "follow", "topics": ["a//b"]}, "topics"),
        ({"access": "follow", "topics": ["a"], "generation": "0" * 32}, "generation"),
        ({"access": "start", "topics": ["a"]}, "topics"),
        ({"access": "follow", "topics": [secrets.token_hex(95) for _ in range(9)]}, "topics"),
    ],
)
def test_bad_ticket_requests(alice, body, param):
    answer = alice.call("POST", "/tickets", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_claims_of_a_token(guarded):
    claims = {"sub": "tom", "exp": int(time.time()) + 600, "scope": "read publish"}
    token = jwt.encode({**claims, "publish": ["logs/*"], "follow": ["logs/a"]}, JWT_SECRET, "HS256")
    tom = Caller(guarded, token)
    publish(tom, "logs/a", 1)
    publish(tom, "logs/b", 2)
    assert error_of(tom.call("POST", "/topics/x", json={"data": 1})) == (403, "topic_not_allowed")
    assert error_of(tom.call("GET", "/topics/logs/b")) == (403, "topic_not_allowed")
    (found,) = messages(f"{guarded.url}/topics/logs/a?last=1", headers=tom.headers)
    assert found.json == 1
    # What stands for the token is as limited.
    ticket = tom.call("POST", "/tickets", json={"access": "follow", "topics": ["logs/a"]}).json()
    assert messages(f"{guarded.url}{ticket['url']}&last=1")[0].json == 1
    refused = tom.call("POST", "/tickets", json={"access": "follow", "topics": ["logs/*"]})
    assert error_of(refused) == (403, "topic_not_allowed")
    none = Caller(guarded, jwt.encode({**claims, "publish": [], "follow": []}, JWT_SECRET, "HS256"))
    assert error_of(none.call("POST", "/topics/logs/a", json={"data": 1})) == (403, "topic_not_allowed")
    assert error_of(none.call("GET", "/topics/logs/a")) == (403, "topic_not_allowed")
    assert none.call("GET", "/topics").json() == {"topics": [], "more": False}
    bad = jwt.encode({**claims, "follow": "logs/a"}, JWT_SECRET, "HS256")
    assert Caller(guarded, bad).call("GET", "/topics").status_code == 401


def test_pages_of_other_sites_publish_nothing(guarded, alice):
    for kind in ("application/json", "text/plain", "application/octet-stream"):
        headers = {"Origin": "https://evil.example", "Content-Type": kind}
        answer = alice.call("POST", "/topics/a", data="{}", headers=headers)
        assert error_of(answer) == (403, "cross_origin")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert error_of(alice.call("POST", "/topics/a", data="data=1", headers=form)) == (415, "unsupported_media_type")
