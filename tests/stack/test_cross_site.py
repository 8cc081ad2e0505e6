"""What a page of another site can make a visitor's browser do: nothing. And whom a service without keys serves."""

import http.client
import subprocess
import sys

import pytest
import requests
import valkey

from everstream.settings import PROJECT_ROOT
from harness.sse_client import connect, read_all, text_of
from harness.stack import running_stack, wait_for, web_alone

TIMEOUT_S = 30
APP = "https://app.example.com"
EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A service as it starts without any settings."""
    with running_stack(tmp_path_factory.mktemp("local"), WEB_CONCURRENCY="1", EVERSTREAM_ACCESS="auto") as stack:
        yield stack


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A service that pages of another origin may use, under a name of its own."""
    options = {"EVERSTREAM_CORS_ORIGINS": APP, "EVERSTREAM_HOSTS": "api.example.com"}
    with running_stack(tmp_path_factory.mktemp("shared"), WEB_CONCURRENCY="1", **options) as stack:
        yield stack


@pytest.fixture
def nothing_starts(local):
    client = valkey.Valkey.from_url(local.settings.log_url)
    before = set(client.scan_iter("*gen:*"))
    yield
    assert set(client.scan_iter("*gen:*")) <= before
    client.close()


def get(stack, path, headers):
    """Without the headers that `requests` adds, and with any Host."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=TIMEOUT_S)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    connection.close()
    return answer


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.9.9.9:1", "[::1]:8000", "a.localhost", ""]
)
def test_names_of_this_machine(local, host):
    assert get(local, "/models", {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.0.2.1",
        "[::",
        "web",
    ],
)
def test_other_names(local, nothing_starts, host):
    """DNS rebinding: the browser believes that evil.example is this service."""
    for path in ("/stream?texts=a", "/models", "/generations/" + "0" * 32):
        answer = get(local, path, {"Host": host})
        assert (answer.status, "unknown_host" in answer.text) == (421, True), path


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_without_keys_nobody_comes_through_a_proxy(local, header):
    answer = get(local, "/models", {"Host": "localhost", header: "198.51.100.7"})
    assert (answer.status, "docs/security.md" in answer.text) == (421, True)


@pytest.mark.parametrize(
    ("host", "status"),
    [("api.example.com", 200), ("API.example.com:443", 200), ("10.0.0.5", 200), ("evil.example", 421)],
)
def test_names_in_the_setting(shared, host, status):
    assert get(shared, "/models", {"Host": host}).status == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://["},
    ],
)
def test_pages_of_other_sites_start_nothing(local, nothing_starts, headers):
    with connect(f"{local.url}/stream?texts=a", headers=headers) as stream:
        assert stream.status == 403
    for path in (
        *(
            "/generations",
            "/v1/chat/completions",
            "/api/chat",
            "/api/ag-ui",
            "/v2/models/smollm2-135m-instruct/infer",
            "/session",
        ),
    ):
        answer = requests.post(local.url + path, json={"texts": ["a"]}, headers=headers, timeout=TIMEOUT_S)
        assert (answer.status_code, "cross_origin" in answer.text) == (403, True), path
    answer = requests.delete(f"{local.url}/generations/{'0' * 32}", headers=headers, timeout=TIMEOUT_S)
    assert answer.status_code == 403


def test_own_pages_start(local):
    own = {"Origin": local.url, "Sec-Fetch-Site": "same-origin"}
    assert text_of(read_all(f"{local.url}/stream?texts=a", headers=own)) == "a"
    assert text_of(read_all(f"{local.url}/stream?texts=a", headers={"Sec-Fetch-Site": "none"})) == "a"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_forms_are_refused(local, nothing_starts, kind):
    """A form of another site needs nobody's permission to send these."""
    for path in ("/generations", "/v1/chat/completions", "/v1/messages", "/v2/models/smollm2-135m-instruct/infer"):
        answer = requests.post(
            local.url + path, data='{"texts":["a"]}', headers={"Content-Type": kind}, timeout=TIMEOUT_S
        )
        assert (answer.status_code, "unsupported_media_type" in answer.text) == (415, True), path


def test_body_without_a_type(local):
    """Triton's client sends none; a browser's cross-site request can, but says where it comes from."""
    for headers, status in (({}, 201), ({"Origin": local.url}, 415)):
        answer = requests.post(f"{local.url}/generations", data=b'{"texts":["a"]}', headers=headers, timeout=TIMEOUT_S)
        assert answer.status_code == status


def test_cors_answers_the_listed_origin_alone(shared):
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,last-event-id,idempotency-key",
    }
    answer = requests.options(f"{shared.url}/generations", headers={"Origin": APP} | asked, timeout=TIMEOUT_S)
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    assert all(name in allowed for name in asked["Access-Control-Request-Headers"].split(","))
    refused = requests.options(f"{shared.url}/generations", headers={"Origin": EVIL} | asked, timeout=TIMEOUT_S)
    assert "Access-Control-Allow-Origin" not in refused.headers


def test_listed_origin_streams(shared):
    there = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}
    with connect(f"{shared.url}/stream?texts=a", headers=there) as stream:
        assert text_of(stream.read().events) == "a"
        assert stream.headers["Access-Control-Allow-Origin"] == APP
        assert "x-request-id" in stream.headers["Access-Control-Expose-Headers"].lower()
        assert "Access-Control-Allow-Credentials" not in stream.headers
    elsewhere = {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
    with connect(f"{shared.url}/stream?texts=a", headers=elsewhere) as stream:
        assert stream.status == 403


def test_without_settings_there_is_no_cors(local):
    answer = requests.get(f"{local.url}/models", headers={"Origin": local.url}, timeout=TIMEOUT_S)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def run_keys(stack, *arguments):
    command = [sys.executable, "-m", "everstream.cli", "keys", *arguments]
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=stack.environ, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_first_key_closes_the_service_for_good(tmp_path):
    with web_alone(tmp_path, EVERSTREAM_ACCESS="auto") as stack:
        url = f"{stack.url}/generations/{'0' * 32}"
        assert requests.get(url, timeout=TIMEOUT_S).status_code == 404
        assert requests.get(f"{stack.url}/session", timeout=TIMEOUT_S).json()["required"] is False
        run_keys(stack, "add", "first")
        wait_for(lambda: requests.get(url, timeout=TIMEOUT_S).status_code == 401, what="the need for a key")
        run_keys(stack, "revoke", "first")
        assert {requests.get(url, timeout=TIMEOUT_S).status_code for _ in range(20)} == {401}
        assert "first" not in run_keys(stack, "list")


@pytest.mark.parametrize(
    "setting", [{"EVERSTREAM_HOST": "0.0.0.0"}, {"EVERSTREAM_HOSTS": "a.example"}, {"EVERSTREAM_PROXIES": "1"}]
)
def test_service_for_others_needs_keys(own_stack, setting):
    stack = own_stack(EVERSTREAM_ACCESS="auto", **setting)
    stack.start_valkey()
    web = stack._start("web", [sys.executable, "-m", "everstream.cli", "web"])
    wait_for(lambda: web.popen.poll() is not None, what="the refusal")
    assert web.popen.returncode != 0
    assert "everstream keys add" in web.output and "Traceback" not in web.output
    run_keys(stack, "add", "first")
    stack.start_web()
    assert requests.get(f"{stack.url}/models", timeout=TIMEOUT_S).status_code == 401


def test_supervisor_refuses_it_too_and_keys_can_be_made_first(own_stack, tmp_path):
    stack = own_stack(EVERSTREAM_ACCESS="auto", EVERSTREAM_HOST="0.0.0.0")
    command = [sys.executable, "-m", "everstream.cli", "run"]
    refused = subprocess.run(
        command, cwd=PROJECT_ROOT, env=stack.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 1 and "everstream keys add" in refused.stderr + refused.stdout
    assert run_keys(stack, "add", "first").startswith("es-")
    assert "first" in run_keys(stack, "list")
