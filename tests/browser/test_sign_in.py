"""The page of a service that needs keys, and what a page of another site can do to it: in real browsers."""

import functools
import http.server
import threading
import uuid
from contextlib import closing, contextmanager
from urllib.parse import urlencode

import pytest
import valkey
from playwright.sync_api import expect

from harness.callers import Caller, keys
from harness.stack import running_stack
from tests.browser.chat_page import ChatPage


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("sign-in"), EVERSTREAM_ACCESS="keys") as stack:
        yield stack


@pytest.fixture
def name():
    """A new key's."""
    return f"key-{uuid.uuid4().hex}"


@pytest.fixture
def key(guarded, name):
    return keys(guarded, "add", name)


@pytest.fixture
def chat(browser_page, guarded):
    # A browser keeps a Secure cookie for this name, without TLS.
    return ChatPage(browser_page, guarded.url.replace("127.0.0.1", "localhost"))


def sign_in(chat, key):
    chat.page.get_by_label("API key").fill(key)
    chat.button("Sign in").click()


@pytest.mark.both_browsers
def test_page_asks_for_a_key_and_keeps_a_session(chat, key, artifacts):
    chat.open()
    expect(chat.page.get_by_role("dialog")).to_be_visible()
    chat.page.keyboard.press("Escape")
    sign_in(chat, "es-wrong")
    expect(chat.page.get_by_role("alert")).to_contain_text("not an API key of this service")
    chat.page.screenshot(path=artifacts / "sign-in.png")
    sign_in(chat, key)
    chat.expect_status("Ready")
    chat.send(texts=["a", "b"])
    chat.wait_for_answer("ab")
    chat.page.reload()
    chat.expect_status("Done")
    assert "es-" not in chat.page.evaluate("JSON.stringify([document.cookie, {...localStorage}])")
    chat.button("Settings").click()
    expect(chat.page.locator("#session")).to_contain_text("Signed in with the key")
    chat.button("Sign out").click()
    expect(chat.page.get_by_label("API key")).to_be_visible()


def test_answer_goes_on_in_the_next_session(chat, guarded, name, key, gate):
    chat.open()
    sign_in(chat, key)
    chat.expect_status("Ready")
    chat.send(texts=["a", "b", "c"], hold_before=2, gate=gate.path)
    chat.wait_for_answer("a")
    renewed = keys(guarded, "rotate", name)
    # The session was the old secret's.
    chat.wait_for(lambda: Caller(guarded, key).call("GET", "/models").status_code == 401, what="the end of the old key")
    chat.page.evaluate("window.dispatchEvent(new Event('offline'))")
    chat.page.reload()
    # The page may load once more, if it learns only later that its session has ended.
    sign_in(chat, renewed)
    gate.open()
    chat.wait_for_answer("abc")


def test_dashboard_needs_a_key_for_operators(chat, guarded, name, key):
    chat.open("/dashboard")
    sign_in(chat, key)
    expect(chat.page.get_by_role("alert")).to_contain_text("scope admin")
    sign_in(chat, keys(guarded, "add", f"{name}-admin", "--scopes", "admin"))
    expect(chat.page.locator("#link")).to_contain_text("Live")


ATTACKS = """<!doctype html><meta charset="utf-8"><iframe name="hole"></iframe><script>
const service = location.hash.slice(1);
const BODY = '{"texts":["stolen"]}';
window.done = [];
const end = (name) => () => done.push(name);
const make = (tag, given) => document.body.appendChild(Object.assign(document.createElement(tag), given));
const post = (given) => fetch(`${service}/generations`, { method: 'POST', credentials: 'include', ...given });
const stream = `${service}/stream?texts=stolen`;

for (const enctype of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) {
  const form = make('form', { method: 'POST', enctype, target: 'hole', action: `${service}/generations` });
  form.append(Object.assign(document.createElement('input'), { name: '{"texts":["stolen"],"x":"', value: '"}' }));
  form.submit();
}
post({ mode: 'no-cors', body: BODY }).then(end('text'), end('text'));
post({ mode: 'no-cors', body: new Blob([BODY]) }).then(end('blob'), end('blob'));
post({ headers: { 'Content-Type': 'application/json' }, body: BODY }).then(end('json'), end('json'));
for (const tag of ['img', 'script', 'iframe']) make(tag, { onload: end(tag), onerror: end(tag), src: stream });
const source = new EventSource(stream, { withCredentials: true });
source.onerror = () => { source.close(); end('eventsource')(); };
fetch(`${service}/models`, { credentials: 'include' }).then(end('was read'), end('unreadable'));
</script>"""


@contextmanager
def site(folder, page):
    """Another site, with this page. Yields its address."""
    (folder / "index.html").write_text(page)
    handler = functools.partial(QuietHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def evil(tmp_path):
    """The address of a page of another site that attacks the service in its hash."""
    with site(tmp_path, ATTACKS) as url:
        yield f"{url}/index.html"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("attacked", ["guarded", "fast"])
def test_page_of_another_site_starts_and_reads_nothing(chat, key, evil, attacked, request):
    """Even in the browser of someone who is signed in, and whether the service has keys or not."""
    stack, page = request.getfixturevalue(attacked), chat.page
    chat.open()
    sign_in(chat, key)
    chat.expect_status("Ready")
    with closing(valkey.Valkey.from_url(stack.settings.log_url)) as client:
        before = set(client.scan_iter("*gen:*"))
        page.goto(f"{evil}#{stack.url.replace('127.0.0.1', 'localhost')}")
        wanted = {"text", "blob", "json", "img", "script", "iframe", "eventsource", "unreadable"}
        chat.wait_for(lambda: set(page.evaluate("done")) >= wanted, what="the end of all attacks")
        assert set(client.scan_iter("*gen:*")) <= before
        assert "was read" not in page.evaluate("done")


GUEST = """<!doctype html><meta charset="utf-8"><script type="module">
const { service, key, ticket } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
window.found = {};
const { createClient } = await import(`${service}/static/client/everstream.js`);
const client = createClient({ baseUrl: `${service}/`, headers: { Authorization: `Bearer ${key}` } });
client.start('{"texts":["a","b"]}').result().then(({ text }) => text, String).then((text) => { found.client = text; });
const source = new EventSource(`${service}${ticket}&texts=c&texts=d&pause_ms=100`);
found.source = '';
source.onmessage = ({ data }) => { found.source += JSON.parse(data).text; };
source.addEventListener('done', () => { source.close(); found.source += '.'; });
</script>"""


def test_page_of_a_listed_origin_streams(browser_page, own_stack, tmp_path):
    """With our library and a key, or with a plain EventSource and a ticket, which sends no header and no cookie."""
    with site(tmp_path, GUEST) as origin:
        stack = own_stack(EVERSTREAM_ACCESS="keys", EVERSTREAM_CORS_ORIGINS=origin).start()
        caller = Caller(stack, keys(stack, "add", "backend"))
        ticket = caller.call("POST", "/tickets", json={"access": "start"}).json()["url"]
        given = {"service": stack.url.replace("127.0.0.1", "localhost"), "key": caller.key, "ticket": ticket}
        browser_page.goto(f"{origin}/index.html#{urlencode(given)}")
        page = ChatPage(browser_page, origin)
        page.wait_for(lambda: page.page.evaluate("window.found && found.client && found.source.endsWith('.')"))
        assert page.page.evaluate("found") == {"client": "ab", "source": "cd."}
