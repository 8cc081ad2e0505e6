"""What deploy/ says has to fit what the application and gunicorn say: the numbers stand in different files."""

import re

from everstream.settings import MAX_HEARTBEAT_S, REPO_ROOT, load_settings
from everstream.starting import MAX_BODY_BYTES
from tests.shipped_nginx import DEPLOY

SHIPPED = {path.name: path.read_text() for path in DEPLOY.glob("*.conf")}


def number(name, text=""):
    """The only one that this directive has, in seconds or bytes where it has a unit."""
    (found,) = re.findall(rf"^\s*{name} (\d+)([sm]?);", text or "".join(SHIPPED.values()), re.MULTILINE)
    return int(found[0]) * {"": 1, "s": 1, "m": 1 << 20}[found[1]]


def test_the_longest_heartbeat_comes_twice_before_nginx_cuts_a_silent_stream():
    assert number("proxy_read_timeout") >= 2 * MAX_HEARTBEAT_S


def test_nginx_closes_idle_connections_before_gunicorn_does():
    gunicorns = re.search(r"^keepalive = (\d+)$", (REPO_ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)
    upstream = re.search(r"upstream everstream \{.*?\n    \}", SHIPPED["nginx.conf"], re.DOTALL)[0]
    # Some seconds apart, as both look at their clocks at their leisure.
    assert number("keepalive_timeout", upstream) + 5 <= int(gunicorns[1])


def test_an_eventsource_that_comes_back_finds_a_web_process_that_is_back():
    (fail_timeout,) = re.findall(r"server web:8000 .*fail_timeout=(\d+)s;", SHIPPED["nginx.conf"])
    (again_ms,) = re.findall(r"@again \{.*?retry: (\d+)", SHIPPED["everstream-locations.conf"], re.DOTALL)
    assert int(fail_timeout) * 1000 <= int(again_ms)


def test_nginx_takes_bodies_as_large_as_the_application_does():
    assert number("client_max_body_size") == MAX_BODY_BYTES


def test_each_connection_can_have_its_file():
    assert number("worker_rlimit_nofile") >= 2 * number("worker_connections")


def test_every_file_is_mounted():
    mounts = "".join(path.read_text() for path in (REPO_ROOT / "docker-compose.yml", DEPLOY / "docker-compose.tls.yml"))
    for name in SHIPPED:
        assert f"./deploy/{name}:/etc/nginx/" in mounts


def test_every_setting_in_the_compose_file_is_one():
    """A process that meets an unknown one does not start."""
    given = re.findall(r"^ +(EVERSTREAM_[A-Z_]+): (\S+)$", (REPO_ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    settings = load_settings(dict(given))
    # nginx passes one address on, and no more.
    assert settings.proxies == 1
    assert SHIPPED["everstream-locations.conf"].count("X-Forwarded-For $remote_addr;") == 1
