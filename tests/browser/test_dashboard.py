"""The dashboard in a real Chromium: true figures, a link that says how it is, and nothing that the policy refuses."""

import re

import pytest
from playwright.sync_api import expect

from harness.accessibility import violations
from harness.sse_client import connect, read_all
from harness.stack import wait_for

TEXTS = ["a"] * 60


@pytest.fixture
def strict_page(page):
    """Whatever the browser refuses to load or run fails the test. Lost connections don't."""
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    yield page
    assert [text for text in refused if "Content Security Policy" in text] == []


def tile(page, name):
    return page.locator(".tiles div", has=page.get_by_text(name, exact=True)).locator("dd")


def link(page):
    return page.get_by_role("status")


def test_figures_are_those_of_the_service(strict_page, fast, gate):
    page, generation = strict_page, fast.submit(texts=TEXTS, hold_before=2, gate=gate.path)
    page.goto(f"{fast.url}/dashboard")
    expect(link(page)).to_have_text("Live")
    expect(tile(page, "Running")).to_have_text("1")
    with connect(fast.events_url(generation)) as stream:
        stream.read(until=lambda seen: seen.events)
        expect(tile(page, "Open streams")).to_have_text("1")
        gate.open()
        stream.read()
    expect(tile(page, "Open streams")).to_have_text("0")
    tokens = page.get_by_role("row", name="Tokens").locator("td").last
    expect(tokens).to_have_text(f"{fast.metric('tokens_generated_total'):,}")
    expect(page.get_by_role("row", name="engine0")).to_contain_text("ready")


def test_charts_have_tables_for_those_who_cant_see_them(strict_page, fast):
    page = strict_page
    page.goto(f"{fast.url}/dashboard")
    read_all(fast.events_url(fast.submit(texts=TEXTS)))
    chart = page.get_by_role("img", name="Time to first token: now p50")
    expect(chart).to_be_attached()
    wait_for(lambda: chart.locator("path").first.get_attribute("d"))
    figure = page.locator("figure", has=chart)
    figure.get_by_text("As a table").click()
    table = figure.get_by_role("table", name="Time to first token")
    expect(table.locator("thead")).to_have_text("Timep50p90p99")
    expect(table.locator("tbody tr").first).to_contain_text("ms")


def test_lost_valkey_and_lost_web_part_are_said_and_healed(page, own_stack):
    stack = own_stack().start()
    page.goto(f"{stack.url}/dashboard")
    expect(link(page)).to_have_text("Live")
    stack.valkey.kill()
    expect(link(page)).to_contain_text("Valkey does not answer. The figures below are old.")
    stack.start_valkey()
    expect(link(page)).to_have_text("Live")
    stack.web.stop()
    expect(link(page)).to_contain_text("reconnecting")
    stack.start_web()
    expect(link(page)).to_have_text("Live")


def test_page_that_is_not_admitted_says_so(page, own_stack):
    stack = own_stack(EVERSTREAM_MAX_STREAMS="1", WEB_CONCURRENCY="1").start()
    with connect(f"{stack.url}/dashboard/events") as viewer:
        viewer.read(until=lambda seen: seen.events)
        page.goto(f"{stack.url}/dashboard")
        expect(link(page)).to_contain_text("Not admitted")


@pytest.mark.parametrize("width", [390, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(strict_page, fast, artifacts, scheme, width):
    page = strict_page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{fast.url}/dashboard")
    read_all(fast.events_url(fast.submit(texts=TEXTS, pause_ms=20)))
    expect(link(page)).to_have_text("Live")
    expect(tile(page, "Tokens per second")).to_have_text(re.compile("[0-9]"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []
    page.screenshot(path=artifacts / f"dashboard-{scheme}-{width}.png", full_page=True)
