"""Drives everstream-client in a page: what tests of it share."""

import time

MODULE = "/static/client/everstream.js"
TRANSPORTS = {
    "fetch": {"transport": "fetch"},
    "eventsource": {"transport": "eventsource", "isShared": False},
    "shared": {},
}
DRIVER = """
async ([module, options]) => {
    const everstream = await import(module);
    window.everstream = everstream;
    window.client = everstream.createClient(options);
    window.begin = (method, given, own = {}) => {
        const events = [];
        const settled = {};
        const answer = client[method](given, { ...own, onEvent: (event) => events.push(event) });
        const say = ({ name, code, message, param, status }) => ({ name, code, message, param, status });
        answer.result().then((result) => { settled.result = result; }, (error) => { settled.error = say(error); });
        window.last = { answer, events, settled };
        return last;
    };
}
"""
WAIT_S = 60


def open_client(page, url, *, base="", **options):
    """Go to a page of the service whose content policy is the strictest, and make a client there."""
    page.goto(f"{url}{base}/docs")
    page.evaluate(DRIVER, [f"{base}{MODULE}", options])
    return page


def begin(page, method, given, **own):
    page.evaluate("([method, given, own]) => { begin(method, given, own); }", [method, given, own])


def wait_in(page, condition, what="the condition"):
    """Poll, and let the browser work meanwhile. `condition`: a function, or an expression in the page."""
    check = (lambda: page.evaluate(condition)) if isinstance(condition, str) else condition
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := check():
            return found
        page.wait_for_timeout(20)
    raise AssertionError(f"timed out waiting for {what}: {condition}")


def text(page):
    return page.evaluate("last.answer.text")


def wait_for_text(page, expected):
    wait_in(page, lambda: text(page) == expected, what=f"the text {expected!r}")


def result(page):
    """The result, once it is there."""
    wait_in(page, "last.answer.isOver && (last.settled.result || last.settled.error)")
    settled = page.evaluate("last.settled")
    assert "error" not in settled, settled["error"]
    return settled["result"]


def error(page):
    wait_in(page, "last.settled.error || last.settled.result")
    settled = page.evaluate("last.settled")
    assert "result" not in settled, settled
    return settled["error"]


def events(page, *types):
    """The data of the events of these types."""
    return page.evaluate(
        "types => last.events.filter(({ type }) => types.includes(type)).map(({ data }) => data)", list(types)
    )


def numbers(page):
    return page.evaluate("last.events.map(({ n }) => n).filter((n) => n !== null)")


def assert_whole(page, expected):
    """The text, and each entry of the log once and in order."""
    assert result(page)["text"] == expected
    found = numbers(page)
    assert found == list(range(found[0], found[0] + len(found))), found
