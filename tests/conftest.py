import shutil
from pathlib import Path

import pytest

from tests.answers import outcome, submit_all
from tests.sse_client import read_all
from tests.stack import MODELS, Stack, nginx_executable, running_stack

ARTIFACTS = Path(__file__).parent.parent / "test-artifacts"


@pytest.fixture(scope="session")
def fast(tmp_path_factory):
    """All parts with the scripted model, two gunicorn workers."""
    with running_stack(tmp_path_factory.mktemp("fast")) as stack:
        yield stack


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """All parts with a model whose infer is a plain function."""
    with running_stack(tmp_path_factory.mktemp("plain"), app_dir=MODELS / "plain", WEB_CONCURRENCY="1") as stack:
        yield stack


@pytest.fixture(scope="session")
def llm(tmp_path_factory):
    """All parts with vLLM and the demo model, in float32, where going on after a death is exact at temperature 0."""
    arguments = "--dtype float32 --max-model-len 2048 --kv-cache-memory-bytes 256M"
    app_dir = Path(__file__).parent.parent
    # Some tests read an answer only after another engine has loaded, which may take long on a busy machine.
    options = {"ENGINE_ARGS": arguments, "EVERSTREAM_ABANDON_AFTER_S": "600"}
    with running_stack(tmp_path_factory.mktemp("llm"), app_dir=app_dir, **options) as stack:
        yield stack


@pytest.fixture(scope="session")
def proxied(tmp_path_factory):
    """A stack whose `url` is nginx's, and `tls_url` that of its TLS server."""
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: apt-get install openssl")
    # Without the watcher on the socket, only the second write to a client that left fails. So no test waits for that.
    with running_stack(tmp_path_factory.mktemp("nginx"), EVERSTREAM_HEARTBEAT_S="30") as stack:
        stack.start_nginx(tls=True)
        yield stack


@pytest.fixture(scope="session")
def undisturbed(llm):
    """The outcomes of `answers.PROMPTS` with nothing done to the first engine."""
    return [outcome(read_all(llm.events_url(generation))) for generation in submit_all(llm)]


@pytest.fixture
def own_stack(tmp_path):
    """A stack of the test's own, to start and to break."""
    stacks = []

    def make(**options):
        folder = tmp_path / f"stack{len(stacks)}"
        folder.mkdir()
        stacks.append(Stack(folder, **options))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.stop()


@pytest.fixture(autouse=True)
def leaks_nothing(request):
    """After a test no stream, job or running generation is left in the shared stacks that it used."""
    yield
    for name in ("fast", "plain"):
        if name in request.fixturenames:
            request.getfixturevalue(name).assert_idle()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure in a shared stack shows what its parts printed."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for name in ("fast", "plain", "llm", "proxied"):
            if isinstance(stack := getattr(item, "funcargs", {}).get(name), Stack):
                report.sections.append((f"parts of {name}", stack.report()))


@pytest.fixture
def gate(tmp_path):
    """A file whose coming lets a held model go on."""
    return Gate(tmp_path / "gate")


class Gate:
    def __init__(self, path):
        self.path = str(path)

    def open(self):
        Path(self.path).touch()


@pytest.fixture(scope="module")
def chromium():
    """The browser, or a skip that names what is missing. Playwright's event loop runs for as long as this lives."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A fresh page; an error in its scripts fails the test."""
    page = chromium.new_page(viewport={"width": 900, "height": 700})
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert errors == []


@pytest.fixture(scope="session")
def artifacts():
    """Where screenshots are left to look at."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
