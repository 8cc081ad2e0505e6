"""nginx's TLS server: HTTP/2, which allows more streams from one browser than HTTP/1.1."""

import signal
import socket
import ssl

import psutil
import pytest
import requests

from harness.stack import Stack, wait_for
from tests.browser.client_page import wait_in

STREAMS = 50
"""Over HTTP/1.1 a browser opens at most six connections to a host."""


def test_http2_and_modern_tls_are_offered(proxied):
    context = ssl.create_default_context(cafile=proxied.folder / "fullchain.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", proxied.tls_port), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        assert (secured.selected_alpn_protocol(), secured.version()) == ("h2", "TLSv1.3")


def test_errors_and_operator_routes_are_as_over_plain_http(proxied):
    for path, status in (("/metrics", 404), ("/readyz", 404), ("/v1/models", 200), ("/static/page/main.js", 200)):
        answer = requests.get(proxied.tls_url + path, timeout=30, verify=proxied.folder / "fullchain.pem")
        assert answer.status_code == status
    # As a browser does if given an http:// URL with this port.
    answer = requests.get(f"http://127.0.0.1:{proxied.tls_port}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


BEGIN = """async ([url, count]) => {
    const begin = async () => (await (await fetch(url)).body.getReader().read()).value;
    const begun = await Promise.all(Array.from({ length: count }, begin));
    return begun.map(bytes => new TextDecoder().decode(bytes));
}"""


def test_each_stream_of_a_connection_counts_towards_the_limit(chromium, proxied, gate, tmp_path):
    """Otherwise one HTTP/2 connection could hold hundreds of a web process's streams."""
    generation = proxied.submit(texts=["a"], hold_before=1, gate=gate.path)
    with proxied.another_nginx(tmp_path, tls=True, changes={"connections 500;": "connections 3;"}) as limited:
        page = over_http2(chromium, limited)
        begun = page.evaluate(BEGIN, [f"/generations/{generation}/events", 5])
        assert sorted(text.partition("\n")[0] for text in begun) == [": everstream"] * 3 + ["retry: 5000"] * 2
        page.context.close()
    gate.open()


READ = """url => {
    window.seen = 'nothing';
    const read = async () => {
        const reader = (await fetch(url)).body.getReader();
        while (!(await reader.read()).done) window.seen = 'events';
    };
    read().then(() => { window.seen = 'the end'; }, () => { window.seen = 'a cut'; });
}"""


def test_killed_worker_is_a_cut_not_an_end(chromium, proxied, gate):
    page = over_http2(chromium, proxied)
    page.evaluate(READ, f"/stream?texts=a&hold_before=1&gate={gate.path}")
    wait_in(page, "seen === 'events'")
    for pid in proxied.workers():
        psutil.Process(pid).kill()
    wait_in(page, "seen !== 'events'")
    assert page.evaluate("seen") == "a cut"
    page.context.close()
    gate.open()


def over_http2(chromium, stack):
    """A page from this stack that runs none of our scripts."""
    page = chromium.new_context(ignore_https_errors=True).new_page()
    page.goto(f"{stack.tls_url}/healthz")
    assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    return page


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


def reload_nginx(stack):
    old = stack.nginx.children()
    stack.nginx.kill(signal.SIGHUP)
    # Those that still have streams stay.
    wait_for(lambda: set(stack.nginx.children()) - set(old), what="new workers of nginx")


def tls_connections(stack):
    workers = [each for worker in stack.nginx.children() for each in worker.net_connections("tcp")]
    return [each for each in workers if each.status == "ESTABLISHED" and each.laddr.port == stack.tls_port]


@pytest.mark.parametrize("disturb", [Stack.kill_workers, reload_nginx])
def test_fifty_streams_over_one_connection_survive(chromium, proxied, gate, disturb):
    context = chromium.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(proxied.tls_url)
    assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    page.evaluate(LISTEN, [STREAMS, gate.path])
    # All are open at once, as none ends before the gate opens.
    wait_in(page, "seen.every(events => events.length === 1)")
    assert len(tls_connections(proxied)) == 1
    disturb(proxied)
    gate.open()
    wait_in(page, "seen.every(events => events.at(-1)[0] !== 'message')")
    assert page.evaluate("seen") == [[["message", 1], ["message", 2], ["done", 3]]] * STREAMS
    context.close()
