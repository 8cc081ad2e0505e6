"""nginx's TLS server: HTTP/2, and with it more streams from one browser than HTTP/1.1 allows."""

import socket
import ssl

import psutil
import requests

from tests.stack import wait_for
from tests.test_page import wait_for_in_page

STREAMS = 8
"""Over HTTP/1.1 a browser opens six connections to a host."""


def test_http2_and_modern_tls_are_offered(proxied):
    context = ssl.create_default_context(cafile=proxied.folder / "fullchain.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", proxied.tls_port), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        assert (secured.selected_alpn_protocol(), secured.version()) == ("h2", "TLSv1.3")


def test_errors_and_what_is_for_operators_are_as_over_plain_http(proxied):
    for path, status in (("/metrics", 404), ("/readyz", 404), ("/v1/models", 200), ("/static/main.js", 200)):
        answer = requests.get(proxied.tls_url + path, timeout=30, verify=proxied.folder / "fullchain.pem")
        assert answer.status_code == status
    # As a browser does that was given http:// with this port.
    answer = requests.get(f"http://127.0.0.1:{proxied.tls_port}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


LISTEN = """([count, gate]) => {
    window.seen = Array.from({ length: count }, () => []);
    seen.forEach(events => {
        const source = new EventSource(`/stream?texts=a&texts=b&hold_before=2&gate=${gate}`);
        for (const type of ['message', 'done', 'failed', 'cancelled'])
            source.addEventListener(type, event => {
                events.push([type, Number(event.lastEventId.split('.')[1])]);
                if (type === 'done') source.close();
            });
    });
}"""


def test_eight_streams_of_one_browser_survive_killed_workers(chromium, proxied, gate):
    context = chromium.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(proxied.tls_url)
    assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    page.evaluate(LISTEN, [STREAMS, gate.path])
    # All at once: none ends before the gate is open.
    wait_for_in_page(page, lambda: page.evaluate("seen.every(events => events.length === 1)"))
    for pid in proxied.workers():
        psutil.Process(pid).kill()
    wait_for(lambda: requests.get(f"http://127.0.0.1:{proxied.port}/healthz", timeout=5).ok, what="new workers")
    gate.open()
    wait_for_in_page(page, lambda: page.evaluate("seen.every(events => events.at(-1)[0] !== 'message')"))
    assert page.evaluate("seen") == [[["message", 1], ["message", 2], ["done", 3]]] * STREAMS
    context.close()
