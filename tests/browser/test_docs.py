"""The page that describes the API, in Chromium without JavaScript."""

import pytest


@pytest.fixture
def plain_page(chromium):
    """A page without JavaScript. Whatever the browser refuses to load fails the test."""
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 1000, "height": 800})
    page, refused = context.new_page(), []
    page.on("console", lambda message: refused.append(message.text))
    page.on("requestfailed", lambda request: refused.append(request.url))
    yield page
    context.close()
    assert refused == []


def test_operations_open_and_types_are_linked(fast, plain_page, artifacts):
    plain_page.goto(f"{fast.url}/docs")
    operation = plain_page.locator("details", has_text="Start a generation and follow it")
    body = operation.get_by_role("row", name="hold_before")
    assert not body.is_visible()
    operation.locator("summary").click()
    assert "integer" in body.inner_text()
    plain_page.screenshot(path=artifacts / "docs.png")
    operation.locator("a[href='#type-native.ErrorBody']").first.click()
    assert plain_page.url.endswith("/docs#type-native.ErrorBody")
    heading = plain_page.locator("[id='type-native.ErrorBody']")
    assert 0 <= heading.bounding_box()["y"] < 800


def test_page_fits_a_phone(fast, plain_page):
    plain_page.set_viewport_size({"width": 360, "height": 700})
    plain_page.goto(f"{fast.url}/docs")
    for summary in plain_page.locator("summary").all()[:9]:
        summary.click()
    assert plain_page.locator("#docs").bounding_box()["width"] <= 360
    widest = max(table.bounding_box()["width"] for table in plain_page.locator("table:visible").all())
    assert widest <= 360
