"""The page in real browsers: tokens appear as they arrive, once, and the status is true whatever happens."""

import json

import pytest
import requests
from playwright.sync_api import expect

from harness.cutting_proxy import CuttingProxy
from harness.stack import MODELS, wait_for
from tests.browser.chat_page import ChatPage
from tests.stack.test_wire import NASTY

SCRIPT = {"texts": ["a", "b", "c"], "hold_before": 3}


@pytest.fixture
def chat(browser_page, fast):
    return ChatPage(browser_page, fast.url)


@pytest.fixture
def proxied_chat(browser_page, fast):
    """The page behind a proxy with faults."""
    with CuttingProxy(fast.port) as proxy:
        yield ChatPage(browser_page, proxy.url), proxy


@pytest.mark.both_browsers
def test_tokens_are_shown_as_they_arrive(chat, gate, artifacts):
    chat.open().expect_status("Ready")
    chat.send(texts=["The ", "sky"], hold_before=2, gate=gate.path)
    chat.wait_for_answer("The")
    chat.expect_status("Streaming")
    expect(chat.button("Stop")).to_be_visible()
    expect(chat.button("Send")).to_be_hidden()
    expect(chat.replies.last).to_have_attribute("aria-busy", "true")
    chat.page.screenshot(path=artifacts / "page-streaming.png")
    gate.open()
    chat.expect_status("Done")
    chat.expect_figures("2 tokens")
    expect(chat.button("Stop")).to_be_hidden()
    assert chat.answer == "The sky"


@pytest.mark.both_browsers
def test_nasty_text_is_kept_exactly(chat):
    chat.open().send(texts=NASTY)
    chat.expect_status("Done")
    chat.wait_for(lambda: chat.source() == "".join(NASTY))


@pytest.mark.both_browsers
def test_reload_goes_on(chat, fast, gate):
    chat.open().send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    generation = chat.generation()
    chat.page.reload()
    chat.wait_for_answer("ab")
    chat.expect_status("Streaming")
    gate.open()
    chat.expect_status("Done")
    assert chat.answer == "abc"
    assert chat.generation() == generation
    chat.page.reload()
    chat.expect_status("Done")
    assert chat.turns()[1] == "abc"


def test_reload_before_the_question_was_answered(proxied_chat, fast):
    """The question was kept before it was sent, and is sent again with the same request id."""
    chat, proxy = proxied_chat
    chat.open().expect_status("Ready")
    before = fast.metric("generations_started_total")
    proxy.mode = "cut"
    chat.send(texts=["once"])
    wait_for(lambda: fast.metric("generations_started_total") == before + 1)
    chat.expect_status("Connection lost, reconnecting")
    proxy.mode = "pass"
    chat.page.reload()
    chat.expect_status("Done")
    assert chat.answer == "once"
    assert fast.metric("generations_started_total") == before + 1


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop(chat, fast, gate, how):
    chat.open().send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    if how == "button":
        chat.button("Stop").click()
    else:
        chat.page.keyboard.press("Escape")
    chat.expect_status("Stopped")
    assert fast.show(chat.generation())["state"] == "cancelled"
    chat.send(texts=["next"])
    chat.wait_for_answer("next")


@pytest.mark.both_browsers
def test_stop_is_repeated_until_it_is_acknowledged(proxied_chat, fast, gate):
    """Also by a page that was loaded again meanwhile."""
    chat, proxy = proxied_chat
    chat.open().send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    generation = chat.generation()
    proxy.mode = "refuse"
    chat.button("Stop").click()
    chat.expect_status("Stopping…")
    assert fast.show(generation)["state"] == "running"
    proxy.mode = "pass"
    chat.page.reload()
    chat.expect_status("Stopped")
    assert fast.show(generation)["state"] == "cancelled"
    assert chat.page.evaluate("localStorage.getItem('everstream.stops')") == "[]"


def test_stop_before_the_question_was_answered(proxied_chat, fast, gate):
    chat, proxy = proxied_chat
    chat.open().expect_status("Ready")
    proxy.mode = "freeze"
    chat.send(**SCRIPT, gate=gate.path)
    chat.expect_status("Sending…")
    chat.button("Stop").click()
    chat.expect_status("Stopping…")
    proxy.mode = "pass"
    chat.expect_status("Stopped")
    assert fast.show(chat.generation())["state"] == "cancelled"


def test_failure_is_shown(chat):
    chat.open().send(texts=["a"], raise_before=1)
    expect(chat.status).to_contain_text("Failed: the model raised ValueError: told to raise")
    expect(chat.replies.last.locator(".note")).to_contain_text("Failed: the model raised ValueError")


def test_refused_question_is_shown(chat):
    chat.open().ask("x" * 200_001)
    chat.expect_status("Failed: prompt has 200001 characters; at most 200000 are allowed")


def test_turns_are_kept_apart(chat):
    chat.open()
    for text in ("first", "second"):
        chat.send(texts=[text])
        chat.wait_for_answer(text)
        chat.expect_status("Done")
    assert [turn for turn in chat.turns() if turn in ("first", "second")] == ["first", "second"]


# Each state, reached for real.


def test_model_that_is_loading(browser_page, own_stack):
    stack = own_stack()
    stack.start_valkey()
    stack.start_web()
    chat = ChatPage(browser_page, stack.url).open()
    chat.expect_status("Loading the model…")
    chat.expect_figures("no engine process is reporting")
    chat.send(texts=["a"])
    chat.wait_for(lambda: chat.replies.count() == 1)
    chat.expect_status("Loading the model…")
    stack.start_engine()
    chat.expect_status("Done")


def test_place_in_the_queue(browser_page, own_stack, gate, artifacts):
    stack = own_stack(EVERSTREAM_MAX_RUNNING="1").start()
    first = stack.submit(texts=["a"], hold_before=1, gate=gate.path)
    wait_for(lambda: stack.show(first)["state"] == "running")
    stack.submit(texts=["b"])
    chat = ChatPage(browser_page, stack.url).open()
    chat.send(texts=["c"])
    chat.expect_status("Queued: 2 of 2")
    chat.page.screenshot(path=artifacts / "page-queued.png")
    gate.open()
    chat.expect_status("Done")


def test_full_queue_is_waited_for(browser_page, own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_RUNNING="1", EVERSTREAM_MAX_QUEUED="1").start()
    running = stack.submit(texts=["a"], hold_before=1, gate=gate.path)
    wait_for(lambda: stack.show(running)["state"] == "running")
    stack.submit(texts=["b"])
    chat = ChatPage(browser_page, stack.url).open()
    chat.send(texts=["c"])
    chat.expect_status("Waiting, because 1 requests are already waiting; try again later")
    chat.expect_figures("attempt")
    gate.open()
    chat.expect_status("Done")
    assert chat.answer == "c"


def test_thinking_and_waiting_for_a_token(chat, gate):
    chat.open().send(texts=["a"], hold_before=1, gate=gate.path)
    chat.expect_status("Thinking…")
    gate.open()
    chat.expect_status("Done")


def test_quiet_model(chat, gate):
    chat.open().send(**SCRIPT, gate=gate.path)
    chat.expect_status("Waiting for the next token")
    gate.open()
    chat.expect_status("Done")


def test_reload_of_a_quiet_answer(chat, gate):
    """It has begun, so the model does not think any more."""
    chat.open().send(**SCRIPT, gate=gate.path)
    chat.expect_status("Waiting for the next token")
    chat.page.reload()
    chat.expect_status("Waiting for the next token")
    gate.open()
    chat.expect_status("Done")


def test_idle_page_notices_that_the_engine_is_gone(page, own_stack):
    stack = own_stack().start()
    chat = ChatPage(page, stack.url).open()
    chat.expect_status("Ready")
    stack.engines[0].kill()
    chat.expect_status("Loading the model…")
    stack.start_engine()
    chat.expect_status("Ready")


@pytest.mark.both_browsers
def test_engine_killed_in_mid_answer(browser_page, own_stack, gate):
    stack = own_stack().start()
    chat = ChatPage(browser_page, stack.url).open()
    chat.send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    stack.engines[0].kill()
    chat.expect_status("The engine is restarting; the answer will go on from here")
    gate.open()
    stack.start_engine()
    chat.expect_status("Done")
    assert chat.answer == "abc"


@pytest.mark.both_browsers
def test_gunicorn_killed_in_mid_answer(browser_page, own_stack, gate):
    stack = own_stack().start()
    chat = ChatPage(browser_page, stack.url).open()
    chat.send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    stack.web.stop()
    chat.expect_status("Connection lost, reconnecting")
    chat.expect_figures("attempt")
    gate.open()
    stack.start_web()
    chat.expect_status("Done")
    assert chat.answer == "abc"


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (401, b"<html>who are you?</html>", "Sign in again: the server answered 401"),
        (403, b"<html>no</html>", "Sign in again: the server answered 403"),
        (502, b"<html>bad gateway</html>", "Waiting, because the response, 502 with text/html, is not Everstream's"),
        (200, b"<html>hotel network</html>", "Reconnecting: the response, 200 with text/html, is not Everstream's"),
        (
            503,
            json.dumps({"error": {"code": "too_many_streams", "message": "no slot is free", "param": None}}).encode(),
            "Waiting, because no slot is free",
        ),
    ],
)
def test_what_a_proxy_answers_is_told_apart(proxied_chat, gate, status, body, shown):
    chat, proxy = proxied_chat
    chat.open().send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    kind = "application/json" if body.startswith(b"{") else "text/html"
    # One for the stream, and one for the look at why it is closed.
    for _ in range(2):
        proxy.answer(status, body, content_type=kind)
    proxy.cut_now()
    chat.expect_status(shown)
    gate.open()
    chat.expect_status("Done")
    assert chat.answer == "abc"


@pytest.mark.both_browsers
def test_frozen_connection_is_noticed(proxied_chat, gate):
    chat, proxy = proxied_chat
    chat.open().send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    proxy.mode = "freeze"
    expect(chat.status).to_contain_text("Connection lost (nothing was received for 2 s), reconnecting")
    gate.open()
    proxy.mode = "pass"
    chat.expect_status("Done")
    assert chat.answer == "abc"


def test_offline(page, fast, gate):
    """Only Chromium can be told that it is."""
    with CuttingProxy(fast.port) as proxy:
        chat = ChatPage(page, proxy.url).open()
        chat.send(**SCRIPT, gate=gate.path)
        chat.wait_for_answer("ab")
        page.context.set_offline(True)
        proxy.mode = "refuse"
        chat.expect_status("Offline: the answer goes on when the network is back")
        gate.open()
        proxy.mode = "pass"
        page.context.set_offline(False)
        chat.expect_status("Done")
        assert chat.answer == "abc"


@pytest.fixture
def echo(browser_page, own_stack):
    """A chat model that takes messages, and is abandoned soon."""
    stack = own_stack(app_dir=MODELS / "chat", EVERSTREAM_ABANDON_AFTER_S="1").start()
    with CuttingProxy(stack.port) as proxy:
        yield ChatPage(browser_page, proxy.url), proxy, stack


def test_continue_after_being_away(echo, gate):
    chat, proxy, stack = echo
    script = {"outputs": [{"text": "one "}, {"text": "two"}], "hold_before": 2, "gate": gate.path}
    chat.open().ask(json.dumps(script))
    chat.wait_for_answer("one")
    proxy.mode = "refuse"
    wait_for(lambda: stack.metric("generations_cancelled_total") == 1)
    proxy.mode = "pass"
    chat.expect_status("Stopped: nobody was reading")
    chat.button("Continue").click()
    chat.expect_status("Done")
    # This model echoes the last message, which is what it said before.
    chat.wait_for(lambda: chat.source() == "one one")


# Several tabs and devices.


def test_eight_tabs_stream_and_stop(browser_page, fast, gate):
    """Over HTTP/1.1 a browser has six connections per host."""
    tabs = [ChatPage(browser_page.context.new_page(), fast.url) for _ in range(8)]
    for tab in tabs:
        tab.open().send(**SCRIPT, gate=gate.path)
        tab.wait_for_answer("ab")
    for tab in tabs[:4]:
        tab.button("Stop").click()
        tab.expect_status("Stopped")
    gate.open()
    for tab in tabs[4:]:
        tab.expect_status("Done")
        assert tab.answer == "abc"


@pytest.mark.both_browsers
def test_shared_address_follows_live(browser_page, browsers, fast, gate):
    chat = ChatPage(browser_page, fast.url).open()
    chat.send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    other = browser_page.context.browser.new_context()
    try:
        second = ChatPage(other.new_page(), fast.url).open(f"/#g={chat.generation()}")
        second.wait_for_answer("ab")
        second.expect_status("Streaming")
        # It is not the reader's to stop.
        expect(second.button("Stop")).to_be_hidden()
        second.page.keyboard.press("Escape")
        gate.open()
        second.expect_status("Done")
        assert second.answer == "abc"
        # A question there begins a conversation of its own.
        second.send(texts=["mine"])
        second.wait_for_answer("mine")
        assert len(second.turns()) == 2
    finally:
        other.close()


def test_unknown_shared_address(chat):
    chat.open(f"/#g={'0' * 32}")
    expect(chat.status).to_contain_text("Failed:")
    expect(chat.status).to_contain_text("expired")


# A browser that keeps nothing.

DENIED = """
    Object.defineProperty(window, 'indexedDB', { get() { throw new DOMException('denied', 'SecurityError'); } });
    Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied', 'SecurityError'); } });
    delete window.SharedWorker;
"""


@pytest.mark.both_browsers
def test_denied_storage_is_said_and_harmless(browser_page, fast, gate):
    browser_page.add_init_script(DENIED)
    chat = ChatPage(browser_page, fast.url).open()
    chat.send(**SCRIPT, gate=gate.path)
    chat.wait_for_answer("ab")
    gate.open()
    chat.expect_status("Done")
    if not chat.page.locator("#sidebar").is_visible():
        chat.button("Conversations").click()
    expect(chat.page.locator("#unkept")).to_be_visible()


def test_page_has_a_strict_security_policy(fast):
    answer = requests.get(fast.url, timeout=30)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
