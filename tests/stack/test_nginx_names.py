"""nginx resolves the web part's name repeatedly, because a recreated container has a new address."""

import pytest
import requests

from harness.name_server import name_server
from harness.shipped_nginx import RESOLVE_SINCE, version
from harness.stack import wait_for
from tests.stack.test_nginx import header_echo_server


def test_web_part_is_found_at_its_new_address(proxied, tmp_path):
    if version() < RESOLVE_SINCE:
        pytest.skip("nginx is older than 1.27.3 and resolves an upstream's name only once: set NGINX_EXECUTABLE")
    with name_server("127.0.0.2") as names, header_echo_server(("127.0.0.3", proxied.port)):
        changes = {"resolver 127.0.0.11 valid=5s;": f"resolver 127.0.0.1:{names.port} valid=1s;"}
        with proxied.another_nginx(tmp_path, upstream=f"web:{proxied.port} resolve", changes=changes) as nginx:
            assert get_health(nginx).status_code == 502
            names.address = "127.0.0.1"
            wait_for(lambda: get_health(nginx).ok, what="the web part at its first address")
            names.address = "127.0.0.3"
            wait_for(lambda: get_health(nginx).json().get("path") == "/healthz", what="the other server at its address")
            names.address = None
            wait_for(lambda: "web could not be resolved" in nginx.nginx_logs(), what="a message for the operator")


def get_health(nginx):
    return requests.get(f"{nginx.url}/healthz", timeout=30)
