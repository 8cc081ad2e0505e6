"""Browsers behind a link that goes dead: packets vanish, and nobody is told."""

import pytest
from playwright.sync_api import expect

from harness.browsers import running_browsers
from harness.stack import wait_for
from tests.browser.chat_page import ChatPage

LISTEN = """
    query => {
        window.seen = [];
        window.source = new EventSource('/stream?' + query);
        source.addEventListener('message', event => {
            window.generation = event.lastEventId.split('.')[0];
            seen.push(JSON.parse(event.data).text);
        });
        source.addEventListener('done', () => { source.close(); seen.push('done'); });
    }
"""


@pytest.fixture(scope="module")
def browsers(link):
    """Those of this module run inside the namespace."""
    with running_browsers(link) as browsers:
        yield browsers


@pytest.fixture
def stack(own_stack, link):
    # So rare that what the server sends meanwhile is events.
    return own_stack(EVERSTREAM_HOST=link.address, EVERSTREAM_HEARTBEAT_S="30").start()


def test_what_the_link_swallowed_arrives_later(browser_page, stack, link, gate):
    chat = ChatPage(browser_page, stack.url).open()
    browser_page.evaluate(LISTEN, f"texts=a&texts=b&texts=c&hold_before=2&gate={gate.path}")
    chat.wait_for(lambda: browser_page.evaluate("seen.length === 1"))
    generation = browser_page.evaluate("generation")
    with link.dropped():
        gate.open()
        wait_for(lambda: stack.show(generation)["state"] == "done")
        wait_for(lambda: link.lost() > 0, what="events sent in vain")
        assert browser_page.evaluate("[seen, source.readyState === EventSource.OPEN]") == [["a"], True]
    chat.wait_for(lambda: browser_page.evaluate("seen.includes('done')"))
    assert browser_page.evaluate("seen") == ["a", "b", "c", "done"]


@pytest.mark.both_browsers
def test_page_notices_within_two_heartbeats(browser_page, own_stack, link, gate):
    """EventSource itself takes minutes."""
    stack = own_stack(EVERSTREAM_HOST=link.address).start()
    chat = ChatPage(browser_page, stack.url).open()
    chat.send(texts=["a", "b"], hold_before=2, gate=gate.path)
    chat.wait_for_answer("a")
    with link.dropped():
        expect(chat.status).to_have_text("Connection lost (nothing was received for 2 s), reconnecting")
        gate.open()
    chat.expect_status("Done")
    assert chat.answer == "ab"
