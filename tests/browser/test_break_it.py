"""The menu of faults: whatever it breaks, the answer is whole."""

import pytest
from playwright.sync_api import expect

from harness.stack import Supervised
from tests.browser.chat_page import ChatPage

TEXTS = [f"{n} " for n in range(60)]
WHOLE = "".join(TEXTS)


def begin(page, url):
    """An answer that takes a while, and the panel."""
    chat = ChatPage(page, url).open()
    chat.send(texts=TEXTS, pause_ms=100)
    chat.wait_for(lambda: chat.answer.startswith("0 1"))
    chat.button("Stream health").click()
    return chat


def figure(chat, name):
    return chat.page.locator("#health div").filter(has_text=name).locator("dd")


def assert_whole(chat):
    chat.expect_status("Done")
    chat.wait_for(lambda: chat.source() == WHOLE)


@pytest.mark.both_browsers
def test_cut(browser_page, fast, artifacts):
    chat = begin(browser_page, fast.url)
    chat.button("Cut the connection").click()
    expect(figure(chat, "Reconnects")).to_have_text("1")
    chat.page.screenshot(path=artifacts / f"page-health-{browser_page.context.browser.browser_type.name}.png")
    assert_whole(chat)


def test_offline(page, fast):
    chat = begin(page, fast.url)
    chat.button("Go offline for 5 s").click()
    expect(chat.status).to_contain_text("Connection lost (the connection was cut on purpose), reconnecting")
    assert_whole(chat)
    expect(figure(chat, "Caught up")).not_to_have_text("0")


def test_another_worker(page, fast):
    chat = begin(page, fast.url)
    before = figure(chat, "Worker").inner_text()
    chat.button("Move to another worker").click()
    expect(chat.page.locator("#health .report")).to_contain_text(f"Moved from worker {before} to")
    assert_whole(chat)


def test_no_kills_unless_it_is_a_demo(page, fast):
    chat = ChatPage(page, fast.url).open()
    chat.button("Stream health").click()
    expect(chat.button("Cut the connection")).to_be_visible()
    expect(chat.button("Kill the engine (really)")).to_have_count(0)


@pytest.fixture
def demo(tmp_path):
    stack = Supervised(tmp_path, EVERSTREAM_DEMO="1")
    try:
        yield stack.launch()
    finally:
        stack.stop()


def test_real_kills(page, demo):
    chat = begin(page, demo.url)
    chat.button("Kill a worker (really)").click()
    expect(chat.page.locator("#health .report")).to_have_text("Killed a worker")
    chat.button("Kill the engine (really)").click()
    expect(chat.page.locator("#health .report")).to_have_text("Killed the engine")
    assert_whole(chat)
    expect(figure(chat, "Engine restarts")).to_have_text("1")
