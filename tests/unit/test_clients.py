"""A client's key is its address as reported by trusted proxies; the client can't choose it."""

import pytest
from flask import Flask

from everstream.web.clients import client_key, network, trust_proxies


def client_key_of(proxies, *forwarded, peer="10.0.0.1"):
    app = Flask(__name__)
    app.add_url_rule("/", view_func=client_key)
    trust_proxies(app, proxies)
    headers = [("X-Forwarded-For", each) for each in forwarded]
    return app.test_client().get("/", headers=headers, environ_base={"REMOTE_ADDR": peer}).text


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, (), "10.0.0.1"),
        (0, ("6.6.6.6",), "10.0.0.1"),
        (1, (), "10.0.0.1"),
        (1, ("1.2.3.4",), "1.2.3.4"),
        (1, ("6.6.6.6, 1.2.3.4",), "1.2.3.4"),
        (1, ("6.6.6.6", "1.2.3.4"), "1.2.3.4"),
        (1, ("2001:db8:1:2:3:4:5:6",), "2001:db8:1:2::/64"),
        (2, ("6.6.6.6, 1.2.3.4, 10.0.0.2",), "1.2.3.4"),
        (2, ("10.0.0.2",), "10.0.0.1"),
    ],
)
def test_client_key_comes_from_trusted_proxies(proxies, forwarded, expected):
    assert client_key_of(proxies, *forwarded) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::1", "::/64"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::9", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix:" + "x" * 1000, "unix:" + "x" * 95),
    ],
)
def test_network_of_an_address(address, expected):
    assert network(address) == expected
