"""The JavaScript in the docs, as it is written there; only the prompt is one for the model of the tests."""

import re

import pytest

from everstream.settings import PROJECT_ROOT
from harness.browsers import fresh_page
from tests.browser.client_page import MODULE, wait_in

PROMPT = '{"texts": ["The ", "sky"]}'
ELEMENTS = """names => {
    for (const name of names) {
        window[name] = document.createElement('div');
        document.body.append(window[name]);
    }
}"""


def snippets(path, words):
    blocks = re.findall(r"^```js\n(.*?)^```$", (PROJECT_ROOT / path).read_text(), re.DOTALL | re.MULTILINE)
    return [block for block in blocks if words in block]


@pytest.fixture
def blank(page, fast):
    """A page of the service, with elements as the docs' snippets name them."""
    page.goto(f"{fast.url}/docs")
    page.evaluate(ELEMENTS, ["output", "copy", "state", "status", "stopButton"])
    return page


def run_module(page, fast, code, name="snippet.js"):
    """As a module of its own, which the page's content policy allows from the service alone."""
    code = re.sub("'Why is the sky blue\\?'", f"'{PROMPT}'", code).replace(", max_tokens: 200", "")
    code = code.replace("'everstream-client'", f"'{MODULE}'")
    page.route(f"{fast.url}/{name}", lambda route: route.fulfill(body=code, content_type="text/javascript"))
    page.add_script_tag(url=f"{fast.url}/{name}", type="module")


def shown(page, name="output"):
    return page.evaluate("name => window[name].textContent", name)


@pytest.mark.parametrize("path", ["README.md", "docs/api.md", "docs/client.md"])
def test_page_without_a_library(path, browser_page, fast):
    found = snippets(path, "new EventSource(")
    assert found
    for snippet in found:
        assert len(snippet.splitlines()) <= 10
        browser_page.goto(f"{fast.url}/docs")
        browser_page.evaluate(ELEMENTS, ["output"])
        browser_page.evaluate(f"prompt => {{ {snippet}; window.source = source; }}", PROMPT)
        wait_in(browser_page, "source.readyState === EventSource.CLOSED")
        assert shown(browser_page) == "The sky"


def test_client_in_twenty_lines(blank, fast):
    [snippet] = snippets("docs/client.md", "from '/static/client/everstream.js'")
    assert len(snippet.splitlines()) <= 22
    run_module(blank, fast, snippet)
    wait_in(blank, lambda: shown(blank, "copy") == "The sky")
    assert (shown(blank), shown(blank, "state")) == ("The sky", "connected")


def test_packages_readme(blank, fast):
    first, second, _ = snippets("static/client/README.md", "")
    run_module(blank, fast, first)
    wait_in(blank, lambda: shown(blank) == "The sky")
    run_module(blank, fast, f"import {{ start, follow }} from 'everstream-client';\n{second}", "second.js")
    wait_in(blank, lambda: shown(blank) == "The skyThe sky")


def test_client_in_firefox_without_options(firefox, fast):
    with fresh_page(firefox) as page:
        page.goto(f"{fast.url}/docs")
        page.evaluate(ELEMENTS, ["output", "copy", "state", "stopButton"])
        run_module(page, fast, snippets("docs/client.md", "from '/static/client/everstream.js'")[0])
        wait_in(page, lambda: shown(page, "copy") == "The sky")
