"""The page in a real Chromium: tokens appear as they arrive, and the status line stays true whatever is cut."""

import http.server
import json
import threading
from typing import ClassVar

import pytest
import requests
from playwright.sync_api import expect

from harness.stack import MODELS, Stack, wait_for
from tests.stack.test_wire import NASTY


def open_page(page, stack):
    page.goto(stack.url)
    return page


def send(page, **script):
    page.get_by_label("Prompt").fill(json.dumps(script))
    page.get_by_role("button", name="Send").click()


def state(page):
    return page.get_by_role("status")


def answer(page):
    return page.get_by_label("Answer").evaluate("element => element.textContent")


def wait_for_answer(page, text):
    wait_for(lambda: answer(page) == text, what=f"the answer {text!r}")


def generation_of(page):
    return page.evaluate("JSON.parse(sessionStorage.getItem('everstream.generation')).id")


def test_tokens_are_shown_as_they_arrive(page, fast, gate, artifacts):
    open_page(page, fast)
    expect(state(page)).to_have_text("Ready")
    send(page, texts=["The ", "sky"], hold_before=2, gate=gate.path)
    wait_for_answer(page, "The ")
    expect(state(page)).to_have_text("Streaming")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_label("Answer")).to_have_attribute("aria-busy", "true")
    page.screenshot(path=artifacts / "page-streaming.png")
    gate.open()
    expect(state(page)).to_have_text("Done, 2 tokens")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    assert answer(page) == "The sky"


def test_nasty_text_survives_exactly(page, fast):
    open_page(page, fast)
    send(page, texts=NASTY)
    expect(state(page)).to_have_text(f"Done, {len(NASTY)} tokens")
    assert answer(page) == "".join(NASTY)


def test_reload_mid_answer_resumes(page, fast, gate):
    open_page(page, fast)
    send(page, texts=["a", "b", "c"], hold_before=3, gate=gate.path)
    wait_for_answer(page, "ab")
    generation = generation_of(page)
    page.reload()
    wait_for_answer(page, "ab")
    expect(state(page)).to_have_text("Streaming")
    gate.open()
    expect(state(page)).to_have_text("Done, 3 tokens")
    assert answer(page) == "abc"
    assert generation_of(page) == generation


def test_stop_cancels_the_generation(page, fast, gate):
    open_page(page, fast)
    send(page, texts=["a", "b"], hold_before=2, gate=gate.path)
    wait_for_answer(page, "a")
    wait_for(lambda: fast.running() == 1)
    page.get_by_role("button", name="Stop").click()
    expect(state(page)).to_have_text("Stopped")
    wait_for(lambda: fast.running() == 0)
    assert fast.show(generation_of(page))["state"] == "cancelled"
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_failure_is_shown(page, fast):
    open_page(page, fast)
    send(page, texts=["a"], raise_before=1)
    expect(state(page)).to_contain_text("Failed: the model raised ValueError: told to raise")


def test_refused_prompt_is_shown(page, fast):
    open_page(page, fast)
    page.get_by_label("Prompt").fill("x" * 200_001)
    page.get_by_role("button", name="Send").click()
    expect(state(page)).to_have_text("Failed: prompt has 200001 characters; at most 200000 are allowed")


def test_second_prompt_replaces_the_first(page, fast):
    open_page(page, fast)
    for text in ("first", "second"):
        send(page, texts=[text])
        wait_for_answer(page, text)
        expect(state(page)).to_have_text("Done, 1 token")


def test_queued_without_an_engine(page, own_stack, artifacts):
    stack = own_stack()
    stack.start_valkey()
    stack.start_web()
    stack.submit(texts=["before"])
    open_page(page, stack)
    send(page, texts=["a"])
    expect(state(page)).to_have_text("Queued, position 2")
    page.screenshot(path=artifacts / "page-queued.png")
    stack.start_engine()
    expect(state(page)).to_have_text("Done, 1 token")


@pytest.fixture
def cut_off(page, own_stack, gate):
    """A stack whose web part was killed while it streamed to the page."""
    stack = own_stack().start()
    open_page(page, stack)
    send(page, texts=["a", "b", "c"], hold_before=3, gate=gate.path)
    wait_for_answer(page, "ab")
    stack.web.stop()
    return stack


def assert_recovers(page, stack, gate):
    """The page reports the lost connection, and shows the whole answer once the web part is back."""
    expect(state(page)).to_have_text("Connection lost, reconnecting…")
    gate.open()
    stack.start_web()
    expect(state(page)).to_have_text("Done, 3 tokens")
    assert answer(page) == "abc"


def test_gunicorn_killed_mid_answer(page, cut_off, gate):
    assert_recovers(page, cut_off, gate)


class Refusing(http.server.BaseHTTPRequestHandler):
    """A proxy whose upstream is down: its 503 closes an EventSource permanently."""

    seen: ClassVar[list[str]] = []

    def do_GET(self):
        self.seen.append(self.path)
        self.send_error(503)

    def log_message(self, *args):
        pass


def test_closed_eventsource_is_recreated_with_the_last_id(page, cut_off, gate):
    with http.server.ThreadingHTTPServer(("127.0.0.1", cut_off.port), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        generation = generation_of(page)
        expected = f"/generations/{generation}/events?last_event_id={generation}.2"
        wait_for_in_page(page, lambda: Refusing.seen.count(expected) >= 2)
        server.shutdown()
        thread.join()
    assert_recovers(page, cut_off, gate)


def wait_for_in_page(page, condition):
    """Like `wait_for`, but lets the browser process its events."""
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("timed out waiting for the condition")


@pytest.fixture
def naive(page, fast):
    """A page that opens an EventSource and never closes it."""
    open_page(page, fast)

    def listen(query):
        page.evaluate(
            """query => {
                window.seen = [];
                window.source = new EventSource('/stream?' + query);
                for (const type of ['message', 'done', 'failed', 'cancelled'])
                    source.addEventListener(type, event => seen.push([type, event.lastEventId, event.data]));
            }""",
            query,
        )

    return listen


def test_naive_eventsource_stops_after_the_end(page, naive):
    naive("texts=a&texts=b")
    wait_for_in_page(page, lambda: page.evaluate("source.readyState === EventSource.CLOSED"))
    seen = page.evaluate("seen")
    assert [row[0] for row in seen] == ["message", "message", "done"]


def test_naive_eventsource_survives_a_killed_gunicorn(page, own_stack, gate):
    stack = own_stack().start()
    open_page(page, stack)
    page.evaluate(
        """gate => {
            window.seen = [];
            window.source = new EventSource(`/stream?texts=a&texts=b&hold_before=2&gate=${gate}`);
            for (const type of ['message', 'done'])
                source.addEventListener(type, event => seen.push(Number(event.lastEventId.split('.')[1])));
        }""",
        gate.path,
    )
    wait_for_in_page(page, lambda: page.evaluate("seen.length === 1"))
    stack.web.stop()
    wait_for_in_page(page, lambda: page.evaluate("source.readyState === EventSource.CONNECTING"))
    gate.open()
    stack.start_web()
    wait_for_in_page(page, lambda: page.evaluate("source.readyState === EventSource.CLOSED"))
    assert page.evaluate("seen") == [1, 2, 3]


def test_page_has_a_strict_security_policy(fast):
    answer = requests.get(fast.url, timeout=30)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


STATES = [
    # The events; then the phase, the text and the status line.
    ([], "idle", "", "Ready"),
    (["connecting"], "connecting", "", "Connecting…"),
    ([("queued", "", {"position": 3})], "queued", "", "Queued, position 3"),
    ([("queued", "", {"position": 3}), ("queued", "", {"position": 0})], "connecting", "", "Connecting…"),
    ([("message", "g.1", {"text": "a"})], "streaming", "a", "Streaming"),
    ([("message", "g.1", {"text": "a"}), ("message", "g.1", {"text": "a"})], "streaming", "a", "Streaming"),
    ([("message", "g.1", {"text": "a", "n": 1})], "streaming", "json\n", "Streaming"),
    ([("message", "g.1", {"text": None})], "streaming", "json\n", "Streaming"),
    ([("message", "g.1", {"text": "a"}), ("message", "g.2", {"OUT": "b"})], "streaming", "ajson\n", "Streaming"),
    ([("message", "g.10", {"text": "a"}), ("message", "g.9", {"text": "b"})], "streaming", "a", "Streaming"),
    ([("message", "g.1", {"text": "a"}), "lost"], "reconnecting", "a", "Connection lost, reconnecting…"),
    ([("message", "g.1", {"text": "a"}), "lost", "connecting"], "streaming", "a", "Streaming"),
    ([("message", "g.1", {"text": "a"}), ("resumed", "g.2", {"attempt": 2})], "streaming", "a", "Streaming"),
    (["stopping", ("message", "g.1", {"text": "a"}), "lost"], "stopping", "a", "Stopping…"),
    (["stopping", ("cancelled", "g.1", {"reason": "requested"})], "cancelled", "", "Stopped"),
    ([("cancelled", "g.1", {"reason": "abandoned"})], "cancelled", "", "Stopped: nobody was reading"),
    ([("done", "g.1", {"finish_reason": "stop", "usage": None}), "lost"], "done", "", "Done"),
    (
        [("done", "g.1", {"finish_reason": "length", "usage": {"completion_tokens": 7}})],
        "done",
        "",
        "Done: stopped at the length limit, 7 tokens",
    ),
    ([("failed", "g.expired", {"message": "gone"}), ("message", "g.1", {"text": "a"})], "failed", "", "Failed: gone"),
]


def test_outputs_are_shown_as_the_server_sent_them(page, fast):
    """JavaScript has no exact number for this one."""
    open_page(page, fast)
    shown = page.evaluate(
        """async json => {
            const { applyEvent, initialState } = await import('/static/state.js');
            const event = { type: 'message', id: 'g.1', data: JSON.parse(json), json };
            return applyEvent(initialState(), event).text;
        }""",
        '{"n":9223372036854775807}',
    )
    assert shown == '{"n":9223372036854775807}\n'


@pytest.mark.parametrize(("events", "expected"), [(row[0], list(row[1:])) for row in STATES])
def test_events_change_the_state(page, fast, events, expected):
    open_page(page, fast)
    rows = [(event, "", None) if isinstance(event, str) else event for event in events]
    rows = [(*row, "json") for row in rows]
    found = page.evaluate(
        """async events => {
            const { applyEvent, describe, initialState } = await import('/static/state.js');
            const apply = (state, [type, id, data, json]) => applyEvent(Object.freeze(state), { type, id, data, json });
            const state = events.reduce(apply, initialState());
            return [state.phase, state.text, describe(state)];
        }""",
        rows,
    )
    assert found == expected


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A chat model, one that is no chat, and one that no engine runs."""
    models = {"say": MODELS / "scripted", "echo": MODELS / "echo", "absent": MODELS / "nowhere"}
    stack = Stack(tmp_path_factory.mktemp("several"), models=models, WEB_CONCURRENCY="1")
    try:
        stack.start_valkey()
        stack.start_web()
        for name in ("say", "echo"):
            stack.start_engine(name)
        wait_for(lambda: len(stack.readiness().get("engines", ())) == 2 and is_ready(stack, "echo"))
        yield stack
    finally:
        stack.stop()


def is_ready(stack, name):
    return next(model["state"] for model in stack.readiness()["models"] if model["name"] == name) == "ready"


def choose(page, name):
    page.get_by_label("Model").select_option(name)


def lines(page):
    return answer(page).split("\n")[:-1]


def outputs(page):
    """Of a model that is no chat: each line is the JSON of one output."""
    return [(output["input"], json.loads(output["json"])) for output in map(json.loads, lines(page))]


def test_no_choice_of_a_single_model(page, fast):
    open_page(page, fast)
    wait_for_in_page(page, lambda: page.evaluate("document.querySelector('#model').length === 1"))
    expect(page.get_by_label("Model")).to_be_hidden()
    expect(page.get_by_label("Prompt")).to_be_visible()


def test_chat_with_the_chosen_model(page, several):
    open_page(page, several)
    expect(page.get_by_label("Model")).to_have_value("say")
    assert page.get_by_label("Model").locator("option").all_text_contents() == ["say", "echo", "absent (loading)"]
    send(page, texts=["a", "b"])
    expect(state(page)).to_have_text("Done, 2 tokens")
    assert answer(page) == "ab"


def test_form_of_a_model_that_is_no_chat(page, several, artifacts):
    open_page(page, several)
    choose(page, "echo")
    expect(page.get_by_label("Prompt")).to_be_hidden()
    expect(page.get_by_label("text")).to_have_value("Say it out loud")
    speed = page.get_by_label("speed (optional)")
    expect(speed).to_have_attribute("placeholder", "1.25")
    assert [speed.get_attribute(name) for name in ("type", "min", "max", "value")] == ["number", "0.5", "2", None]
    speed.fill("1.5")
    page.get_by_label("seed (optional)").fill(str(2**63 - 1))
    page.get_by_label("voices (optional)").fill('["<b>bold</b>", "b\\u2028"]')
    page.get_by_label("is_loud (optional)").check()
    page.screenshot(path=artifacts / "page-form.png", full_page=True)
    page.get_by_role("button", name="Send").click()
    expect(state(page)).to_have_text("Done")
    page.screenshot(path=artifacts / "page-form-done.png", full_page=True)
    assert dict(outputs(page)) == {
        "text": "Say it out loud",
        "speed": 1.5,
        # JavaScript has no exact number for this one.
        "seed": 2**63 - 1,
        "is_loud": True,
        "voices": ["<b>bold</b>", "b\u2028"],
    }


def test_untouched_optional_inputs_are_left_out(page, several):
    open_page(page, several)
    choose(page, "echo")
    page.get_by_role("button", name="Send").click()
    expect(state(page)).to_have_text("Done")
    assert outputs(page) == [("text", "Say it out loud")]
    page.get_by_label("is_loud (optional)").check()
    page.get_by_label("is_loud (optional)").uncheck()
    page.get_by_role("button", name="Send").click()
    wait_for_in_page(page, lambda: outputs(page) == [("text", "Say it out loud"), ("is_loud", False)])


def test_mistakes_in_the_form_are_shown(page, several):
    open_page(page, several)
    choose(page, "echo")
    page.get_by_label("voices (optional)").fill("anna, ben")
    page.get_by_role("button", name="Send").click()
    expect(state(page)).to_have_text("Failed: voices must be JSON")
    page.get_by_label("voices (optional)").fill("[1]")
    page.get_by_role("button", name="Send").click()
    expect(state(page)).to_contain_text("Failed: each item of voices must be a string")


def test_reload_resumes_the_form(page, several):
    open_page(page, several)
    choose(page, "echo")
    page.get_by_label("text").fill("again")
    page.get_by_label("is_loud (optional)").check()
    page.get_by_role("button", name="Send").click()
    expect(state(page)).to_have_text("Done")
    generation, seen = generation_of(page), outputs(page)
    page.reload()
    expect(state(page)).to_have_text("Done")
    assert (generation_of(page), outputs(page)) == (generation, seen)
    expect(page.get_by_label("Model")).to_have_value("echo")
    expect(page.get_by_label("text")).to_have_value("again")
    expect(page.get_by_label("is_loud (optional)")).to_be_checked()


def test_choice_keeps_what_was_typed(page, several):
    open_page(page, several)
    choose(page, "echo")
    page.get_by_label("text").fill("typed")
    choose(page, "say")
    expect(page.get_by_label("Prompt")).to_be_visible()
    expect(page.locator("#fields")).to_be_hidden()
    choose(page, "echo")
    expect(page.get_by_label("text")).to_have_value("typed")


def test_model_that_is_loading_gets_its_form_when_it_is_known(page, several):
    open_page(page, several)
    choose(page, "absent")
    expect(page.get_by_text("absent is loading…")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    engine = several.start_engine("absent", MODELS=f"absent={MODELS / 'plain'}")
    expect(page.get_by_label("count")).to_have_value("3")
    page.get_by_role("button", name="Send").click()
    expect(state(page)).to_have_text("Done")
    assert answer(page) == "0 1 2 "
    engine.stop()


OUT_APP = """
class InferlessPythonModel:
    def infer(self, inputs):
        return {"OUT": inputs["prompt"].upper(), **inputs}
"""
PROMPT, SIZE = (
    "'prompt': {'datatype': 'STRING', 'is_prompt': True}",
    "'size': {'datatype': 'INT32', 'required': True, 'example': [7]}",
)


@pytest.fixture
def prompted(own_stack, tmp_path):
    """Models with an input `prompt` that don't send text. `sized` requires another input."""
    for name, declared in (("out", PROMPT), ("sized", f"{PROMPT}, {SIZE}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(OUT_APP)
        (tmp_path / name / "input_schema.py").write_text(f"INPUT_SCHEMA = {{{declared}}}\n")
    models = {name: tmp_path / name for name in ("out", "sized")}
    return own_stack(models=models, WEB_CONCURRENCY="1").start()


def test_prompt_whose_answer_is_no_text(page, prompted):
    open_page(page, prompted)
    page.get_by_label("Prompt").fill("a")
    page.get_by_role("button", name="Send").click()
    expect(state(page)).to_have_text("Done")
    assert lines(page) == ['{"OUT":"A","prompt":"a"}']
    choose(page, "sized")
    expect(page.locator("#prompt-field")).to_be_hidden()
    page.locator("#fields [name=prompt]").fill("b")
    page.get_by_role("button", name="Send").click()
    wait_for_in_page(page, lambda: lines(page) == ['{"OUT":"B","prompt":"b","size":7}'])


def test_older_reply_about_the_models_is_ignored(page, fast):
    """Else each choice of a model that is loading would add another loop of requests."""
    open_page(page, fast)
    seen = page.evaluate(
        """async () => {
            const { watchModels } = await import('/static/models.js');
            const [replies, timers, seen] = [[], [], []];
            const wait = window.setTimeout;
            window.fetch = () => new Promise((resolve) => { replies.push(resolve); });
            window.setTimeout = (call) => { timers.push(call); };
            const askAgain = watchModels((models) => seen.push(models), () => false);
            askAgain();
            for (const number of [1, 0]) {
                replies[number]({ ok: true, json: async () => ({ models: number }) });
                await new Promise((resolve) => { wait(resolve, 0); });
            }
            return [seen, timers.length];
        }"""
    )
    assert seen == [[1], 1]
