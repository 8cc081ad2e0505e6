"""Browsers behind a link that goes dead: packets vanish, and nobody is told."""

import pytest

from harness.browsers import running_browsers
from harness.stack import wait_for
from tests.browser.test_page import open_page, wait_for_in_page

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
    open_page(browser_page, stack)
    browser_page.evaluate(LISTEN, f"texts=a&texts=b&texts=c&hold_before=2&gate={gate.path}")
    wait_for_in_page(browser_page, lambda: browser_page.evaluate("seen.length === 1"))
    generation = browser_page.evaluate("generation")
    with link.dropped():
        gate.open()
        wait_for(lambda: stack.show(generation)["state"] == "done")
        wait_for(lambda: link.lost() > 0, what="events sent in vain")
        assert browser_page.evaluate("[seen, source.readyState === EventSource.OPEN]") == [["a"], True]
    wait_for_in_page(browser_page, lambda: browser_page.evaluate("seen.includes('done')"))
    assert browser_page.evaluate("seen") == ["a", "b", "c", "done"]
