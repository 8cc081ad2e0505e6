"""The pages checked by axe-core, in both colour schemes."""

import pytest

from harness.accessibility import violations

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


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
