"""What the fixtures promise about the browsers."""

import signal
import subprocess
import sys

import psutil
import pytest

from everstream.settings import PROJECT_ROOT
from harness.browsers import fresh_page, obstacle

HOLD_A_PAGE = """
import signal
import sys
from harness.browsers import fresh_page, running_browsers
# Jobs in the background of a shell ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with running_browsers() as browsers, browsers.launched(sys.argv[1]) as browser, fresh_page(browser) as page:
    page.goto("data:text/html,<p>open")
    print(page.text_content("p"), flush=True)
    page.wait_for_timeout(600_000)
"""


def test_errors_in_any_tab_are_raised(browser_page):
    with pytest.raises(AssertionError, match="seen"), fresh_page(browser_page.context.browser) as page:
        tab = page.context.new_page()
        with page.context.expect_event("weberror"):
            tab.evaluate("void setTimeout(() => { throw new Error('seen'); })")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_browsers_end_with_the_process_that_launched_them(name, number):
    if reason := obstacle(name):
        pytest.skip(reason)
    command = [sys.executable, "-c", HOLD_A_PAGE, name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=pipe, stderr=pipe, start_new_session=True) as holder:
        assert holder.stdout.readline() == b"open\n"
        family = psutil.Process(holder.pid).children(recursive=True)
        holder.send_signal(number)
        assert psutil.wait_procs(family, timeout=60)[1] == []
