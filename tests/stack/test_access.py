"""Who may do what: keys, owners, scopes, sessions, tickets and share links, on every route that gives access."""

import json
import re
import subprocess
import sys
from contextlib import closing

import openai
import pytest
import requests
import valkey
from msgspec import structs

from everstream.apis import APIS
from everstream.log.api_keys import KeyStore
from everstream.log.keys import Keys
from everstream.settings import PROJECT_ROOT, load_settings
from everstream.web.access import signed
from everstream.web.access.rules import rule_of
from everstream.web.access.signed import Ticket
from everstream.web.factory import create_app
from harness.callers import Caller, keys
from harness.sse_client import connect, read_all, text_of
from harness.stack import MODELS, free_port, running_stack, wait_for, web_alone

TIMEOUT_S = 30
UNKNOWN = "0123456789abcdef" * 2
COOKIE = "__Host-everstream"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service that needs keys, with two gunicorn workers and the health listener."""
    health_port = free_port()
    options = {"EVERSTREAM_ACCESS": "keys", "EVERSTREAM_HEALTH_PORT": str(health_port)}
    models = {name: MODELS / name for name in ("scripted", "chat")}
    with running_stack(tmp_path_factory.mktemp("guarded"), models=models, **options) as stack:
        yield stack


@pytest.fixture(scope="module")
def alice(guarded):
    return Caller(guarded, keys(guarded, "add", "alice"))


@pytest.fixture(scope="module")
def mallory(guarded):
    return Caller(guarded, keys(guarded, "add", "mallory"))


def error_of(answer):
    error = answer.json()["error"]
    return answer.status_code, error["code"]


def test_every_route_has_a_rule():
    app = create_app(APIS, load_settings({"EVERSTREAM_DEMO": "1"}))
    without = {rule.endpoint for rule in app.url_map.iter_rules() if not rule_of(app.view_functions[rule.endpoint])}
    assert without == set()


def test_every_route_but_the_public_ones_needs_a_key(guarded):
    app = create_app(APIS, load_settings(guarded.environ))
    asked = 0
    for rule in app.url_map.iter_rules():
        if rule_of(app.view_functions[rule.endpoint]).scope is None:
            continue
        path = rule.rule.replace("<path:name>", "m").replace("<version>", "1")
        path = path.replace("<generation>", UNKNOWN).replace("<response_id>", f"resp_{UNKNOWN}")
        for method in rule.methods - {"OPTIONS", "HEAD"}:
            answer = requests.request(
                method, guarded.url + path, json={} if method == "POST" else None, timeout=TIMEOUT_S
            )
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            asked += 1
    assert asked > 20


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/healthz",
        "/readyz",
        "/version",
        "/dashboard",
        "/session",
        "/examples/",
        "/examples/log",
    ],
)
def test_public_routes_need_none(guarded, path):
    assert requests.get(guarded.url + path, timeout=TIMEOUT_S).status_code == 200


def test_a_key_starts_and_reads(alice):
    generation = alice.start(texts=["a", " b"])
    assert text_of(alice.read(f"/generations/{generation}/events")) == "a b"
    assert alice.call("GET", f"/generations/{generation}").json()["text"] == "a b"


def test_a_key_may_come_as_x_api_key(guarded, alice):
    answer = requests.get(f"{guarded.url}/models", headers={"x-api-key": alice.key}, timeout=TIMEOUT_S)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "key",
    [
        "",
        "sk-1",
        "es-000000000000-" + "0" * 48,
        "es-",
        "Bearer",
        "a.b.c",
        "\u00e9".encode("latin-1").decode("latin-1"),
        "x" * 5000,
    ],
)
def test_bad_keys(guarded, key):
    headers = {"Authorization": f"Bearer {key}".encode("latin-1")}
    status, code = error_of(requests.get(f"{guarded.url}/models", headers=headers, timeout=TIMEOUT_S))
    assert (status, code) == (401, "invalid_api_key" if key else "missing_api_key")


def test_half_a_key_is_no_key(guarded, alice):
    wrong = alice.key[:-1] + ("0" if alice.key[-1] != "0" else "1")
    assert error_of(Caller(guarded, wrong).call("GET", "/models")) == (401, "invalid_api_key")


def strangers_view(answer):
    """All that an answer tells: what differs between two requests by itself is left out."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    for name in ("date", "x-request-id", "request-id", "openai-processing-ms", "content-length"):
        headers.pop(name, None)
    return answer.status_code, headers, answer.text


OWNED = [
    ("GET", "/generations/{}"),
    ("DELETE", "/generations/{}"),
    ("GET", "/generations/{}/events"),
    ("GET", "/generations/{}/events?format=openai-chat"),
    ("GET", "/generations/{}/events?ping=true"),
    ("GET", "/events?generation={}"),
    ("GET", "/stream", "{}.1"),
    ("GET", "/generations/{}/events", "{}.1"),
    ("GET", "/events?generation={}", "{}.1"),
    ("POST", "/v1/chat/completions", "{}.1"),
    ("POST", "/v1/completions", "{}.1"),
    ("POST", "/v1/responses", "{}.1"),
    ("POST", "/v1/messages", "{}.1"),
    ("POST", "/v2/models/chat/generate_stream", "{}.1"),
    ("GET", "/v1/responses/resp_{}"),
    ("GET", "/v1/responses/resp_{}?stream=true"),
    ("GET", "/v1/responses/resp_{}/input_items"),
    ("POST", "/v1/responses/resp_{}/cancel"),
    ("DELETE", "/v1/responses/resp_{}"),
    ("POST", "/tickets"),
    ("POST", "/shares"),
]
BODIES = {
    "/v1/chat/completions": {"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": True},
    "/v1/completions": {"model": "chat", "prompt": "x", "stream": True},
    "/v1/responses": {"model": "chat", "input": "x", "stream": True},
    "/v1/messages": {"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 5},
    "/v2/models/chat/generate_stream": {"text_input": "x"},
}


@pytest.mark.parametrize("place", OWNED, ids=" ".join)
def test_a_stranger_sees_what_an_unknown_id_shows(alice, mallory, place):
    """On every path that leads to a generation."""
    method, path, *last_id = place
    generation = stored_response(alice) if "resp_" in path else alice.start(texts=["secret"] * 3)
    alice.read(f"/generations/{generation}/events")

    def view(whose):
        own = dict.fromkeys(["Last-Event-ID"][: len(last_id)], last_id[0].format(whose) if last_id else "")
        body = BODIES.get(path)
        if path in ("/tickets", "/shares"):
            body = {"generation": whose} | ({"access": "read"} if path == "/tickets" else {})
        answer = mallory.call(method, path.format(whose), json=body, headers=own | {"Accept": "text/event-stream"})
        status, seen, text = strangers_view(answer)
        return status, seen, re.sub("req_[0-9a-f]{32}", "<request>", text.replace(whose, "<id>"))

    theirs, nobodys = view(generation), view(UNKNOWN)
    assert [part for part in theirs if "secret" in str(part)] == []
    assert _without_times(theirs) == _without_times(nobodys)
    assert theirs[0] in (200, 404)
    assert alice.call("GET", f"/generations/{generation}").json()["text"] == "secret" * 3
    if "resp_" in path:
        assert alice.call("GET", f"/v1/responses/resp_{generation}").ok


def stored_response(caller):
    """The generation of one that has another owner's path to it."""
    answer = caller.call("POST", "/v1/responses", json={"model": "chat", "input": "secret" * 3, "background": True})
    return answer.json()["id"].removeprefix("resp_")


def _without_times(view):
    status, headers, text = view
    lines = [line for line in text.splitlines() if not line.startswith("retry:")]
    return status, headers, lines


def test_request_ids_are_each_owners_own(alice, mallory):
    request_id = "the-same-request-id"
    first = alice.start(texts=["mine"], request_id=request_id)
    assert alice.start(texts=["mine"], request_id=request_id) == first
    assert mallory.start(texts=["theirs"], request_id=request_id) != first


def test_idempotency_keys_are_each_owners_own(alice, mallory):
    path = "/v2/models/scripted/infer"
    options = {
        "json": {"parameters": {"texts": ["x"]}},
        "headers": {"Idempotency-Key": "k" * 20, "Accept": "text/event-stream"},
    }
    answers = [caller.call("POST", path, **options).text for caller in (alice, mallory, alice)]
    opened = [re.search("[0-9a-f]{32}", text)[0] for text in answers]
    assert opened[0] == opened[2] != opened[1]


def test_shared_owner(guarded, alice):
    viewer = Caller(guarded, keys(guarded, "add", "viewer", "--scopes", "read", "--owner", "alice"))
    generation = alice.start(texts=["shared"])
    assert text_of(viewer.read(f"/generations/{generation}/events")) == "shared"
    for method, path in [
        ("POST", "/generations"),
        ("GET", "/stream?texts=a"),
        ("DELETE", f"/generations/{generation}"),
    ]:
        body = {"texts": ["a"]} if method == "POST" else None
        assert error_of(viewer.call(method, path, json=body)) == (403, "insufficient_scope")


def test_admin_scope_is_for_operators_alone(guarded, alice):
    operator = Caller(guarded, keys(guarded, "add", "operator", "--scopes", "admin"))
    with connect(f"{guarded.url}/dashboard/events", headers=operator.headers) as dashboard:
        assert dashboard.status == 200
    assert error_of(alice.call("GET", "/dashboard/events")) == (403, "insufficient_scope")
    assert error_of(operator.call("GET", "/models")) == (403, "insufficient_scope")


def test_models_of_a_key(guarded):
    caller = Caller(guarded, keys(guarded, "add", "elsewhere", "--models", "another-model"))
    assert error_of(caller.call("POST", "/generations", json={"texts": ["a"]})) == (403, "model_not_allowed")
    assert error_of(caller.call("GET", "/stream?texts=a")) == (403, "model_not_allowed")


def test_metrics_and_details_are_on_the_health_listener_alone(guarded, alice):
    health = guarded.settings.url.replace(str(guarded.port), str(guarded.settings.health_port))
    assert "everstream_streams_total" in requests.get(f"{health}/metrics", timeout=TIMEOUT_S).text
    assert requests.get(f"{health}/readyz", timeout=TIMEOUT_S).json()["engines"]
    assert requests.get(f"{guarded.url}/readyz", timeout=TIMEOUT_S).json() == {"ready": True}
    operator = Caller(guarded, keys(guarded, "add", "scraper", "--scopes", "admin"))
    assert operator.call("GET", "/metrics").status_code == 404
    assert alice.call("GET", "/metrics").status_code == 403


def test_revoked_key_ends_its_streams(guarded, tmp_path):
    caller = Caller(guarded, keys(guarded, "add", "leaked"))
    generation = caller.start(texts=["a", "b"], hold_before=2, gate=str(tmp_path / "gate"))
    with connect(guarded.events_url(generation), headers=caller.headers) as stream:
        stream.read(lambda got: any(event.type == "message" for event in got.events))
        keys(guarded, "revoke", "leaked")
        stream.read()
        assert (stream.events[-1].type, stream.events[-1].json["code"]) == ("failed", "invalid_api_key")
    wait_for(lambda: caller.call("GET", "/models").status_code == 401, what="the end of the key")
    (tmp_path / "gate").touch()


def test_rotated_key(guarded):
    caller = Caller(guarded, keys(guarded, "add", "rotating"))
    generation = caller.start(texts=["mine"])
    graceful = Caller(guarded, keys(guarded, "rotate", "rotating", "--grace", "1h"))
    wait_for(lambda: graceful.call("GET", "/models").ok, what="the new secret")
    assert caller.call("GET", "/models").ok
    final = Caller(guarded, keys(guarded, "rotate", "rotating"))
    wait_for(lambda: final.call("GET", "/models").ok, what="the new secret")
    wait_for(
        lambda: error_of(caller.call("GET", "/generations/x")) == (401, "invalid_api_key"), what="the old one's end"
    )
    assert final.call("GET", f"/generations/{generation}").json()["text"] == "mine"


def test_expired_key(guarded):
    caller = Caller(guarded, keys(guarded, "add", "brief", "--expires", "1s"))
    wait_for(lambda: caller.call("GET", "/models").status_code == 401, what="the key's end")


def test_secrets_are_not_in_the_log(guarded, alice):
    alice.start(texts=["x"])
    with closing(valkey.Valkey.from_url(guarded.settings.log_url)) as client:
        stored = str(client.hgetall(Keys(guarded.settings.namespace).api_keys))
    secret = alice.key.rpartition("-")[2]
    assert "alice" in stored and secret not in stored
    assert not any(secret in part.output for part in guarded._all)


def test_keys_are_listed_without_their_secrets(guarded, alice):
    keys(guarded, "add", "limited", "--requests-per-minute", "5", "--models", "a,b", "--expires", "2d")
    shown = keys(guarded, "list")
    line = next(line for line in shown.splitlines() if line.startswith("limited "))
    assert "a,b" in line and "requests_per_minute=5" in line and "infer" in line
    assert alice.key.rpartition("-")[2] not in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["add", "alice"], "already"),
        (["add", "bad name"], "characters"),
        (["add", "x", "--scopes", "root"], "scopes are"),
        (["add", "x", "--expires", "soon"], "a time is"),
        (["add", "x", "--running", "0"], "from 1"),
        (["add", "x", "--owner", "nobody"], "nobody"),
        (["revoke", "nobody"], "nobody"),
        (["rotate", "nobody"], "nobody"),
    ],
)
def test_wrong_arguments(guarded, alice, arguments, reason):
    command = [sys.executable, "-m", "everstream.cli", "keys", *arguments]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=guarded.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0 and reason in done.stderr
    assert "Traceback" not in done.stderr


def test_openai_sdk(guarded, alice):
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=alice.key)
    assert [model.id for model in client.models.list()] == ["scripted", "chat"]
    stranger = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-anything", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


# Browsers.


@pytest.fixture
def session(guarded, alice):
    """A browser's cookies, after signing in. `requests` keeps no Secure cookie for plain HTTP, so by hand."""
    answer = requests.post(f"{guarded.url}/session", json={"key": alice.key}, timeout=TIMEOUT_S)
    assert answer.json() == {"required": True, "signed_in": True, "name": "alice", "scopes": ["infer"]}
    cookie = answer.headers["Set-Cookie"]
    for attribute in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
        assert attribute in cookie
    return {"Cookie": cookie.partition(";")[0]}


def test_session_stands_for_its_key(guarded, alice, session):
    generation = alice.start(texts=["mine"])
    assert text_of(read_all(guarded.events_url(generation), headers=session)) == "mine"
    shown = requests.get(f"{guarded.url}/session", headers=session, timeout=TIMEOUT_S).json()
    assert (shown["signed_in"], shown["name"]) == (True, "alice")
    gone = requests.delete(f"{guarded.url}/session", headers=session, timeout=TIMEOUT_S)
    assert "Max-Age=0" in gone.headers["Set-Cookie"]


def test_session_ends_with_its_key(guarded):
    key = keys(guarded, "add", "visitor")
    answer = requests.post(f"{guarded.url}/session", json={"key": key}, timeout=TIMEOUT_S)
    cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    keys(guarded, "rotate", "visitor")

    def is_refused():
        answer = requests.get(f"{guarded.url}/models", headers=cookie, timeout=TIMEOUT_S)
        return answer.status_code == 401 and error_of(answer) == (401, "session_expired")

    wait_for(is_refused, what="the end of the session")


def test_session_does_not_renew_itself(guarded, session):
    answer = requests.post(f"{guarded.url}/session", json={}, headers=session, timeout=TIMEOUT_S)
    assert error_of(answer) == (401, "missing_api_key") and "Set-Cookie" not in answer.headers


def test_session_of_an_old_secret_ends_with_its_grace(guarded):
    """Whoever has only the old secret must not keep a session that outlives it."""
    old = keys(guarded, "add", "graceful")
    new = Caller(guarded, keys(guarded, "rotate", "graceful", "--grace", "1h"))
    wait_for(lambda: new.call("GET", "/models").ok)
    answer = requests.post(f"{guarded.url}/session", json={"key": old}, timeout=TIMEOUT_S)
    cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    assert requests.get(f"{guarded.url}/models", headers=cookie, timeout=TIMEOUT_S).ok
    keys(guarded, "rotate", "graceful")
    wait_for(lambda: requests.get(f"{guarded.url}/models", headers=cookie, timeout=TIMEOUT_S).status_code == 401)


def test_rotation_ends_streams_of_the_old_secret(guarded, gate):
    caller = Caller(guarded, keys(guarded, "add", "stolen"))
    generation = caller.start(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(guarded.events_url(generation), headers=caller.headers) as stream:
        stream.read(lambda got: any(event.type == "message" for event in got.events))
        keys(guarded, "rotate", "stolen")
        assert stream.read().events[-1].json["code"] == "invalid_api_key"
    gate.open()


def test_sign_out_of_everyone(guarded, alice, session):
    generation = alice.start(texts=["a"])
    shared = alice.call("POST", "/shares", json={"generation": generation}).json()
    keys(guarded, "sign-out")

    def are_refused(path, headers):
        """By both workers, each of which keeps what it signs with for a moment."""
        tries = [requests.get(guarded.url + path, headers=headers, timeout=TIMEOUT_S) for _ in range(20)]
        return all(answer.status_code == 401 for answer in tries)

    wait_for(lambda: are_refused("/models", session))
    wait_for(lambda: are_refused(shared["url"], {}))
    assert alice.call("GET", "/models").ok


def test_no_session_without_a_good_key(guarded):
    large = requests.post(f"{guarded.url}/session", json={"key": "x" * 20_000}, timeout=TIMEOUT_S)
    assert large.status_code == 413
    for body in ({"key": "es-1"}, {"key": ""}):
        answer = requests.post(f"{guarded.url}/session", json=body, timeout=TIMEOUT_S)
        assert answer.status_code == 401 and "Set-Cookie" not in answer.headers
    answer = requests.post(f"{guarded.url}/session", json={"kye": "x"}, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "kye")


@pytest.mark.parametrize("change", ["cut", "flipped", "from another kind"])
def test_forged_session(guarded, alice, session, change):
    name, _, value = session["Cookie"].partition("=")
    if change == "cut":
        value = value[:-3]
    elif change == "flipped":
        value = ("A" if value[0] != "A" else "B") + value[1:]
    else:
        value = alice.call("POST", "/tickets", json={"access": "start"}).json()["ticket"]
    answer = requests.get(f"{guarded.url}/models", headers={"Cookie": f"{name}={value}"}, timeout=TIMEOUT_S)
    assert error_of(answer) == (401, "missing_api_key")


def aged(stack, text):
    """The same ticket as it would have been signed an hour ago."""
    with closing(valkey.Valkey.from_url(stack.settings.log_url)) as client:
        secret = KeyStore(client, Keys(stack.settings.namespace)).secret()
    ticket = signed.unsign(secret, text, Ticket)
    return signed.sign(secret, structs.replace(ticket, expires_at=ticket.expires_at - 3600))


def test_ticket_starts_one_generation_and_reconnects(guarded, alice):
    issued = alice.call("POST", "/tickets", json={"access": "start"}).json()
    url = f"{guarded.url}{issued['url']}&texts=a&texts=b"
    first = read_all(url)
    assert text_of(first) == "ab"
    again = read_all(url)
    assert [event.id for event in again] == [event.id for event in first]
    # An EventSource reconnects to the same address, when the ticket has expired.
    late = url.replace(issued["ticket"], aged(guarded, issued["ticket"]))
    assert text_of(read_all(late, last_id=first[1].id)) == "b"
    with connect(late) as refused:
        assert refused.status == 401
    another = requests.get(url.replace("texts=a", "texts=z"), timeout=TIMEOUT_S)
    assert error_of(another) == (409, "request_id_conflict")


def test_ticket_to_read(guarded, alice):
    generation, other = alice.start(texts=["a", "b"]), alice.start(texts=["other"])
    issued = alice.call("POST", "/tickets", json={"access": "read", "generation": generation}).json()
    assert 0 < issued["expires_in_s"] <= 60
    url = guarded.url + issued["url"]
    events = read_all(url)
    assert text_of(events) == "ab"
    late = url.replace(issued["ticket"], aged(guarded, issued["ticket"]))
    assert text_of(read_all(late, last_id=events[1].id)) == "b"
    for last_id in ("", f"{generation}.1", f"{generation}.1.{'0' * 32}"):
        with connect(late, last_id=last_id) as refused:
            assert refused.status == 401, last_id
    ticket = issued["ticket"]
    for path in (f"/generations/{other}/events", f"/generations/{other}", "/stream?texts=a", "/models", "/session"):
        separator = "&" if "?" in path else "?"
        answer = requests.get(f"{guarded.url}{path}{separator}ticket={ticket}", timeout=TIMEOUT_S)
        assert "other" not in answer.text
        assert answer.status_code in (401, 403, 404) or path == "/session" or "generation_expired" in answer.text


def test_ticket_to_read_text(guarded, alice):
    """The ids are signed, as those of JSON. Other APIs' ids are not."""
    generation = alice.start(texts=["a\n", " b"])
    issued = [
        alice.call("POST", "/tickets", json=body).json()
        for body in ({"access": "start"}, {"access": "read", "generation": generation})
    ]
    for ticket, query in zip(issued, ("&texts=a%0A&texts=+b", ""), strict=True):
        url = f"{guarded.url}{ticket['url']}{query}&format=text"
        events = read_all(url)
        assert [event.data for event in events if event.type == "message"] == ["a\n", " b"]
        late = url.replace(ticket["ticket"], aged(guarded, ticket["ticket"]))
        assert read_all(late, last_id=events[1].id) == events[2:]
        answer = requests.get(url.replace("format=text", "format=openai-chat"), timeout=TIMEOUT_S)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "format")


def test_ticket_of_another_stream_does_not_resume_it(guarded, alice):
    """The signed id of one stream is no good with another's ticket."""
    tickets = [alice.call("POST", "/tickets", json={"access": "start"}).json() for _ in range(2)]
    events = read_all(f"{guarded.url}{tickets[0]['url']}&texts=secret")
    with connect(f"{guarded.url}{tickets[1]['url']}&texts=x", last_id=events[1].id) as stranger:
        stranger.read()
        assert text_of(stranger.events) == ""
        assert stranger.events[-1].json["code"] == "generation_expired"


def test_ticket_signs_no_id_of_what_it_may_not_see(guarded, alice):
    """Otherwise a start ticket could be shown with it, as if for a reconnect."""
    other = alice.start(texts=["secret"])
    alice.read(f"/generations/{other}/events")
    issued = alice.call("POST", "/tickets", json={"access": "start"}).json()
    with connect(f"{guarded.url}{issued['url']}&texts=x", last_id=f"{other}.0") as first:
        first.read()
    assert [event.json["code"] for event in first.events] == ["generation_expired"]
    signature = first.events[0].id.removeprefix(f"{other}.expired").lstrip(".")
    with connect(f"{guarded.url}{issued['url']}&texts=x", last_id=f"{other}.0.{signature or '0' * 32}") as second:
        second.read()
    assert "secret" not in text_of(second.events)
    assert signature == ""


def test_start_ticket_is_only_for_stream(guarded, alice):
    ticket = alice.call("POST", "/tickets", json={"access": "start"}).json()["ticket"]
    generation = alice.start(texts=["mine"])
    answer = requests.get(f"{guarded.events_url(generation)}?ticket={ticket}", timeout=TIMEOUT_S)
    assert error_of(answer) == (403, "invalid_ticket")


def test_share_link(guarded, alice):
    generation = alice.start(texts=["a", "b"])
    shared = alice.call("POST", "/shares", json={"generation": generation, "expires_in_s": 60}).json()
    events = read_all(guarded.url + shared["url"])
    assert text_of(events) == "ab"
    assert text_of(read_all(guarded.url + shared["url"], last_id=events[1].id)) == "b"
    shown = requests.get(f"{guarded.url}/generations/{generation}?ticket={shared['ticket']}", timeout=TIMEOUT_S)
    assert shown.json()["text"] == "ab"
    stopped = requests.delete(f"{guarded.url}/generations/{generation}?ticket={shared['ticket']}", timeout=TIMEOUT_S)
    assert stopped.status_code == 401
    old = shared["url"].replace(shared["ticket"], aged(guarded, shared["ticket"]))
    assert requests.get(guarded.url + old, timeout=TIMEOUT_S).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tickets", {}, "access"),
        ("/tickets", {"access": "write"}, "access"),
        ("/tickets", {"access": "read"}, "generation"),
        ("/tickets", {"access": "read", "generation": "x"}, "generation"),
        ("/tickets", {"access": "start", "generation": UNKNOWN}, "generation"),
        ("/shares", {}, "generation"),
        ("/shares", {"generation": UNKNOWN, "expires_in_s": 0}, "expires_in_s"),
        ("/shares", {"generation": UNKNOWN, "for": 1}, "for"),
        ("/shares", {"generation": UNKNOWN, "": 1}, ""),
    ],
)
def test_wrong_requests_for_tickets(alice, path, body, param):
    answer = alice.call("POST", path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_each_owner_has_its_own_prefix_cache(tmp_path):
    """Whatever salt a request brings; and the same request of the same owner is still the same."""
    with web_alone(tmp_path, app_dir=MODELS / "chat", EVERSTREAM_ACCESS="keys") as stack:
        callers = [Caller(stack, keys(stack, "add", name)) for name in ("alice", "bob")]
        salts = []
        for caller in (*callers, callers[0]):
            for salt in ({}, {"cache_salt": "given"}):
                generation = caller.start(prompt="the same", request_id=f"a-request-id-of-{len(salt)}", **salt)
                with closing(valkey.Valkey.from_url(stack.settings.log_url)) as client:
                    job = json.loads(client.hget(Keys(stack.settings.namespace).generation(generation), "job"))
                assert job["inputs"].get("cache_salt", "") == salt.get("cache_salt", "")
                salts.append(job["added"]["cache_salt"])
        assert len(set(salts[:4])) == 4 and salts[4:] == salts[:2]
