"""Prompts that an engine has to check: no answer is no yes, and nobody can fill engines or web processes with them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import requests
import valkey

from everstream import asking, log
from everstream.errors import TooManyChecks
from tests.stack import MODELS, running_stack, wait_for

CONTEXT = 600
LONG = {"texts": ["x" * (log.LONG_TEXT_BYTES + 1)]}
"""Too long for the model, and of the lane of long questions."""
SOME = {"texts": ["x" * 200]}
"""Could be too long, so it is asked about; it is not."""
RETRY_AFTER = "5"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """All parts behind what could be a proxy, with a model of a small context."""
    folder = tmp_path_factory.mktemp("asked")
    for name in ("app.py", "input_schema.py"):
        source = (MODELS / "scripted" / name).read_text()
        (folder / name).write_text(source.replace("400_000", str(CONTEXT)))
    with running_stack(folder, app_dir=folder, WEB_CONCURRENCY="1", EVERSTREAM_PROXIES="1") as stack:
        yield stack


@pytest.fixture
def keys(asked):
    """Valkey's client; after the test no question and no answer is left."""
    client = valkey.Valkey.from_url(asked.settings.log_url)
    yield client
    for pattern in ("*ask*", "*answer*"):
        wait_for(
            lambda pattern=pattern: not list(client.scan_iter(pattern)), what=f"the end of all keys like {pattern}"
        )
    client.close()


def post(stack, inputs, client="1.2.3.4"):
    headers = {"X-Forwarded-For": client}
    return requests.post(f"{stack.url}/generations", json=inputs, headers=headers, timeout=30)


def code_of(answer):
    return answer.status_code, answer.json().get("error", {}).get("code", "")


TOO_LONG = 400, "context_length_exceeded"
TIMED_OUT = 503, "check_timed_out"


@contextmanager
def asking_again_and_again(stack, inputs, clients):
    """Each of these clients asks for as long as this lasts. Yields the last answer of each kind."""
    over, answers = threading.Event(), {}

    def ask(client):
        while not over.is_set():
            answer = post(stack, inputs, client)
            answers[code_of(answer)] = answer

    with ThreadPoolExecutor(len(clients)) as threads:
        asking = [threads.submit(ask, client) for client in clients]
        try:
            yield answers
        finally:
            over.set()
    for each in asking:
        each.result()


def test_what_is_asked_is_answered(asked, keys):
    assert code_of(post(asked, LONG)) == TOO_LONG
    assert code_of(post(asked, {"texts": ["x" * (CONTEXT + 1)]})) == TOO_LONG
    assert post(asked, SOME).status_code == 201


def test_no_answer_in_time_is_no_yes(asked, keys, gate, tmp_path):
    """And who has given up is passed over, so that the next is not kept waiting."""
    generations = set(keys.scan_iter("*gen:*"))
    begun = [tmp_path / "first", tmp_path / "second"]
    held = [LONG | {"check_gate": gate.path, "check_begun": str(each)} for each in begun]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(post, asked, held[0])
        wait_for(begun[0].exists, what="the first check")
        second = threads.submit(post, asked, held[1])
        for answer in (first.result(), second.result()):
            assert code_of(answer) == TIMED_OUT
            assert answer.headers["Retry-After"] == RETRY_AFTER
    assert set(keys.scan_iter("*gen:*")) <= generations
    gate.open()
    assert code_of(post(asked, LONG)) == TOO_LONG
    assert not begun[1].exists()


def test_a_shorter_question_does_not_wait_for_long_ones(asked, keys, gate, tmp_path):
    held = LONG | {"check_gate": gate.path, "check_begun": str(tmp_path / "begun")}
    with asking_again_and_again(asked, held, ["2.2.2.2"] * 2):
        wait_for((tmp_path / "begun").exists, what="the first check")
        assert post(asked, SOME | {"check_begun": str(tmp_path / "short")}).status_code == 201
        assert (tmp_path / "short").exists()
        gate.open()


def test_one_client_has_few_questions_under_way(asked, keys, gate):
    """By the address that the proxy says, whatever the client says it is; of an IPv6 network all addresses are one."""
    held, too_many = LONG | {"check_gate": gate.path}, (429, "too_many_checks")
    with asking_again_and_again(asked, held, [f"6.6.6.{n}, 2001:db8:1:2:{n}::1" for n in range(5)]) as answers:
        wait_for(lambda: too_many in answers, what="a refusal")
        assert answers[too_many].headers["Retry-After"] == RETRY_AFTER
        assert code_of(post(asked, held, "2001:db8:1:3::1")) == TIMED_OUT
        gate.open()
    assert code_of(post(asked, LONG, "2001:db8:1:2::1")) == TOO_LONG


def test_all_clients_together_have_few_questions_waiting(asked, keys, gate):
    held, busy = LONG | {"check_gate": gate.path}, (503, "checks_busy")
    with asking_again_and_again(asked, held, [f"1.0.0.{n}" for n in range(24)]) as answers:
        wait_for(lambda: busy in answers, what="a refusal")
        assert answers[busy].headers["Retry-After"] == RETRY_AFTER
        # What needs no check is let in all the same, and a shorter question is answered.
        assert post(asked, {"texts": ["a"]}, "1.1.1.2").status_code == 201
        assert post(asked, SOME, "1.1.1.2").status_code == 201
        gate.open()


def test_a_web_process_keeps_connections_to_valkey_for_everything_else(asked, keys, gate):
    """Each question holds one while it is under way."""
    with asking_again_and_again(asked, SOME | {"check_gate": gate.path}, [f"1.0.1.{n}" for n in range(40)]) as answers:
        wait_for(lambda: (503, "checks_busy") in answers, what="a refusal")
        message = answers[503, "checks_busy"].json()["error"]["message"]
        assert message == "32 prompts are being checked already; try again later"
        gate.open()


def test_what_no_text_can_exceed_is_refused_without_asking(asked, keys, gate):
    prompt = {"prompt": "x" * (2 * CONTEXT + 1), "check_gate": gate.path}
    answer = post(asked, prompt)
    assert code_of(answer) == TOO_LONG
    assert answer.json()["error"]["param"] == "prompt"
    assert answer.json()["error"]["message"].startswith("prompt has 1201 bytes; what fits")
    assert answer.json()["error"]["message"].endswith("at most 1200")


def test_an_eventsource_comes_back_when_no_engine_answers(asked, keys, gate):
    """Any status but 200 would close it for good."""
    query = {"texts": "x" * 200, "check_gate": gate.path}
    headers = {"Accept": "text/event-stream"}
    answer = requests.get(f"{asked.url}/stream", params=query, headers=headers, timeout=30)
    assert (answer.status_code, answer.text[:6]) == (200, "retry:")
    gate.open()


def test_an_engine_that_died_over_questions_keeps_nobody_waiting(asked, keys, gate, tmp_path):
    held = LONG | {"check_gate": gate.path, "check_begun": str(tmp_path / "begun")}
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(post, asked, held, f"4.4.4.{n}") for n in range(2)]
        wait_for((tmp_path / "begun").exists, what="the first check")
        asked.engines[-1].kill()
        assert [code_of(each.result()) for each in waiting] == [TIMED_OUT] * 2
    asked.start_engine()
    asked.wait_ready()
    wait_for(lambda: code_of(post(asked, LONG)) == TOO_LONG, what="an answer of the next engine")


@pytest.mark.parametrize(("is_long", "most"), [(False, asking.MAX_OF_A_CLIENT), (True, asking.MAX_LONG_OF_A_CLIENT)])
def test_a_client_has_so_many_checks_under_way_and_no_more(is_long, most):
    checks = asking.Asking(None)
    with ExitStack() as held:
        for _ in range(most):
            held.enter_context(checks._place("one", is_long=is_long))
        with pytest.raises(TooManyChecks):
            held.enter_context(checks._place("one", is_long=is_long))
        held.enter_context(checks._place("other", is_long=is_long))
    with checks._place("one", is_long=is_long):
        pass
