"""The page's Markdown view in a real Chromium, under the page's security policy."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from everstream.settings import PROJECT_ROOT
from tests.browser.xss_corpus import FLAG, MATHS, VECTORS

CORPUS = json.loads((PROJECT_ROOT / "tests" / "node" / "corpus.json").read_text())
RICH = (Path(__file__).parent / "rich_answer.md").read_text()
RECORD = """
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
        violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
    });
"""
PREPARE = """async () => {
    const { createMarkdownView } = await import('/static/markdown.js');
    const style = document.createElement('link');
    style.rel = 'stylesheet';
    style.href = '/static/markdown.css';
    const loaded = new Promise((resolve) => { style.onload = resolve; });
    document.head.append(style);
    await loaded;
    const page = document.createElement('main');
    document.body.replaceChildren(page);
    window.newView = () => {
        window.answer = document.createElement('section');
        page.replaceChildren(answer);
        window.view = createMarkdownView(answer);
    };
    window.show = async (text, cuts = []) => {
        newView();
        for (const cut of cuts) view.update(text.slice(0, cut));
        view.update(text);
        await view.finish();
        return answer;
    };
    // For what is shown soon, but not at once.
    window.seen = async (text) => {
        for (let frames = 0; !answer.textContent.includes(text); frames += 1) {
            if (frames > 1000) throw new Error(`not shown: ${text}`);
            await new Promise(requestAnimationFrame);
        }
    };
    window.every = (text, size) => Array.from({ length: Math.ceil(text.length / size) }, (_, at) => at * size).slice(1);
    newView();
}"""


@pytest.fixture
def shown(page, fast):
    """A page with an empty view. Whatever the policy refuses, and each request to elsewhere, fails the test."""
    elsewhere = []
    page.on("request", lambda request: None if request.url.startswith(fast.url) else elsewhere.append(request.url))
    page.add_init_script(RECORD + FLAG)
    # Only the page's styles are wanted, not what it does.
    page.route("**/page/main.js", lambda route: route.fulfill(content_type="text/javascript", body=""))
    page.goto(fast.url)
    page.evaluate(PREPARE)
    yield page
    assert page.evaluate("[violations, hits]") == [[], []]
    assert elsewhere == []


def show(page, text, cuts=()):
    page.evaluate("([text, cuts]) => show(text, cuts).then(() => {})", [text, list(cuts)])
    return page.locator(".markdown")


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_final_nodes_are_those_of_the_whole_for_every_cut(shown, text):
    different = shown.evaluate(
        """async text => {
            await show(text);
            const whole = (await show(text)).cloneNode(true);
            const isSame = async (cuts) => (await show(text, cuts)).isEqualNode(whole);
            const different = (await isSame(every(text, 1))) ? [] : ['each character'];
            for (const cut of every(text, 1)) if (!(await isSame([cut]))) different.push(cut);
            return different;
        }""",
        text,
    )
    assert different == []


BIG = {
    "paragraph": "word and *more* of [it](https://example.org) in `a line`. " * 400,
    "letters": "x" * 30_000,
    "code": "```python\n" + "def f(x):\n    return 'text'\n\n" * 1000 + "```\nafter\n",
    "table": "| a | b |\n|---|---|\n" + "| [late] | **2** |\n" * 450 + "\n[late]: https://example.org\n",
    "list": "3. item with [late]\n" * 450 + "\n   loose\n\n[late]: https://example.org\n",
    "item": "- all\n" + "  - nested item with some *words*\n" * 700 + "- next\n",
    "quote": "> quoted words with *emphasis*\n" * 700,
    "blocks": "## Title\n\nText.\n\n" * 200,
}


@pytest.mark.parametrize("text", BIG.values(), ids=BIG)
def test_final_nodes_of_big_parts_are_those_of_the_whole(shown, text):
    assert shown.evaluate(
        """async text => {
            const whole = (await show(text)).cloneNode(true);
            return (await show(text, every(text, 997))).isEqualNode(whole);
        }""",
        text,
    )


def test_finished_nodes_are_left_alone(shown):
    """They are in the place of the one before the last when first seen, and never changed or replaced from then on."""
    changed = shown.evaluate(
        """async text => {
            await show('$x$');
            newView();
            const finished = new Set();
            const changed = [];
            const observer = new MutationObserver((records) => changed.push(...records));
            const look = () => {
                changed.push(...observer.takeRecords());
                for (const node of answer.querySelectorAll('.section > *, li, tr, .piece')) {
                    const isLast = !node.nextElementSibling || !node.nextElementSibling.nextElementSibling;
                    if (isLast || node.matches('li li') || finished.has(node)) continue;
                    finished.add(node);
                    observer.observe(node, { subtree: true, childList: true, characterData: true, attributes: true });
                }
            };
            for (const cut of every(text, 1)) {
                view.update(text.slice(0, cut));
                look();
            }
            await view.finish();
            look();
            const isGone = (node) => !answer.contains(node);
            return [finished.size, changed.length, Array.from(finished).filter(isGone).length];
        }""",
        RICH + "\n\n" + "- item\n" * 10 + "\nend\n\n| a |\n|---|\n" + "| row |\n" * 10 + "\nend\n\nend\n",
    )
    assert changed[0] > 30
    assert changed[1:] == [0, 0]


def test_late_definition_changes_only_what_refers_to_it(shown):
    found = shown.evaluate(
        """async () => {
            const text = 'See [it] and more.\\n\\nOther.\\n\\n- [it]\\n- x\\n\\n| [it] |\\n|---|\\n| [it] cell |\\n\\n';
            view.update(text);
            await seen('cell');
            const before = Array.from(answer.querySelectorAll('p, li, tr'));
            const links = answer.querySelectorAll('a').length;
            const observer = new MutationObserver(() => {});
            observer.observe(before[1], { subtree: true, childList: true, characterData: true, attributes: true });
            view.update(`${text}[it]: https://example.org/it\\n\\nEnd`);
            await view.finish();
            const after = Array.from(answer.querySelectorAll('p, li, tr')).slice(0, before.length);
            const isKept = after.every((node, index) => node === before[index]);
            return [links, answer.querySelectorAll('a[href="https://example.org/it"]').length, isKept,
                observer.takeRecords().length];
        }"""
    )
    assert found == [0, 6, True, 0]


def test_late_definition_keeps_what_came_after_in_the_same_part(shown):
    """An item of which the rest came later, and a table's rows."""
    text = (
        "- first [it]\n" + "  - nested\n" * 2000 + "\n| [it] |\n|---|\n| row |\n\nText.\n\n[it]: https://example.org\n"
    )
    show(shown, text, [20_000])
    found = shown.evaluate("['li li', 'td', 'a'].map((selector) => answer.querySelectorAll(selector).length)")
    assert found == [2000, 1, 4]


def test_selection_survives_more_text(shown):
    found = shown.evaluate(
        """async () => {
            view.update('First paragraph.\\n\\nSecond **bold** par');
            await seen('par');
            const range = document.createRange();
            range.setStart(answer.querySelector('p').firstChild, 2);
            range.setEnd(answer.querySelector('strong').firstChild, 2);
            getSelection().removeAllRanges();
            getSelection().addRange(range);
            const before = String(getSelection());
            view.update('First paragraph.\\n\\nSecond **bold** paragraph, and *more*.\\n\\n- list\\n');
            await view.finish();
            return [before, String(getSelection())];
        }"""
    )
    assert found[0] == found[1] != ""


def test_replaced_text_starts_over(shown):
    found = shown.evaluate(
        """async () => {
            view.update('# One\\n\\n- a\\n- b');
            await seen('b');
            view.update('Other');
            await seen('Other');
            const replaced = answer.textContent;
            await view.finish();
            view.update('Other text');
            await view.finish();
            return [replaced, answer.textContent, answer.querySelectorAll('h1').length];
        }"""
    )
    assert found == ["Other", "Other text", 0]


def test_long_text_at_once_is_shown_in_slices(shown):
    """And finish resolves when all of it is there."""
    text = "".join(f"Paragraph {n} with **bold** words.\n\n" for n in range(4000))
    found = shown.evaluate(
        """async text => {
            view.update(text);
            const early = answer.textContent.length;
            await view.finish();
            const isGrown = early < answer.textContent.length;
            return [isGrown, answer.querySelectorAll('p').length, answer.textContent.slice(-30)];
        }""",
        text,
    )
    assert found == [True, 4000, "aragraph 3999 with bold words."]


LITERAL = [
    "a < b > c & d &amp; &lt; &nbsp; <tag attr='x'> </tag> <!-- comment --> <3",
    "  +--+\n  |  |   two  spaces\n  +--+",
    "line\u2028separator\u2029paragraph\u0085next\u00a0nbsp\u200bzero",
    "C:\\dir\\file ~ ^ ` ' \" $ % # @ ! ? = + - . , ; :",
    "x" * 20_000,
    "\u0627\u0644\u0633\u0645\u0627\u0621 \u05e9\u05dc\u05d5\u05dd \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "[0] [x] a[1][2] {a} (b) | c | d",
    "5 * 3 * 2 = 30, snake_case_name, 2 ** 8",
]


@pytest.mark.parametrize("text", LITERAL, ids=range(len(LITERAL)))
def test_text_that_is_not_markdown_is_shown_in_full(shown, text):
    show(shown, text, range(1, len(text), 1 + len(text) // 50))
    assert shown.evaluate("answer.textContent") == text.strip()
    assert shown.evaluate("answer.scrollWidth <= answer.clientWidth")


def test_nul_is_shown_as_a_replacement_character(shown):
    show(shown, "a\0b\n\n```\nc\0d\n```")
    assert shown.evaluate("[...answer.querySelectorAll('p, code')].map((node) => node.textContent)") == [
        "a\ufffdb",
        "c\ufffdd\n",
    ]


OFFENCES = """async vectors => {
    const { ALLOWED_ATTRIBUTES, ALLOWED_TAGS } = await import('/static/markdown/sanitise.js');
    const isLink = (address) => /^(https?:\\/\\/|mailto:)/.test(address);
    const offences = [];
    for (const vector of vectors) {
        for (const size of [1e6, 3, 1]) {
            const answer = await show(vector, every(vector, size));
            for (const node of answer.querySelectorAll('*')) {
                if (!ALLOWED_TAGS.includes(node.localName)) offences.push([vector, node.localName]);
                for (const { name, value } of node.attributes) {
                    if (!ALLOWED_ATTRIBUTES.includes(name)) offences.push([vector, `${node.localName} ${name}`]);
                    if (name === 'href' && !isLink(value)) offences.push([vector, value]);
                    if (name === 'href' && (node.rel !== 'noopener noreferrer nofollow' || node.target !== '_blank'))
                        offences.push([vector, 'rel']);
                }
            }
            for (const link of answer.querySelectorAll('a')) {
                link.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
                link.focus();
            }
        }
    }
    return offences;
}"""


def test_nothing_in_an_answer_runs_or_loads(shown):
    assert shown.evaluate(OFFENCES, VECTORS) == []


def test_allow_list_has_nothing_that_runs_or_loads():
    """What DOMPurify is told to let pass: no names or ids, no handlers, no styles, nothing that loads."""
    source = (PROJECT_ROOT / "static" / "markdown" / "sanitise.js").read_text()
    words = set(source.split("const purifier", maxsplit=1)[0].replace("'", " ").split())
    assert "blockquote" in words and "columnalign" in words
    refused = {"script", "style", "img", "svg", "iframe", "object", "embed", "form", "input", "link", "meta", "base"}
    refused |= {"id", "name", "src", "srcset", "action", "formaction", "xlink:href", "annotation-xml"}
    assert not words & refused
    assert not [word for word in words if word.startswith("on") or word.startswith("data-")]


def test_sanitiser_alone_stops_raw_html(shown):
    """The second lock, without the parser's escaping. A sanitiser's own document may report what it refuses to load."""
    found = shown.evaluate(
        """async vectors => {
            const { fragmentOf } = await import('/static/markdown/sanitise.js');
            violations.push = () => 0;
            const bad = 'script, style, img, svg, iframe, [onerror], [onload], [id], [name], [style], [src]';
            return vectors.filter((vector) => fragmentOf(vector).querySelector(bad));
        }""",
        VECTORS,
    )
    assert found == []


def test_formulas_alone_link_and_load_nothing(shown):
    """Before the sanitiser."""
    show(shown, "$x$")
    html = shown.evaluate(
        """async formulas => {
            const { formula } = await import('/static/markdown/typeset.js');
            return formulas.map((source) => formula(source)).filter((html) => html.includes('<math'));
        }""",
        [*(vector for vector in MATHS if "\n" not in vector), "$\\href{https://example.org}{x}$"],
    )
    assert len(html) > 5
    assert not [each for each in html if re.search(r"<[^>]*\s(href|src|id|data-\w+)=", each)]


def test_links_and_images(shown):
    answer = show(shown, "[a](https://e.org) ![cat](https://e.org/cat.png) <mailto:a@e.org> [no](ftp://e.org)")
    links = answer.get_by_role("link")
    assert links.all_inner_texts() == ["a", "cat", "mailto:a@e.org"]
    assert links.nth(1).get_attribute("href") == "https://e.org/cat.png"
    assert {link.get_attribute("rel") for link in links.all()} == {"noopener noreferrer nofollow"}
    assert {link.get_attribute("target") for link in links.all()} == {"_blank"}
    assert answer.locator("img").count() == 0


CODE = "```python\nx = 1  # one\n\n  y\n```"


def test_code_is_highlighted_and_labelled(shown):
    answer = show(shown, CODE)
    assert answer.locator(".language").inner_text() == "python"
    assert answer.locator(".hljs-number").inner_text() == "1"
    assert shown.evaluate("answer.querySelector('code').textContent") == "x = 1  # one\n\n  y\n"


def test_copy_by_keyboard(shown):
    shown.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = show(shown, CODE).get_by_role("button", name="Copy")
    button.focus()
    shown.keyboard.press("Enter")
    expect(shown.locator("button.copy")).to_have_text("Copied")
    assert shown.evaluate("navigator.clipboard.readText()") == "x = 1  # one\n\n  y"
    expect(shown.locator("button.copy")).to_have_text("Copy")


def test_copy_without_the_clipboard_interface(shown):
    """As on an origin that isn't secure."""
    shown.evaluate(
        """() => {
            Object.defineProperty(navigator, 'clipboard', { value: undefined });
            document.addEventListener('copy', () => { window.copied = document.activeElement.value; });
        }"""
    )
    show(shown, CODE).get_by_role("button", name="Copy").click()
    expect(shown.locator("button.copy")).to_have_text("Copied")
    assert shown.evaluate("copied") == "x = 1  # one\n\n  y"
    assert shown.evaluate("document.activeElement.className") == "copy"
    assert shown.locator("textarea").count() == 0


def test_code_is_selected_where_nothing_can_be_copied(shown):
    shown.evaluate(
        """() => {
            Object.defineProperty(navigator, 'clipboard', { value: undefined });
            document.execCommand = () => false;
        }"""
    )
    show(shown, CODE).get_by_role("button", name="Copy").click()
    expect(shown.locator("button.copy")).to_have_text("Selected")
    assert shown.evaluate("String(getSelection()).trim()") == "x = 1  # one\n\n  y"


def test_maths_is_loaded_when_needed_and_typeset(shown):
    requested = []
    shown.on("request", lambda request: requested.append(request.url.rpartition("/")[2]))
    show(shown, "No maths: $5 and $10.")
    assert "katex.js" not in requested
    answer = show(shown, "Inline $x^2$ and\n\n$$\n\\frac{a}{b}\n$$\n\nbad $\\frac{$")
    assert requested.count("katex.js") == 1
    assert answer.locator("math").count() == 2
    assert answer.locator(".display math[display=block] mfrac").count() == 1
    assert "bad $\\frac{$" in answer.inner_text()


def test_source_of_maths_is_shown_until_it_is_closed_and_where_it_cannot_be_typeset(shown):
    shown.route("**/katex.js", lambda route: route.abort())
    shown.evaluate("view.update('$$\\na_1 *b* c'); seen('c')")
    assert shown.evaluate("answer.textContent") == "$$\na_1 *b* c"
    assert shown.evaluate("answer.querySelectorAll('em').length") == 0
    assert show(shown, "$$\na_1\n$$").inner_text() == "$$\na_1\n$$"
    shown.unroute("**/katex.js")


def test_direction_follows_the_text(shown):
    show(
        shown, "English\n\n\u05e9\u05dc\u05d5\u05dd\n\n- \u05e9\u05dc\u05d5\u05dd\n\n```\n\u05e9\u05dc\u05d5\u05dd\n```"
    )
    directions = "[...answer.querySelectorAll('.section > *')].map((node) => getComputedStyle(node).direction)"
    assert shown.evaluate(directions) == ["ltr", "rtl", "rtl", "ltr"]


def test_wide_tables_and_code_scroll_on_their_own(shown):
    shown.set_viewport_size({"width": 390, "height": 700})
    show(shown, "| " + " | ".join(f"header{n}" for n in range(12)) + " |\n|" + "---|" * 12 + "\n\n    " + "wide " * 99)
    scrolls = "(selector) => answer.querySelector(selector).scrollWidth > answer.querySelector(selector).clientWidth"
    assert shown.evaluate(scrolls, ".table") and shown.evaluate(scrolls, "pre")
    assert shown.evaluate("document.documentElement.scrollWidth <= 390")


CONTRASTS = """([names, papers]) => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const probe = answer.appendChild(document.createElement('span'));
    const luminance = (name) => {
        probe.style.color = `var(${name})`;
        canvas.fillStyle = getComputedStyle(probe).color;
        canvas.fillRect(0, 0, 1, 1);
        const parts = Array.from(canvas.getImageData(0, 0, 1, 1).data.slice(0, 3), (value) => value / 255)
            .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    return names.flatMap((name) => papers.map((paper) => [name, paper, ratio(luminance(name), luminance(paper))]));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_of_code_are_readable(shown, scheme):
    shown.emulate_media(color_scheme=scheme)
    names = [f"--code-{name}" for name in ("keyword", "string", "number", "name", "type")] + ["--quiet", "--accent"]
    ratios = shown.evaluate(CONTRASTS, [names, ["--paper", "--sheet"]])
    assert [row for row in ratios if row[2] < 4.5] == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_rich_answer(shown, artifacts, width, scheme):
    shown.set_viewport_size({"width": width, "height": 900})
    shown.emulate_media(color_scheme=scheme)
    answer = show(shown, RICH, range(1, len(RICH), 7))
    assert answer.locator("math").count() == 4
    assert answer.locator("li li").count() == 2
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.screenshot(path=artifacts / f"markdown-{scheme}-{width}.png", full_page=True)
