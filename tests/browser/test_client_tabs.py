"""everstream-client in several tabs of one browser: one connection for all, and what happens without it."""

from contextlib import suppress

import pytest
from playwright.sync_api import Error

from harness.hostile_server import GENERATION, HostileServer, stream
from harness.shipped_nginx import nginx_executable
from harness.stack import wait_for
from tests.browser.client_page import (
    MODULE,
    assert_whole,
    begin,
    error,
    events,
    open_client,
    wait_for_text,
    wait_in,
)
from tests.browser.test_client_faults import DONE, OPEN, A, B

HELD = {"texts": ["a", "b"], "hold_before": 2}
LOCAL = {"isShared": False}
HIDE = """isHidden => {
    Object.defineProperty(document, 'hidden', { get: () => isHidden, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.fixture
def tabs(chromium):
    """Makes tabs of one browser, which share its connections."""
    context = chromium.new_context()
    raised = []

    def make(url=None, **options):
        page = context.new_page()
        page.on("pageerror", lambda error: raised.append(error))
        return open_client(page, url, **options) if url else page

    make.context = context
    yield make
    context.close()
    assert raised == []


def start_held(page, gate):
    begin(page, "start", {**HELD, "gate": gate.path})
    wait_for_text(page, "a")
    return page


def test_eight_tabs_need_one_connection(tabs, fast, gate):
    """Over HTTP/1.1 a browser has six for a host."""
    pages = [start_held(tabs(fast.url), gate) for _ in range(8)]
    assert fast.streams() == 8
    ninth = tabs(fast.url)
    begin(ninth, "start", {"texts": ["x"]})
    assert_whole(ninth, "x")
    for page in pages[::2]:
        page.evaluate("() => last.answer.stop()")
        assert error(page)["code"] == "cancelled"
    # Each tab's requests take turns on the connections that are left.
    assert fast.streams() == 4
    gate.open()
    for page in pages[1::2]:
        assert_whole(page, "ab")


def shared_workers(browser):
    session = browser.new_browser_cdp_session()
    targets = session.send("Target.getTargets")["targetInfos"]
    return session, [each["targetId"] for each in targets if each["type"] == "shared_worker"]


def test_one_worker_holds_one_stream_for_all(tabs, chromium, own_stack, gate):
    stack = own_stack(WEB_CONCURRENCY="1").start()
    pages = [start_held(tabs(stack.url), gate) for _ in range(3)]
    assert len(shared_workers(chromium)[1]) == 1
    wait_for(lambda: stack.streams() == 3)
    pids = {data["worker"] for page in pages for data in events(page, "connected")}
    assert len(pids) == 1
    # Each tab that came made a new connection for all of them; counts arrive a second later.
    wait_for(lambda: stack.metric("streams_total") == 1 + 2 + 3)
    pages[0].evaluate("client.interrupt()")
    # Cut once, it comes back once, for all.
    for page in pages:
        wait_in(page, lambda page=page: len(events(page, "reconnecting")) == 1)
        wait_in(page, lambda page=page: len(events(page, "connected")) == 2)
    wait_for(lambda: stack.metric("streams_total") == 6 + 3)
    gate.open()
    for page in pages:
        assert_whole(page, "ab")


@pytest.mark.parametrize("how", ["close", "crash", "leave"])
def test_tab_that_goes_is_forgotten(tabs, fast, gate, how):
    stays, goes = (start_held(tabs(fast.url), gate) for _ in range(2))
    assert fast.streams() == 2
    if how == "close":
        goes.close()
    elif how == "leave":
        goes.goto("about:blank")
    else:
        with goes.expect_event("crash"), suppress(Error):
            goes.goto("chrome://crash")
    wait_for(lambda: fast.streams() == 1)
    gate.open()
    assert_whole(stays, "ab")


def test_tab_that_does_not_answer_is_dropped(tabs, fast, gate):
    """As one that the browser has frozen; and it may follow again."""
    generation = fast.submit(**HELD, gate=gate.path)
    page = tabs(fast.url)
    page.evaluate(
        """([module, baseUrl, generation]) => {
            window.heard = [];
            const { port } = new SharedWorker(module, { type: 'module', name: 'everstream-1' });
            port.onmessage = ({ data }) => heard.push(data.type);
            port.postMessage({ type: 'begin', settings: { baseUrl, credentials: 'same-origin' } });
            port.postMessage({ type: 'follow', key: 1, generation, after: -1 });
        }""",
        [MODULE, f"{fast.url}/", generation],
    )
    wait_for(lambda: fast.streams() == 1)
    wait_in(page, "heard.includes('dropped')")
    wait_for(lambda: fast.streams() == 0)


def test_killed_shared_worker_is_replaced(tabs, chromium, fast, gate):
    pages = [start_held(tabs(fast.url), gate) for _ in range(2)]
    session, (worker,) = shared_workers(chromium)
    session.send("Target.closeTarget", {"targetId": worker})
    for page in pages:
        wait_in(page, lambda page=page: len(events(page, "connected")) == 2)
    assert len(shared_workers(chromium)[1]) == 1
    gate.open()
    for page in pages:
        assert_whole(page, "ab")


def test_without_shared_workers(page, fast, gate):
    page.add_init_script("delete window.SharedWorker")
    open_client(page, fast.url)
    start_held(page, gate)
    gate.open()
    assert_whole(page, "ab")


@pytest.mark.parametrize("how", ["policy", "throws", "no module"])
def test_shared_worker_that_can_not_start(page, chromium, how):
    policy = "worker-src 'none'" if how == "policy" else ""
    if how == "throws":
        page.add_init_script("window.SharedWorker = function () { throw new DOMException('no', 'SecurityError'); }")
    options = {"workerUrl": "/static/client/absent.js"} if how == "no module" else {}
    with HostileServer(stream(OPEN, A, B, DONE), policy=policy) as server:
        open_client(page, server.url, **options)
        begin(page, "follow", GENERATION)
        assert_whole(page, "ab")
        assert len(server.paths()) == 1
        assert shared_workers(chromium)[1] == []


def test_module_from_a_blob_has_its_own_connection(page, fast, chromium):
    page.goto(f"{fast.url}/healthz")
    found = page.evaluate(
        """async module => {
            const text = await (await fetch(module)).text();
            const url = URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
            const { start } = await import(url);
            return (await start({ texts: ['a'] }).result()).text;
        }""",
        MODULE,
    )
    assert found == "a"
    assert shared_workers(chromium)[1] == []


# A page with a connection of its own.


@pytest.fixture
def short(own_stack):
    """Abandons what nobody has read for longer than between two looks of a page that rests."""
    return own_stack(EVERSTREAM_ABANDON_AFTER_S="25", WEB_CONCURRENCY="1").start()


def test_hidden_page_gives_its_connection_back(tabs, fast, gate):
    pages = [start_held(tabs(fast.url, hiddenAfterMs=100, **LOCAL), gate) for _ in range(6)]
    assert fast.streams() == 6
    for page in pages:
        page.evaluate(HIDE, True)
    wait_for(lambda: fast.streams() == 0)
    seventh = start_held(tabs(fast.url, **LOCAL), gate)
    pages[0].evaluate(HIDE, False)
    wait_for(lambda: fast.streams() == 2)
    seventh.evaluate("() => last.answer.stop()")
    pages[1].evaluate("() => last.answer.stop()")
    gate.open()
    assert_whole(pages[0], "ab")
    pages[2].evaluate(HIDE, False)
    assert_whole(pages[2], "ab")
    assert events(pages[2], "reconnecting") == []


def test_hidden_page_keeps_its_generation_and_notices_its_end(page, short, gate):
    open_client(page, short.url, hiddenAfterMs=100, **LOCAL)
    start_held(page, gate)
    page.evaluate(HIDE, True)
    wait_for(lambda: short.streams() == 0)
    looks = []
    page.on("response", lambda response: looks.append(response.status) if "limit=1" in response.url else None)
    # Without the first it would have been abandoned.
    wait_in(page, lambda: looks == [200, 200])
    assert short.show(page.evaluate("last.answer.id"))["state"] == "running"
    gate.open()
    assert_whole(page, "ab")


@pytest.mark.parametrize("options", [LOCAL, {}])
def test_page_that_is_left_and_comes_back(page, fast, gate, options):
    """As for the Back button: the browser keeps the page, without a connection."""
    open_client(page, fast.url, **options)
    start_held(page, gate)
    page.evaluate("() => { dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })); }")
    wait_for(lambda: fast.streams() == 0)
    gate.open()
    page.evaluate("() => { dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })); }")
    assert_whole(page, "ab")


def test_six_pages_in_view_leave_room_for_a_stop(tabs, fast, gate):
    pages = [start_held(tabs(fast.url, **LOCAL), gate) for _ in range(6)]
    pages[3].evaluate("() => last.answer.stop()")
    assert error(pages[3])["code"] == "cancelled"
    gate.open()
    for page in [*pages[:3], *pages[4:]]:
        assert_whole(page, "ab")


# Addresses.


@pytest.fixture
def under_a_path(fast, tmp_path):
    """The service behind nginx, under /ai."""
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    directive = "client_body_timeout 15s;"
    changes = {directive: directive + r" rewrite ^/ai/(.*)$ /$1 last;"}
    with fast.another_nginx(tmp_path, changes=changes) as twin:
        yield twin


@pytest.mark.parametrize("options", [{}, LOCAL, {"transport": "fetch"}])
def test_base_path(page, under_a_path, options):
    paths = []
    page.on("request", lambda request: paths.append(request.url.removeprefix(under_a_path.url)))
    open_client(page, under_a_path.url, base="/ai", **options)
    begin(page, "start", {"texts": ["a"]})
    assert_whole(page, "a")
    page.evaluate("() => last.answer.stop()")
    ours = [path for path in paths if "static" not in path and "docs" not in path and "favicon" not in path]
    assert ours and all(path.startswith("/ai/") for path in ours), paths
