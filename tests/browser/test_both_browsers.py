"""The page in Chromium and in Firefox, and what the fixtures promise about the browsers."""

import signal
import subprocess
import sys

import psutil
import pytest
from playwright.sync_api import expect

from everstream.settings import PROJECT_ROOT
from harness.browsers import fresh_page, obstacle
from tests.browser.test_page import (
    NASTY,
    answer,
    generation_of,
    open_page,
    send,
    state,
    wait_for_answer,
    wait_for_in_page,
)

LISTEN = """
    query => {
        window.seen = [];
        window.source = new EventSource('/stream?' + query);
        source.addEventListener('message', event => seen.push(['message', JSON.parse(event.data).text]));
        window.finished = new Promise((resolve) => source.addEventListener('done', () => {
            source.close();
            resolve([...seen, ['done']]);
        }));
    }
"""
HOLD_A_PAGE = """
import sys
from harness.browsers import fresh_page, running_browsers
with running_browsers() as browsers, browsers.launched(sys.argv[1]) as browser, fresh_page(browser) as page:
    page.goto("data:text/html,<p>open")
    print(page.text_content("p"), flush=True)
    page.wait_for_timeout(600_000)
"""


def test_tokens_are_shown_as_they_arrive(browser_page, fast, gate, artifacts):
    open_page(browser_page, fast)
    expect(state(browser_page)).to_have_text("Ready")
    send(browser_page, texts=["The ", "sky"], hold_before=2, gate=gate.path)
    wait_for_answer(browser_page, "The ")
    expect(state(browser_page)).to_have_text("Streaming")
    image = artifacts / f"page-{browser_page.context.browser.browser_type.name}.png"
    browser_page.screenshot(path=image)
    gate.open()
    expect(state(browser_page)).to_have_text("Done, 2 tokens")
    assert answer(browser_page) == "The sky"


def test_nasty_text_survives_exactly(browser_page, fast):
    open_page(browser_page, fast)
    send(browser_page, texts=NASTY)
    expect(state(browser_page)).to_have_text(f"Done, {len(NASTY)} tokens")
    assert answer(browser_page) == "".join(NASTY)


def test_reload_mid_answer_resumes(browser_page, fast, gate):
    open_page(browser_page, fast)
    send(browser_page, texts=["a", "b", "c"], hold_before=3, gate=gate.path)
    wait_for_answer(browser_page, "ab")
    generation = generation_of(browser_page)
    browser_page.reload()
    wait_for_answer(browser_page, "ab")
    gate.open()
    expect(state(browser_page)).to_have_text("Done, 3 tokens")
    assert (answer(browser_page), generation_of(browser_page)) == ("abc", generation)


def test_tabs_have_answers_of_their_own(browser_page, fast):
    tabs = [browser_page, browser_page.context.new_page()]
    for text, tab in zip("ab", tabs, strict=True):
        open_page(tab, fast)
        send(tab, texts=[text])
    for text, tab in zip("ab", tabs, strict=True):
        expect(state(tab)).to_have_text("Done, 1 token")
        assert answer(tab) == text


def test_naive_eventsource_resumes_after_a_killed_gunicorn(browser_page, own_stack, gate):
    stack = own_stack().start()
    open_page(browser_page, stack)
    browser_page.evaluate(LISTEN, f"texts=a&texts=b&hold_before=2&gate={gate.path}")
    wait_for_in_page(browser_page, lambda: browser_page.evaluate("seen.length === 1"))
    stack.web.stop()
    wait_for_in_page(browser_page, lambda: browser_page.evaluate("source.readyState === EventSource.CONNECTING"))
    gate.open()
    stack.start_web()
    assert browser_page.evaluate("finished") == [["message", "a"], ["message", "b"], ["done"]]


def test_errors_in_any_tab_are_raised(browser_page):
    with pytest.raises(AssertionError, match="seen"), fresh_page(browser_page.context.browser) as page:
        tab = page.context.new_page()
        with page.context.expect_event("weberror"):
            tab.evaluate("void setTimeout(() => { throw new Error('seen'); })")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_browsers_end_with_the_process_that_launched_them(name, number):
    if reason := obstacle(name):
        pytest.skip(reason)
    command = [sys.executable, "-c", HOLD_A_PAGE, name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=pipe, stderr=pipe, start_new_session=True) as holder:
        assert holder.stdout.readline() == b"open\n"
        family = psutil.Process(holder.pid).children(recursive=True)
        holder.send_signal(number)
        assert psutil.wait_procs(family, timeout=60)[1] == []
