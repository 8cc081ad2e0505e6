"""Whatever people, models and services say is text on the page: nothing of it runs."""

import json

import pytest
from playwright.sync_api import expect

from tests.browser.chat_page import ChatPage

PAYLOADS = [
    "<script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    "<svg onload='window.attacked = 1'>",
    "[click](javascript:window.attacked=1)",
    "<a href='javascript:window.attacked=1'>click</a>",
    '![x](x" onerror="window.attacked = 1)',
    "```<img src=x onerror=window.attacked=1>\ncode\n```",
    "$\\href{javascript:window.attacked=1}{x}$",
    "\"><iframe srcdoc='<script>parent.attacked = 1</script>'>",
]


@pytest.fixture
def violations(page):
    """What the security policy refused: an attempt would be one, even if it failed."""
    refused = []
    page.on(
        "console", lambda message: refused.append(message.text) if "Content Security Policy" in message.text else None
    )
    return refused


def assert_inert(page, violations):
    assert page.evaluate("window.attacked") is None
    assert page.locator("#thread :is(script, iframe, object, embed, [onerror], [onload])").count() == 0
    assert not page.evaluate("[...document.links].some((link) => link.protocol === 'javascript:')")
    assert violations == []


def test_in_questions_titles_and_answers(page, fast, violations):
    chat = ChatPage(page, fast.url).open()
    chat.send(texts=[f"{payload}\n\n" for payload in PAYLOADS])
    chat.expect_status("Done")
    if not page.locator("#sidebar").is_visible():
        chat.button("Conversations").click()
    assert_inert(page, violations)
    page.reload()
    chat.expect_status("Done")
    assert_inert(page, violations)


def test_in_errors(page, fast, violations):
    chat = ChatPage(page, fast.url).open()
    chat.ask(json.dumps({"texts": PAYLOADS, "<img src=x onerror='window.attacked = 1'>": 1, "repeat": "x"}))
    expect(chat.status).to_contain_text("Failed")
    assert_inert(page, violations)


@pytest.fixture
def markup(own_stack, tmp_path):
    """A model whose inputs, examples and outputs are markup."""
    payload = PAYLOADS[1]
    (tmp_path / "model").mkdir()
    schema = {payload: {"datatype": "STRING", "required": True, "shape": [1], "example": [payload]}}
    (tmp_path / "model" / "input_schema.py").write_text(f"INPUT_SCHEMA = {schema!r}\n")
    app = f"class InferlessPythonModel:\n    def infer(self, inputs):\n        return {{{payload!r}: {payload!r}}}\n"
    (tmp_path / "model" / "app.py").write_text(app)
    return own_stack(app_dir=tmp_path / "model", WEB_CONCURRENCY="1").start()


def test_in_forms_and_outputs(page, markup, violations):
    chat = ChatPage(page, markup.url).open()
    expect(page.locator("#fields label")).to_have_text(PAYLOADS[1])
    chat.button("Send").click()
    chat.expect_status("Done")
    expect(chat.replies.last.locator(".outputs")).to_contain_text("onerror")
    assert_inert(page, violations)


def test_in_the_address(page, fast, violations):
    for address in (
        "/#g=<img src=x onerror=alert(1)>",
        "/#c='\"><script>1</script>",
        "/?q=<script>window.attacked=1</script>",
    ):
        ChatPage(page, fast.url).open(address).expect_status("Ready")
        assert_inert(page, violations)
