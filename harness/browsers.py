"""Chromium and Firefox as the system installs them, headless, with a fresh profile, driven by Playwright.

Playwright drives a stock Firefox over WebDriver BiDi, and nearly every call does the same as for Chromium. In Firefox
`emulate_media` does nothing; on a page whose security policy forbids eval, `wait_for_function` fails (poll with
`evaluate`, which may return a promise); and what the policy refuses is an error of the page.
"""

import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import playwright
import psutil
from playwright.sync_api import expect, sync_playwright

EXPECT_TIMEOUT_MS = 30_000
VIEWPORT = {"width": 900, "height": 700}
NODE = Path(playwright.__file__).parent / "driver" / "node"
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
# Playwright's preferences turn off the rest of what Firefox asks the network for. A release honours this one only with
# the variable.
FIREFOX_PREFERENCES = {"services.settings.server": "data:,"}
FIREFOX_ENVIRON = {"MOZ_REMOTE_SETTINGS_DEVTOOLS": "1"}
# The hash of the empty style with which Playwright waits for a frame before a screenshot. Policies refuse it.
SCREENSHOT_STYLE = "sha256-YjaKGiklmzC6wjXA513HAMmzus8VE61XCOT+SmwNZWA="
# Firefox reports each EventSource that is refused or cut as an error of the page.
LOST_CONNECTION = "Firefox can.t establish a connection|The connection to .* was interrupted"
HARMLESS = re.compile(f"{re.escape(SCREENSHOT_STYLE)}|{LOST_CONNECTION}")


class Kind(NamedTuple):
    commands: tuple
    """The first that is installed is used. Also the names of Debian's packages."""
    environ: dict
    options: dict
    """Of Playwright's `launch`."""


KINDS = {
    # Without a user interface a page opens in 0.3 s instead of 1.8 s on two cores.
    "chromium": Kind(("chromium-headless-shell", "chromium"), {}, {"args": CHROMIUM_FLAGS}),
    # A channel starting with `moz-` is what makes Playwright speak BiDi instead of its own protocol.
    "firefox": Kind(
        ("firefox-esr",), FIREFOX_ENVIRON, {"channel": "moz-firefox", "firefox_user_prefs": FIREFOX_PREFERENCES}
    ),
}


def obstacle(name):
    """Why this browser can't be launched, and the remedy; None if there is nothing in the way."""
    (command, *_) = KINDS[name].commands
    return None if _executable(name) else f"{command} is missing: apt-get install {command}"


def _executable(name):
    return next(filter(None, map(shutil.which, KINDS[name].commands)), None)


class Browsers:
    """What one Playwright driver launches. `seen` collects all processes of its browsers."""

    def __init__(self, playwright, driver, seen):
        self._playwright = playwright
        self._driver = driver
        self._seen = seen

    @contextmanager
    def launched(self, name):
        _, environ, options = KINDS[name]
        browser = getattr(self._playwright, name).launch(
            executable_path=_executable(name), env=os.environ | environ, **options
        )
        try:
            yield browser
        finally:
            # Once their parent has exited, nothing tells whose they were.
            self._seen |= set(self._driver.children(recursive=True))
            browser.close()


@contextmanager
def running_browsers(link=None):
    """A Playwright driver, whose event loop runs as long as this. With a link, all that it launches is inside it."""
    expect.set_options(timeout=EXPECT_TIMEOUT_MS)
    this, seen = psutil.Process(), set()
    before = this.children()
    with _node(link) as node, mock.patch.dict(os.environ, PLAYWRIGHT_NODEJS_PATH=str(node)):
        try:
            with sync_playwright() as started:
                (driver,) = (child for child in this.children() if child not in before)
                yield Browsers(started, driver, seen)
        finally:
            # Nothing, unless a browser left a process behind.
            for process in seen:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


@contextmanager
def _node(link):
    """The executable that runs the driver."""
    if link is None:
        yield NODE
        return
    with tempfile.TemporaryDirectory() as folder:
        yield link.wrapper(Path(folder) / "node", [NODE])


@contextmanager
def fresh_page(browser, **options):
    """A page in a context of its own. An error in the scripts of any of the context's pages is raised at the end."""
    context = browser.new_context(**{"viewport": VIEWPORT, **options})
    errors = []
    context.on("weberror", lambda error: errors.append(error.error))
    try:
        yield context.new_page()
    finally:
        context.close()
    errors = [error for error in map(str, errors) if not HARMLESS.search(error)]
    assert not errors, errors
