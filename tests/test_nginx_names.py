"""nginx asks for the web part's address again and again: a container that is made anew has another one."""

import pytest
import requests

from tests.name_server import name_server
from tests.shipped_nginx import RESOLVE_SINCE, version
from tests.stack import wait_for
from tests.test_nginx import telling_headers


def test_a_web_part_at_a_new_address_is_found(proxied, tmp_path):
    if version() < RESOLVE_SINCE:
        pytest.skip("nginx is older than 1.27.3 and resolves an upstream's name only once: set NGINX_EXECUTABLE")
    with name_server("127.0.0.2") as names, telling_headers(("127.0.0.3", proxied.port)):
        changes = {"resolver 127.0.0.11 valid=5s;": f"resolver 127.0.0.1:{names.port} valid=1s;"}
        with proxied.another_nginx(tmp_path, upstream=f"web:{proxied.port} resolve", changes=changes) as nginx:
            assert ask(nginx).status_code == 502
            names.address = "127.0.0.1"
            wait_for(lambda: ask(nginx).ok, what="the web part at its first address")
            names.address = "127.0.0.3"
            wait_for(lambda: ask(nginx).json().get("path") == "/healthz", what="the other one at its address")
            names.address = None
            wait_for(lambda: "web could not be resolved" in nginx.nginx_logs(), what="a word for the operator")


def ask(nginx):
    return requests.get(f"{nginx.url}/healthz", timeout=30)
