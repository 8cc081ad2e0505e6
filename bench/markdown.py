"""How smoothly the page shows a long answer: `python -m bench.markdown`.

Opens a page in Chromium that shows Markdown as the chat page does, under its security policy. Gives it most of a long
answer at once, then streams the rest at `--rate` tokens per second, one update per frame, and measures that time. Does
the same with a text node that only grows, for comparison. For each shape of answer, prints the frames per second, the
longest task in either phase, and the CPU time that 1,000 streamed tokens take in scripts and in style and layout.
"""

import argparse
import http.server
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus

from playwright.sync_api import sync_playwright

from everstream.settings import PROJECT_ROOT
from everstream.web.pages import CONTENT_SECURITY_POLICY

# What the demo model's tokenizer makes of English.
CHARACTERS_PER_TOKEN = 5
COSTS = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
PROSE = "the sky is blue because air scatters short waves of light more than long ones and our eyes see that"
WORDS = PROSE.split(" ")
PAGE = b"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Benchmark</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css"><link rel="stylesheet" href="/markdown.css">
</head><body><main><section class="answer" id="answer"></section></main></body></html>"""
SHOW = """async ([way, text, loaded, tokensPerSecond]) => {
    const element = document.querySelector('#answer');
    element.replaceWith(element.cloneNode());
    const answer = document.querySelector('#answer');
    const { createMarkdownView } = await import('/markdown.js');
    const node = answer.appendChild(document.createTextNode(''));
    const plain = { update: (text) => node.appendData(text.slice(node.data.length)), finish: async () => {} };
    window.tasks = [];
    new PerformanceObserver((list) => tasks.push(...list.getEntries().map((entry) => entry.duration)))
        .observe({ type: 'longtask', buffered: false });
    window.view = way === 'markdown' ? createMarkdownView(answer) : plain;
    view.update(text.slice(0, loaded));
    for (let shown = 0, unchanged = 0; unchanged < 30;) {
        await new Promise(requestAnimationFrame);
        unchanged = answer.textContent.length === shown ? unchanged + 1 : 0;
        shown = answer.textContent.length;
    }
    scrollTo(0, document.body.scrollHeight);
}"""
STREAM = """async ([way, text, loaded, tokensPerSecond, size]) => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    window.loadTasks = tasks.splice(0);
    const start = performance.now();
    let frames = 0;
    for (let end = loaded; end < text.length; frames += 1) {
        const now = await new Promise(requestAnimationFrame);
        end = Math.min(text.length, loaded + Math.floor((now - start) / 1000 * tokensPerSecond) * size);
        view.update(text.slice(0, end));
        scrollTo(0, document.body.scrollHeight);
    }
    const seconds = (performance.now() - start) / 1000;
    return { frames: frames / seconds, seconds };
}"""
FINISH = """async () => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    const start = performance.now();
    await view.finish();
    return { loading: Math.max(0, ...loadTasks), streaming: Math.max(0, ...tasks) };
}"""


def sentence(number, size=18):
    return " ".join(WORDS[(number * 7 + at * (number % 3 + 1)) % len(WORDS)] for at in range(size)).capitalize() + "."


def paragraphs(at):
    return (
        f"{sentence(at)} **{sentence(at + 1, 5)}** {sentence(at + 2)} `code {at}` [link](https://example.org/{at}).\n\n"
    )


def code(at):
    return f"    def function_{at}(self, value={at}):  # {sentence(at, 6)}\n        return [value, 'text {at}']\n\n"


def mixed(at):
    items = "".join(f"{n}. **{sentence(at + n, 3)}** {sentence(at + n)}\n" for n in range(1, 5))
    rows = "".join(f"| {sentence(at + n, 3)} | `{n}` | {n * at} |\n" for n in range(4))
    return (
        f"## {sentence(at, 5)}\n\n{paragraphs(at)}{items}\n```python\n{code(at)}```\n\n"
        f"| name | code | value |\n|---|---|--:|\n{rows}\n> {sentence(at)}\n\n"
    )


SHAPES = {
    "paragraphs": ("", paragraphs),
    "one paragraph": ("", lambda at: f"{sentence(at)} "),
    "one line without spaces": ("", lambda at: f"{at}abcdefghij"),
    "code block": ("```python\nclass Long:\n", code),
    "line of code": ("```json\n", lambda at: f'{{"key{at}": [1, 2, {at}]}}, '),
    "table": (
        "| a | b | c | d |\n|---|---|--:|---|\n",
        lambda at: f"| {sentence(at, 4)} | **{at}** | {at * 7} | `x{at}` |\n",
    ),
    "list": ("", lambda at: f"- {sentence(at, 6)} **{at}**\n"),
    "nested list": ("1. all\n", lambda at: f"   - {sentence(at, 6)} `{at}`\n"),
    "quote": ("", lambda at: f"> {sentence(at)}\n"),
    "definitions": ("", lambda at: f"[source {at}]: https://example.org/{at}\n"),
    "mixed": ("", mixed),
}


def answer(shape, size):
    start, piece = SHAPES[shape]
    pieces, length = [start], len(start)
    for number in range(size):
        pieces.append(piece(number))
        length += len(pieces[-1])
        if length >= size:
            break
    return "".join(pieces)[:size]


class Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {".js": "text/javascript", ".css": "text/css"}  # noqa: RUF012

    def do_GET(self):
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    handler = partial(Handler, directory=str(PROJECT_ROOT / "static"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def metrics(session):
    found = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return {name: found[name] for name in COSTS}


def measure(browser, url, way, text, args):
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    loaded = len(text) - args.streamed * CHARACTERS_PER_TOKEN
    given = [way, text, loaded, args.rate, CHARACTERS_PER_TOKEN]
    page.evaluate(SHOW, given[:4])
    before = metrics(session)
    found = page.evaluate(STREAM, given)
    after = metrics(session)
    found |= page.evaluate(FINISH)
    page.close()
    if problems:
        raise RuntimeError(f"{way}: {problems}")
    costs = {name: (after[name] - before[name]) * 1e6 / args.streamed for name in COSTS}
    return found | {"script": costs["ScriptDuration"], "layout": costs["LayoutDuration"] + costs["RecalcStyleDuration"]}


def row(name, way, found):
    cells = [name, way, *(f"{found[key]:.0f}" for key in ("frames", "loading", "streaming", "script", "layout"))]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=40_000, help="size of an answer")
    parser.add_argument("--streamed", type=int, default=1_000, help="tokens of it that are streamed, the last ones")
    parser.add_argument("--rate", type=int, default=200, help="tokens per second")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    args = parser.parse_args()
    print("| answer | way | frames/s | longest task, ms: loading | streaming | CPU ms/1,000 tokens: script | layout |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium-headless-shell") or shutil.which("chromium"), args=flags
        )
        for shape in args.shapes:
            text = answer(shape, args.tokens * CHARACTERS_PER_TOKEN)
            for way in ("plain text", "markdown"):
                print(row(shape, way, measure(browser, url, way, text, args)), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
