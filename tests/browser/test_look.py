"""What every state of the page has to be: accessible, readable at any width, and inert whatever a model says."""

import os

import pytest
from playwright.sync_api import expect

from harness.accessibility import violations
from harness.stack import Process, free_port, listening, nginx_executable, wait_for
from tests.browser.chat_page import ChatPage

SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
RICH = """# Title

A *word*, `code` and [a link](https://example.com).

```python
print('x')
```

| a | b |
|---|---|
| 1 | 2 |
"""


def overflow(page):
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@SCHEMES
def test_axe_finds_nothing_in_any_state(page, fast, gate, scheme):
    page.emulate_media(color_scheme=scheme)
    chat = ChatPage(page, fast.url).open()
    chat.expect_status("Ready")
    assert violations(page) == []
    chat.send(texts=[RICH, "more"], hold_before=2, gate=gate.path)
    chat.expect_status("Streaming")
    chat.button("Stream health").click()
    if not page.locator("#sidebar").is_visible():
        chat.button("Conversations").click()
    assert violations(page) == []
    gate.open()
    chat.expect_status("Done")
    assert violations(page) == []
    chat.send(texts=["a"], raise_before=1)
    expect(chat.status).to_contain_text("Failed")
    assert violations(page) == []
    page.get_by_label("You", exact=True).last.hover()
    page.get_by_label("Edit and send again").last.click()
    assert violations(page) == []
    chat.button("Cancel").click()
    chat.button("Settings").click()
    assert violations(page) == []


@SCHEMES
def test_axe_finds_nothing_in_a_form(page, several, scheme):
    page.emulate_media(color_scheme=scheme)
    chat = ChatPage(page, several.url).open()
    page.get_by_label("Model").select_option("echo")
    chat.button("Send").click()
    chat.expect_status("Done")
    assert violations(page) == []


@pytest.mark.parametrize(("width", "height"), [(320, 256), (360, 640), (768, 1024), (1440, 900), (2560, 1440)])
def test_nothing_is_wider_than_the_window(page, fast, width, height):
    """320 by 256 is 1280 by 1024 at 400 %."""
    page.set_viewport_size({"width": width, "height": height})
    chat = ChatPage(page, fast.url).open()
    chat.send(texts=[RICH, "x" * 500, "\n\n```\n" + "y" * 500 + "\n```\n", "| a |\n|---|\n| " + "z" * 500 + " |\n"])
    chat.expect_status("Done")
    assert overflow(page) == 0
    chat.button("Stream health").click()
    assert overflow(page) == 0
    chat.button("Settings").click()
    assert overflow(page) == 0


def test_right_to_left_text_runs_from_the_right(page, fast):
    chat = ChatPage(page, fast.url).open()
    chat.send(texts=["שלום עולם"])
    chat.expect_status("Done")
    direction = "element => getComputedStyle(element.querySelector('p') ?? element).direction"
    assert chat.replies.last.locator(".answer").evaluate(direction) == "rtl"


def test_keyboard_alone(page, fast):
    chat = ChatPage(page, fast.url).open()
    chat.expect_status("Ready")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type('{"texts": ["typed"]}')
    page.keyboard.press("Enter")
    chat.wait_for_answer("typed")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.press("Control+Shift+O")
    expect(page.locator("#welcome")).to_be_visible()


def test_colours_can_be_chosen(page, fast):
    ChatPage(page, fast.url).open().expect_status("Ready")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.locator("#theme").click()
    assert page.evaluate(colour) == light
    page.locator("#theme").click()
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark


def test_reading_is_not_disturbed(page, fast, gate):
    """The page follows the newest text, but not once the reader has scrolled up."""
    chat = ChatPage(page, fast.url).open()
    paragraphs = ["Some words that make a line.\n\n"] * 100
    chat.send(texts=[*paragraphs, *paragraphs], hold_before=101, gate=gate.path)
    chat.wait_for(lambda: page.evaluate("document.documentElement.scrollHeight") > 2000)
    at_end = "document.documentElement.scrollHeight - innerHeight - scrollY < 5"
    chat.wait_for(lambda: page.evaluate(at_end))
    expect(chat.button("To the newest text")).to_be_hidden()
    page.mouse.move(400, 300)
    page.mouse.wheel(0, -20)
    chat.wait_for(lambda: not page.evaluate(at_end))
    top = page.evaluate("scrollY")
    gate.open()
    chat.expect_status("Done")
    assert page.evaluate("scrollY") == top
    chat.button("To the newest text").click()
    chat.wait_for(lambda: page.evaluate(at_end))
    expect(chat.button("To the newest text")).to_be_hidden()


def test_newest_text_stays_in_view_when_formulas_take_their_room(page, fast):
    chat = ChatPage(page, fast.url).open()
    paragraph = "Words that go on for a while, and then some more of them. " * 3
    chat.send(texts=[f"{paragraph}\n\n", "```python\nprint(1)\n```\n\n", "$$\n\\frac{a}{b}\n$$\n\n"], repeat=20)
    chat.expect_status("Done")
    expect(chat.replies.last.locator("math")).to_have_count(20)
    chat.wait_for(lambda: page.evaluate("document.documentElement.scrollHeight - innerHeight - scrollY < 5"))


def test_page_under_a_base_path(page, fast, tmp_path):
    """Nothing on it names a path from the root."""
    config = tmp_path / "nginx.conf"
    port = free_port()
    location = (
        f"location /ai/ {{ proxy_pass http://127.0.0.1:{fast.port}/; proxy_buffering off; proxy_http_version 1.1; }}"
    )
    server = f"server {{ listen 127.0.0.1:{port}; {location} }}"
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {paths} {server} }}"
    )
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    nginx = Process("nginx", [nginx_executable(), "-p", str(tmp_path), "-c", str(config)], dict(os.environ), tmp_path)
    try:
        wait_for(lambda: port in listening(nginx), what="nginx")
        chat = ChatPage(page, f"http://127.0.0.1:{port}").open("/ai/")
        chat.expect_status("Ready")
        chat.send(texts=["under ", "a path"])
        chat.expect_status("Done")
        assert chat.answer == "under a path"
    finally:
        nginx.stop()


def test_title_and_icon_show_progress(page, fast, gate):
    chat = ChatPage(page, fast.url).open()
    expect(page).to_have_title("Everstream")
    chat.send(texts=["a", "b"], hold_before=2, gate=gate.path)
    chat.wait_for_answer("a")
    chat.wait_for(lambda: page.title().startswith("… "))
    assert page.locator("link[rel=icon]").get_attribute("href").endswith("icon-busy.svg")
    gate.open()
    chat.expect_status("Done")
    chat.wait_for(lambda: not page.title().startswith("… "))
    assert page.locator("link[rel=icon]").get_attribute("href").endswith("icon.svg")


def test_answer_is_announced_by_sentences(page, fast, gate):
    chat = ChatPage(page, fast.url).open()
    texts = ["One ", "sentence. And ", "a ", "**second** one. The ", "rest"]
    chat.send(texts=texts, hold_before=5, gate=gate.path)
    said = page.locator("#announcer p")
    chat.wait_for(lambda: " ".join(said.all_inner_texts()) == "One sentence. And a second one.")
    gate.open()
    chat.wait_for(lambda: said.all_inner_texts()[-1] == "The rest")
