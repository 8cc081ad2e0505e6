"""The pages checked by axe-core, in both colour schemes."""

import pytest
from playwright.sync_api import expect

from harness.accessibility import violations
from tests.browser.test_page import open_page, send, state, wait_for_answer

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


@SCHEMES
def test_page(page, fast, gate, scheme):
    page.emulate_media(color_scheme=scheme)
    open_page(page, fast)
    expect(state(page)).to_have_text("Ready")
    assert violations(page) == []
    send(page, texts=["The ", "sky"], hold_before=2, gate=gate.path)
    wait_for_answer(page, "The ")
    assert violations(page) == []
    gate.open()
    expect(state(page)).to_have_text("Done, 2 tokens")
    assert violations(page) == []


@SCHEMES
def test_description_of_the_api(page, fast, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{fast.url}/docs")
    for summary in page.locator("summary").all()[:3]:
        summary.click()
    assert violations(page) == []


def test_violations_are_found(browser_page):
    browser_page.set_content("<!doctype html><html lang=en><title>A page</title><main><h1>A page</h1><input></main>")
    (violation,) = violations(browser_page)
    assert (violation.rule, violation.impact, violation.html) == ("label", "critical", "<input>")
    assert "implicit (wrapped) <label>" in violation.summary
