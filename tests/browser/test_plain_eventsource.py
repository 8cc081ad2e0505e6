"""Pages without our library: an EventSource, and nothing else."""

import json

import pytest

from tests.browser.chat_page import ChatPage


@pytest.fixture
def naive(browser_page, fast):
    """A page that opens an EventSource and never closes it."""
    chat = ChatPage(browser_page, fast.url).open()

    def listen(query):
        chat.page.evaluate(
            """query => {
                window.seen = [];
                window.source = new EventSource('/stream?' + query);
                for (const type of ['message', 'done', 'failed', 'cancelled'])
                    source.addEventListener(type, event => seen.push([type, event.lastEventId, event.data]));
            }""",
            query,
        )
        return chat

    return listen


def test_naive_eventsource_stops_after_the_end(naive):
    chat = naive("texts=a&texts=b")
    chat.wait_for(lambda: chat.page.evaluate("source.readyState === EventSource.CLOSED"))
    assert [row[0] for row in chat.page.evaluate("seen")] == ["message", "message", "done"]


@pytest.mark.both_browsers
def test_naive_eventsource_survives_a_killed_gunicorn(browser_page, own_stack, gate):
    stack = own_stack().start()
    chat = ChatPage(browser_page, stack.url).open()
    chat.page.evaluate(
        """gate => {
            window.seen = [];
            window.source = new EventSource(`/stream?texts=a&texts=b&hold_before=2&gate=${gate}`);
            for (const type of ['message', 'done'])
                source.addEventListener(type, event => seen.push(Number(event.lastEventId.split('.')[1])));
        }""",
        gate.path,
    )
    chat.wait_for(lambda: chat.page.evaluate("seen.length === 1"))
    stack.web.stop()
    chat.wait_for(lambda: chat.page.evaluate("source.readyState === EventSource.CONNECTING"))
    gate.open()
    stack.start_web()
    chat.wait_for(lambda: chat.page.evaluate("source.readyState === EventSource.CLOSED"))
    assert chat.page.evaluate("seen") == [1, 2, 3]


@pytest.mark.both_browsers
def test_text_as_it_is(browser_page, own_stack, gate):
    """`event.data` is the text, also of an empty one, and of that after a reconnect."""
    texts = [" The\n", "", "\n\n", "sky\u2028\x0b", "\r\nis\r", "  blue ", "👩‍👩‍👧‍👦\ufeff"]
    stack = own_stack().start()
    chat = ChatPage(browser_page, stack.url).open()
    script = {"texts": texts, "hold_before": 5, "gate": gate.path}
    chat.page.evaluate(
        """prompt => {
            window.seen = [];
            window.source = new EventSource('/stream?format=text&prompt=' + encodeURIComponent(prompt));
            source.onmessage = event => seen.push([event.data, event.lastEventId.split('.')[1]]);
        }""",
        json.dumps(script),
    )
    chat.wait_for(lambda: chat.page.evaluate("seen.length === 4"))
    stack.web.stop()
    chat.wait_for(lambda: chat.page.evaluate("source.readyState === EventSource.CONNECTING"))
    gate.open()
    stack.start_web()
    chat.wait_for(lambda: chat.page.evaluate("source.readyState === EventSource.CLOSED"))
    shown = [*texts[:4], "\nis\n", *texts[5:]]
    assert chat.page.evaluate("seen") == [[text, str(n)] for n, text in enumerate(shown, 1)]
