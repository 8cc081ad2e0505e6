import os
import shutil
import signal
import warnings
from pathlib import Path

import hypothesis
import pytest

from everstream.llm import demo_model
from everstream.settings import load_settings
from harness import network
from harness.answers import outcome, submit_all
from harness.sse_client import read_all
from harness.stack import MODELS, Stack, nginx_executable, running_stack

ARTIFACTS = Path(__file__).parent.parent / "test-artifacts"
SHARED = ("fast", "plain", "llm", "proxied", "chat")
"""The session-scoped stacks, by fixture name."""
ALARM_INTERVAL_S = 30
"""Longer than stopping a stack takes."""

# No example fails for being slow. `make test` draws the same examples on every run, so it can't fail without a change;
# `--hypothesis-profile=search` draws new ones, and many more.
UNTIMED = {
    "deadline": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
    "print_blob": True,
}
hypothesis.settings.register_profile("repeatable", derandomize=True, **UNTIMED)
hypothesis.settings.register_profile("search", max_examples=2000, **UNTIMED)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser):
    parser.addoption(
        "--every-browser",
        action="store_true",
        help="run all tests that can in Firefox, too, not only those marked `both_browsers`: a page there is slow",
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--every-browser"):
        return
    left_out = [item for item in items if is_in_firefox(item) and not item.get_closest_marker("both_browsers")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def is_in_firefox(item):
    return "callspec" in dir(item) and item.callspec.params.get("browser_page") == "firefox"


@pytest.fixture(scope="session")
def fast(tmp_path_factory):
    """All parts, with the scripted model and two gunicorn workers."""
    with running_stack(tmp_path_factory.mktemp("fast", numbered=False)) as stack:
        yield stack


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """All parts, with a model whose `infer` is a plain function."""
    with running_stack(
        tmp_path_factory.mktemp("plain", numbered=False), app_dir=MODELS / "plain", WEB_CONCURRENCY="1"
    ) as stack:
        yield stack


@pytest.fixture(scope="session")
def chat(tmp_path_factory):
    """All parts, with a model that takes the chat model's inputs and echoes the prompt, and two gunicorn workers."""
    with running_stack(tmp_path_factory.mktemp("chat", numbered=False), app_dir=MODELS / "chat") as stack:
        yield stack


@pytest.fixture(scope="session")
def llm(tmp_path_factory):
    """All parts, with vLLM and the demo model. In float32 at temperature 0, resuming after a crash is exact."""
    arguments = "--dtype float32 --max-model-len 2048 --kv-cache-memory-bytes 256M --tool-strict-level parameter"
    app_dir = Path(__file__).parent.parent
    # Some tests read an answer only after another engine has loaded, which is slow on a busy machine. More threads of
    # the model would spin while they wait for each other, and other tests run beside.
    options = {"ENGINE_ARGS": arguments, "EVERSTREAM_ABANDON_AFTER_S": "600", "OMP_NUM_THREADS": "1"}
    # An engine that a busy machine has kept waiting for longer begins its generations anew.
    options["EVERSTREAM_LEASE_S"] = "4"
    folder = tmp_path_factory.mktemp("llm", numbered=False)
    options["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")
    with running_stack(folder, app_dir=app_dir, **options) as stack:
        yield stack


@pytest.fixture(scope="session")
def proxied(tmp_path_factory):
    """A stack whose `url` is nginx's and whose `tls_url` is that of nginx's TLS server."""
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: apt-get install openssl")
    # So long that no test notices a closed client by a failed heartbeat: the socket watcher has to notice it.
    with running_stack(tmp_path_factory.mktemp("proxied", numbered=False), EVERSTREAM_HEARTBEAT_S="30") as stack:
        stack.start_nginx(tls=True)
        yield stack


@pytest.fixture(scope="session")
def undisturbed(llm):
    """The outcomes of `answers.PROMPTS` from an engine that nothing disturbs."""
    return [outcome(read_all(llm.events_url(generation))) for generation in submit_all(llm)]


@pytest.fixture(scope="module")
def vllm():
    """vLLM, imported without its warnings. The environment, which it changes, is restored afterwards."""
    environ = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vllm
        import vllm.v1.engine.output_processor
    yield vllm
    os.environ.clear()
    os.environ.update(environ)


@pytest.fixture(scope="module")
def tokenizer(vllm):
    """The demo model's tokenizer, as vLLM loads it."""
    from vllm.tokenizers import get_tokenizer

    given = {name: value for name, value in os.environ.items() if name.startswith("EVERSTREAM_CACHE")}
    return get_tokenizer(str(demo_model.folder(load_settings(given))))


@pytest.fixture
def own_stack(tmp_path):
    """Makes stacks for one test to start and to break."""
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
def no_leaks(request):
    """A test leaves no stream, job or running generation in the shared stacks that it used."""
    yield
    # Own stacks are stopped by now; those without an engine keep what is queued.
    for stack in request.node.funcargs.values():
        if isinstance(stack, Stack) and stack in Stack.unstopped and stack.engines:
            stack.assert_idle()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """On failure, show the output of all parts of every stack that the test could use."""
    report = yield
    if report.failed:
        for stack in Stack.unstopped:
            if stack.name not in SHARED or stack.name in item.fixturenames:
                report.sections.append((f"parts of {stack.name}", stack.report()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item, settings):
    """Repeat the alarm: Hypothesis treats a timeout as a failure, and runs the example that hung again."""
    is_set = yield
    if is_set and settings.method == "signal":
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, ALARM_INTERVAL_S)
    return is_set


@pytest.fixture
def gate(tmp_path):
    """A file that releases a held model once it exists, which is at the end of the test at the latest."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


class Gate:
    def __init__(self, path):
        self.path = str(path)

    def open(self):
        Path(self.path).touch()


@pytest.fixture(scope="module")
def browsers():
    """Launches browsers. Playwright's event loop runs as long as this fixture."""
    from harness.browsers import running_browsers

    with running_browsers() as browsers:
        yield browsers


@pytest.fixture(scope="module")
def chromium(browsers):
    """The browser, or a skip that names what is missing."""
    with browsers.launched(available("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def firefox(browsers):
    """The same for Firefox."""
    with browsers.launched(available("firefox")) as browser:
        yield browser


def available(name):
    from harness.browsers import obstacle

    if reason := obstacle(name):
        pytest.skip(reason)
    return name


@pytest.fixture
def page(chromium):
    """A fresh page; an error in its scripts fails the test."""
    from harness.browsers import fresh_page

    with fresh_page(chromium) as page:
        yield page


@pytest.fixture(params=["chromium", "firefox"])
def browser_page(request):
    """Like `page`, in each browser in turn."""
    from harness.browsers import fresh_page

    with fresh_page(request.getfixturevalue(request.param)) as page:
        yield page


@pytest.fixture(scope="module")
def link():
    """A network namespace whose link can go dead, or a skip that says why there can be none."""
    if reason := network.obstacle():
        pytest.skip(reason)
    with network.lossy_link() as link:
        yield link


@pytest.fixture(scope="session")
def artifacts():
    """The folder where tests leave screenshots for inspection."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
