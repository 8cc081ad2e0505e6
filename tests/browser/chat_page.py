"""The page, as its tests use it: in any browser that Playwright drives."""

import json

from playwright.sync_api import expect

from harness.stack import tries

POLL_MS = 50
TIMEOUT_S = 60
STORED = """() => new Promise((resolve, reject) => {
    const open = indexedDB.open('everstream');
    open.onerror = () => reject(open.error);
    open.onsuccess = () => {
        const all = open.result.transaction('messages').objectStore('messages').getAll();
        all.onsuccess = () => { open.result.close(); resolve(all.result); };
    };
})"""


class ChatPage:
    def __init__(self, page, url):
        self.page = page
        self.url = url

    def open(self, path="/"):
        self.page.goto(self.url + path)
        return self

    def send(self, **script):
        """A script for the scripted model, as a prompt."""
        self.ask(json.dumps(script))

    def ask(self, text):
        self.page.get_by_label("Message", exact=True).fill(text)
        self.button("Send").click()

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def status(self):
        return self.page.locator("#status")

    @property
    def detail(self):
        return self.page.locator("#detail")

    def expect_status(self, text):
        expect(self.status).to_have_text(text)

    def expect_figures(self, text):
        expect(self.detail).to_contain_text(text)

    @property
    def replies(self):
        return self.page.get_by_label("Answer", exact=True)

    @property
    def answer(self):
        """The last answer as it is shown: Markdown has no line ends."""
        # Not `evaluate`, which fails if the page is loaded again meanwhile.
        return self.replies.last.locator(".answer").text_content().strip()

    def turns(self):
        """Of the branch that is shown."""
        return self.page.locator(".bubble, .answer").evaluate_all("all => all.map((one) => one.textContent.trim())")

    def wait_for(self, condition, what="the condition"):
        """Poll, and let the browser process its events meanwhile."""
        for _ in tries(TIMEOUT_S, what):
            found = condition()
            if found:
                return found
            self.page.wait_for_timeout(POLL_MS)
        raise AssertionError

    def wait_for_answer(self, text):
        self.wait_for(lambda: self.answer == text, what=f"the answer {text!r}")

    def stored(self):
        """The messages that the browser keeps, oldest first."""
        return sorted(self.page.evaluate(STORED), key=lambda message: message["createdAt"])

    def source(self):
        """The last answer's text as the model sent it; None: no answer is stored yet."""
        answer = self._last_answer()
        return answer["prefix"] + answer["text"] if answer else None

    def generation(self):
        """Of the last answer."""
        return self.wait_for(lambda: (self._last_answer() or {}).get("generation"), what="a generation")

    def _last_answer(self):
        return next((message for message in reversed(self.stored()) if message["role"] == "assistant"), None)
