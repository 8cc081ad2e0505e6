"""Prompts that an engine has to validate: a timeout is a refusal, and no client can exhaust engines or workers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import requests
import valkey

from everstream.contract.prompt_bound import LONG_TEXT_BYTES
from everstream.errors import ChecksBusy, TooManyChecks
from everstream.web import prompt_validation
from harness.stack import MODELS, running_stack, wait_for

CONTEXT = 600
LONG = {"texts": ["x" * (LONG_TEXT_BYTES + 1)]}
"""Too long for the model, and validated in the lane for long prompts."""
POSSIBLY_LONG = {"texts": ["x" * 200]}
"""Might be too long, so an engine validates it; it is not too long."""
RETRY_AFTER = "5"


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """All parts, as if behind a proxy, with a model that has a small context."""
    folder = tmp_path_factory.mktemp("checked")
    for name in ("app.py", "input_schema.py"):
        source = (MODELS / "scripted" / name).read_text()
        (folder / name).write_text(source.replace("400_000", str(CONTEXT)))
    with running_stack(folder, app_dir=folder, WEB_CONCURRENCY="1", EVERSTREAM_PROXIES="1") as stack:
        yield stack


@pytest.fixture
def keys(checked):
    """A Valkey client. After the test no validation request and no reply may be left."""
    client = valkey.Valkey.from_url(checked.settings.log_url)
    yield client
    wait_for(lambda: not list(client.scan_iter("*validation*")), what="the end of all keys of validations")
    client.close()


def post(stack, inputs, client="1.2.3.4"):
    headers = {"X-Forwarded-For": client}
    return requests.post(f"{stack.url}/generations", json=inputs, headers=headers, timeout=30)


def code_of(answer):
    return answer.status_code, answer.json().get("error", {}).get("code", "")


TOO_LONG = 400, "context_length_exceeded"
TIMED_OUT = 503, "check_timed_out"


@contextmanager
def posting_repeatedly(stack, inputs, clients):
    """Each of these clients posts repeatedly until the block ends. Yields the last answer of each kind."""
    stop, answers = threading.Event(), {}

    def keep_posting(client):
        while not stop.is_set():
            answer = post(stack, inputs, client)
            answers[code_of(answer)] = answer

    with ThreadPoolExecutor(len(clients)) as threads:
        posts = [threads.submit(keep_posting, client) for client in clients]
        try:
            yield answers
        finally:
            stop.set()
    for each in posts:
        each.result()


def test_validation_accepts_and_refuses(checked, keys):
    assert code_of(post(checked, LONG)) == TOO_LONG
    assert code_of(post(checked, {"texts": ["x" * (CONTEXT + 1)]})) == TOO_LONG
    assert post(checked, POSSIBLY_LONG).status_code == 201


def test_validation_timeout_refuses_the_prompt(checked, keys, gate, tmp_path):
    """An expired request is skipped, so that the next one is not kept waiting."""
    generations = set(keys.scan_iter("*gen:*"))
    started = [tmp_path / "first", tmp_path / "second"]
    held = [LONG | {"check_gate": gate.path, "check_begun": str(each)} for each in started]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(post, checked, held[0])
        wait_for(started[0].exists, what="the first check")
        second = threads.submit(post, checked, held[1])
        for answer in (first.result(), second.result()):
            assert code_of(answer) == TIMED_OUT
            assert answer.headers["Retry-After"] == RETRY_AFTER
    assert set(keys.scan_iter("*gen:*")) <= generations
    gate.open()
    assert code_of(post(checked, LONG)) == TOO_LONG
    assert not started[1].exists()


def test_shorter_prompt_does_not_wait_for_long_ones(checked, keys, gate, tmp_path):
    held = LONG | {"check_gate": gate.path, "check_begun": str(tmp_path / "begun")}
    with posting_repeatedly(checked, held, ["2.2.2.2"] * 2):
        wait_for((tmp_path / "begun").exists, what="the first check")
        assert post(checked, POSSIBLY_LONG | {"check_begun": str(tmp_path / "short")}).status_code == 201
        assert (tmp_path / "short").exists()
        gate.open()


def test_validations_of_one_client_are_limited(checked, keys, gate):
    """By the address that the proxy reports, whatever the client claims. An IPv6 network is one client."""
    held, too_many = LONG | {"check_gate": gate.path}, (429, "too_many_checks")
    with posting_repeatedly(checked, held, [f"6.6.6.{n}, 2001:db8:1:2:{n}::1" for n in range(5)]) as answers:
        wait_for(lambda: too_many in answers, what="a refusal")
        assert answers[too_many].headers["Retry-After"] == RETRY_AFTER
        assert code_of(post(checked, held, "2001:db8:1:3::1")) == TIMED_OUT
        gate.open()
    assert code_of(post(checked, LONG, "2001:db8:1:2::1")) == TOO_LONG


def test_waiting_validations_of_all_clients_are_limited(checked, keys, gate):
    held, busy = LONG | {"check_gate": gate.path}, (503, "checks_busy")
    with posting_repeatedly(checked, held, [f"1.0.0.{n}" for n in range(24)]) as answers:
        wait_for(lambda: busy in answers, what="a refusal")
        assert answers[busy].headers["Retry-After"] == RETRY_AFTER
        # A prompt that needs no validation is still accepted, and a shorter one is validated.
        assert post(checked, {"texts": ["a"]}, "1.1.1.2").status_code == 201
        assert post(checked, POSSIBLY_LONG, "1.1.1.2").status_code == 201
        gate.open()


def test_validations_leave_connections_to_valkey_free(checked, keys, gate):
    """Each pending validation holds one connection."""
    with posting_repeatedly(
        checked, POSSIBLY_LONG | {"check_gate": gate.path}, [f"1.0.1.{n}" for n in range(40)]
    ) as answers:
        wait_for(lambda: (503, "checks_busy") in answers, what="a refusal")
        message = answers[503, "checks_busy"].json()["error"]["message"]
        assert message == "32 prompts are being checked already; try again later"
        gate.open()


def test_prompt_over_the_byte_bound_is_refused_without_validation(checked, keys, gate):
    prompt = {"prompt": "x" * (2 * CONTEXT + 1), "check_gate": gate.path}
    answer = post(checked, prompt)
    assert code_of(answer) == TOO_LONG
    assert answer.json()["error"]["param"] == "prompt"
    assert answer.json()["error"]["message"].startswith("prompt has 1201 bytes; at most ")
    assert answer.json()["error"]["message"].endswith("at most 1200 can fit into the model's context")


def test_eventsource_is_told_to_retry_if_no_engine_answers(checked, keys, gate):
    """Any status but 200 would close it permanently."""
    query = {"texts": "x" * 200, "check_gate": gate.path}
    headers = {"Accept": "text/event-stream"}
    answer = requests.get(f"{checked.url}/stream", params=query, headers=headers, timeout=30)
    assert (answer.status_code, answer.text[:6]) == (200, "retry:")
    gate.open()


def test_crash_during_validation_keeps_nobody_waiting(checked, keys, gate, tmp_path):
    held = LONG | {"check_gate": gate.path, "check_begun": str(tmp_path / "begun")}
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(post, checked, held, f"4.4.4.{n}") for n in range(2)]
        wait_for((tmp_path / "begun").exists, what="the first check")
        checked.engines[-1].kill()
        assert [code_of(each.result()) for each in waiting] == [TIMED_OUT] * 2
    checked.start_engine()
    checked.wait_ready()
    wait_for(lambda: code_of(post(checked, LONG)) == TOO_LONG, what="an answer of the next engine")


@pytest.mark.parametrize(
    ("is_long", "most"), [(False, prompt_validation.MAX_OF_A_CLIENT), (True, prompt_validation.MAX_LONG_OF_A_CLIENT)]
)
def test_concurrent_checks_of_one_client_are_limited(is_long, most):
    checks = prompt_validation.PromptValidator(None, 1)
    with ExitStack() as held:
        for _ in range(most):
            held.enter_context(checks._slot("one", "", is_long=is_long))
        with pytest.raises(TooManyChecks):
            held.enter_context(checks._slot("one", "", is_long=is_long))
        held.enter_context(checks._slot("other", "", is_long=is_long))
    with checks._slot("one", "", is_long=is_long):
        pass


def test_each_model_has_its_share_of_the_checks():
    checks, most = prompt_validation.PromptValidator(None, 2), prompt_validation.MAX_CONCURRENT // 2
    with ExitStack() as held:
        for number in range(most):
            held.enter_context(checks._slot(f"client {number}", "slow", is_long=False))
        with pytest.raises(ChecksBusy):
            held.enter_context(checks._slot("another", "slow", is_long=False))
        for number in range(most):
            held.enter_context(checks._slot(f"client {number}", "quick", is_long=False))
