"""The limits in deploy/ must match those of the application and gunicorn, which are in other files."""

import re

from everstream.settings import MAX_HEARTBEAT_S, PROJECT_ROOT, Settings
from harness.shipped_nginx import DEPLOY

SHIPPED = {path.name: path.read_text() for path in DEPLOY.glob("*.conf")}


def number(name, text=""):
    """The directive's only value, converted to seconds or bytes if it has a unit."""
    (found,) = re.findall(rf"^\s*{name} (\d+)([sm]?);", text or "".join(SHIPPED.values()), re.MULTILINE)
    return int(found[0]) * {"": 1, "s": 1, "m": 1 << 20}[found[1]]


def test_nginx_timeout_allows_two_of_the_longest_heartbeats():
    shared, _, locations = SHIPPED["everstream-locations.conf"].partition("location ")
    assert number("proxy_read_timeout", shared) >= 2 * MAX_HEARTBEAT_S
    # Of answers in one piece, which have no heartbeats.
    assert number("proxy_read_timeout", locations) == 3600


def test_nginx_waits_for_answers_in_one_piece():
    locations = SHIPPED["everstream-locations.conf"]
    (pattern,) = re.findall(r"location ~ (\S+) \{[^}]*proxy_read_timeout", locations)
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v2/models/a/b/infer"):
        assert re.search(pattern, path), path
    for path in ("/v1/models", "/v1/messages/count_tokens", "/v2/models/a", "/generations"):
        assert not re.search(pattern, path), path


def test_nginx_closes_idle_connections_before_gunicorn_does():
    keepalive = re.search(r"^keepalive = (\d+)$", (PROJECT_ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)
    upstream = re.search(r"upstream everstream \{.*?\n    \}", SHIPPED["nginx.conf"], re.DOTALL)[0]
    # Some seconds apart, because neither closes idle connections exactly on time.
    assert number("keepalive_timeout", upstream) + 5 <= int(keepalive[1])


def test_eventsource_reconnects_after_nginx_retries_the_web_process():
    (fail_timeout,) = re.findall(r"server web:8000 .*fail_timeout=(\d+)s;", SHIPPED["nginx.conf"])
    (again_ms,) = re.findall(
        r"location = /everstream-again \{.*?retry: (\d+)", SHIPPED["everstream-locations.conf"], re.DOTALL
    )
    assert int(fail_timeout) * 1000 <= int(again_ms)


def test_nginx_and_application_have_the_same_body_limit():
    most = Settings().max_body_bytes
    assert number("client_max_body_size") == most
    assert SHIPPED["nginx.conf"].count(f"{most} bytes") == 2


def test_nginx_has_enough_open_files_for_its_connections():
    assert number("worker_rlimit_nofile") >= 2 * number("worker_connections")


def test_every_file_is_mounted():
    mounts = "".join(
        path.read_text() for path in (PROJECT_ROOT / "docker-compose.yml", DEPLOY / "docker-compose.tls.yml")
    )
    for name in SHIPPED:
        assert f"./deploy/{name}:/etc/nginx/" in mounts
