"""everstream-client in a real Chromium, with the real service: what an answer gives, in all three transports."""

import json

import pytest

from harness.browsers import fresh_page
from harness.stack import wait_for
from tests.browser.client_page import (
    TRANSPORTS,
    assert_whole,
    begin,
    error,
    events,
    numbers,
    open_client,
    result,
    wait_for_text,
    wait_in,
)
from tests.stack.test_wire import NASTY


@pytest.fixture(params=TRANSPORTS)
def options(request):
    return TRANSPORTS[request.param]


@pytest.fixture
def client(page, fast, options):
    return open_client(page, fast.url, **options)


def test_result_and_events(client, fast):
    begin(client, "start", {"texts": ["The ", "sky"]})
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    found = result(client)
    generation = client.evaluate("last.answer.id")
    assert found == {
        "id": generation,
        "text": "The sky",
        "state": "done",
        "finish_reason": "stop",
        "usage": usage,
    }
    assert numbers(client) == [0, 1, 2, 3]
    types = client.evaluate("last.events.map(({ type }) => type)")
    entries = [kind for kind in types if kind in ("open", "message", "done")]
    assert types[:2] == ["connecting", "started"] and entries == ["open", "message", "message", "done"]
    assert "connected" in types
    assert client.evaluate("last.events.every(({ data, json }) => JSON.stringify(data) === json)")


def test_texts_survive_exactly(client):
    found = client.evaluate(
        """async texts => {
            const pieces = [];
            for await (const text of client.start({ texts }).texts()) pieces.push(text);
            return pieces;
        }""",
        NASTY,
    )
    assert found == NASTY


@pytest.mark.parametrize("late", [False, True])
def test_loops_get_all_events(client, late):
    found = client.evaluate(
        """async late => {
            const answer = client.start({ texts: ['a', 'b'] });
            if (late) await answer.result();
            const seen = [[], []];
            await Promise.all(seen.map(async (list) => {
                for await (const { type, n } of answer) list.push([type, n]);
            }));
            return seen;
        }""",
        late,
    )
    assert found == [[["open", 0], ["message", 1], ["message", 2], ["done", 3]]] * 2


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        ("""() => JSON.stringify({ texts: ['a'] })""", "a"),
        ("""() => ({ texts: ['b'], repeat: 2 })""", "bb"),
        ("""() => new everstream.JsonInputs(' {"texts":["c"]} ')""", "c"),
    ],
)
def test_kinds_of_input(client, make, expected):
    client.evaluate(f"() => {{ begin('start', ({make})(), {{ flushMs: 0 }}); }}")
    assert_whole(client, expected)


def test_messages_are_sent_as_such(client):
    begin(client, "start", [{"role": "user", "content": "hi"}])
    assert (error(client)["code"], error(client)["param"]) == ("invalid_request", "messages")


@pytest.mark.parametrize("make", ["5", "null", "undefined", "new everstream.JsonInputs('[1]')", "{ n: 1n }"])
def test_impossible_inputs_throw_at_once(client, make):
    names = client.evaluate(
        f"() => {{ try {{ client.start({make}); return ''; }} catch (error) {{ return error.name; }} }}"
    )
    assert names == "TypeError"


@pytest.mark.parametrize("method", ["follow", "stop"])
def test_ids_are_checked(client, method):
    script = "method => { try { client[method]('../models'); return ''; } catch (error) { return error.name; } }"
    assert client.evaluate(script, method) == "TypeError"


def test_refused_start(client):
    begin(client, "start", {"texts": [1]})
    found = error(client)
    assert (found["name"], found["code"], found["status"]) == ("EverstreamError", "invalid_request", 400)
    assert events(client, "failed")[0]["code"] == "invalid_request"
    thrown = client.evaluate(
        """async () => {
            for (const loop of [last.answer, last.answer.texts()]) {
                try {
                    for await (const _ of loop) return 'an event';
                    return 'no error';
                } catch (error) {
                    if (error !== last.answer.error) return String(error);
                }
            }
            return 'the error';
        }"""
    )
    assert thrown == "the error"


def test_failed_generation_never_looks_whole(client):
    begin(client, "start", {"texts": ["a", "b"], "raise_before": 2})
    assert error(client)["code"] == "model_error"
    found = client.evaluate(
        """async () => {
            const pieces = [];
            try {
                for await (const text of last.answer.texts()) pieces.push(text);
                return null;
            } catch (error) {
                return [pieces, error.code];
            }
        }"""
    )
    assert found == [["a"], "model_error"]


def test_unknown_generation(client):
    begin(client, "follow", "0" * 32)
    assert error(client)["code"] == "generation_expired"
    client.evaluate("id => client.stop(id)", "0" * 32)


def test_error_in_a_callback_harms_no_one(chromium, fast, options):
    page = chromium.new_page()
    reported = []
    page.on("pageerror", lambda raised: reported.append(str(raised)))
    open_client(page, fast.url, **options)
    page.evaluate("() => { client.start({ texts: ['x'] }, { onText: () => { throw new Error('mine'); } }); }")
    begin(page, "start", {"texts": ["a", "b"]})
    assert_whole(page, "ab")
    wait_in(page, lambda: reported == ["mine"])
    page.close()


@pytest.mark.parametrize("after", range(-1, 4))
def test_follow_after_any_entry(client, fast, after):
    generation = fast.submit(texts=["a", "b"])
    wait_for(lambda: fast.show(generation)["state"] == "done")
    begin(client, "follow", generation, after=after)
    assert result(client)["text"] == "ab"[max(after, 0) :]
    # How it ended is told in any case.
    assert numbers(client) == list(range(min(after + 1, 3), 4))


def test_follow_after_what_the_log_lost(client, fast):
    generation = fast.submit(texts=["a"])
    wait_for(lambda: fast.show(generation)["state"] == "done")
    for after in (3, 7):
        begin(client, "follow", generation, after=after)
        assert error(client)["code"] == "entries_lost"


def test_follow_after_what_a_running_log_lost(client, fast, gate):
    generation = fast.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    wait_for(lambda: fast.show(generation)["last"] == 1)
    begin(client, "follow", generation, after=2)
    assert error(client)["code"] == "entries_lost"


def test_second_follower_from_an_earlier_place(client, fast, gate):
    generation = fast.submit(texts=["a", "b", "c", "d"], hold_before=4, gate=gate.path)
    # Nobody can have an entry before the log has it.
    wait_for(lambda: fast.show(generation)["last"] == 3)
    begin(client, "follow", generation, after=2)
    wait_for_text(client, "c")
    client.evaluate("() => { window.first = last; }")
    begin(client, "follow", generation)
    wait_for_text(client, "abc")
    gate.open()
    assert_whole(client, "abcd")
    assert client.evaluate("first.events.map(({ n }) => n).filter((n) => n !== null)") == [3, 4, 5]
    assert client.evaluate("first.answer.text") == "cd"


def test_stop(client, fast, gate):
    begin(client, "start", {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path})
    wait_for_text(client, "a")
    client.evaluate("() => last.answer.stop()")
    assert error(client)["code"] == "cancelled"
    assert events(client, "cancelled") == [{"reason": "requested"}]
    # Also after the end.
    client.evaluate("() => last.answer.stop()")


def test_stop_before_the_start_is_answered(client, fast, gate):
    script = """async inputs => {
        const answer = client.start(inputs);
        const stopped = answer.stop();
        answer.close();
        await stopped;
        return answer.id;
    }"""
    generation = client.evaluate(script, {"texts": ["a", "b"], "hold_before": 1, "gate": gate.path})
    wait_for(lambda: fast.show(generation)["state"] == "cancelled")


STAGES = {"post": "() => {}", "start": "() => last.answer.id", "text": "() => last.answer.text"}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["abort", "close"])
def test_abort_at_each_stage(client, fast, gate, stage, how):
    """It ends the reading, and leaves the generation running."""
    inputs = {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path}
    client.evaluate(
        """inputs => {
            window.controller = new AbortController();
            begin('start', inputs, { signal: controller.signal });
            window.loop = (async () => { for await (const _ of last.answer); })();
            loop.catch(() => {});
        }""",
        inputs,
    )
    if stage != "post":
        wait_in(client, f"({STAGES[stage]})()")
    client.evaluate("how => { if (how === 'abort') controller.abort(); else last.answer.close(); }", how)
    thrown = client.evaluate("() => loop.then(() => null, ({ name, code }) => [name, code])")
    assert thrown == (["AbortError", 20] if how == "abort" else ["EverstreamError", "closed"])
    assert error(client)["name"] == thrown[0]
    wait_for(lambda: fast.streams() == 0)
    if generation := client.evaluate("last.answer.id"):
        assert fast.show(generation)["state"] == "running"
    gate.open()


def test_signal_that_was_aborted_before(client, fast):
    found = client.evaluate(
        """async () => {
            const answer = client.start('{}', { signal: AbortSignal.abort(null) });
            const loop = (async () => { for await (const _ of answer); })();
            const say = (promise) => promise.then(() => 'whole', (error) => String(error));
            return [answer.isOver, await say(answer.result()), await say(loop)];
        }"""
    )
    assert found == [True, "null", "null"]


def test_nothing_is_left_of_an_answer_that_ended(client, fast):
    """No listener on a signal that outlives it, and no connection."""
    found = client.evaluate(
        """async () => {
            const { signal } = new AbortController();
            let listening = 0;
            const { addEventListener } = signal;
            signal.addEventListener = (name, listener, options) => {
                listening += 1;
                options.signal.addEventListener('abort', () => { listening -= 1; });
                addEventListener.call(signal, name, listener, options);
            };
            await client.start({ texts: ['a'] }, { signal }).result();
            return listening;
        }"""
    )
    assert found == 0
    wait_for(lambda: fast.streams() == 0)


def test_leaving_a_loop_closes_the_answer(client, fast, gate):
    found = client.evaluate(
        """async inputs => {
            const answer = client.start(inputs);
            for await (const text of answer.texts()) break;
            return [answer.isOver, answer.error.code];
        }""",
        {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path},
    )
    assert found == [True, "closed"]
    wait_for(lambda: fast.streams() == 0)


def test_closed_client(client, fast, gate):
    begin(client, "start", {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path})
    wait_for_text(client, "a")
    client.evaluate("client.close()")
    assert error(client)["code"] == "closed"
    wait_for(lambda: fast.streams() == 0)
    # It can be used again.
    begin(client, "start", {"texts": ["again"]})
    assert_whole(client, "again")
    script = """async () => {
        client.close();
        const types = [];
        for await (const { type } of last.answer) types.push(type);
        return types;
    }"""
    assert client.evaluate(script) == ["open", "message", "done"]


def test_callbacks_have_the_answer(client):
    script = """async () => {
        const seen = [];
        const answer = client.start({ texts: ['a'] }, { onEvent: ({ type }) => seen.push([type, answer.id !== '']) });
        await answer.result();
        return seen[0];
    }"""
    assert client.evaluate(script) == ["connecting", False]


def test_more_generations_than_one_stream_takes(client, fast):
    found = client.evaluate(
        """async () => {
            const answers = Array.from({ length: 40 }, (_, n) => client.start({ texts: [`${n}.`, 'x'] }));
            return (await Promise.all(answers.map((answer) => answer.result()))).map(({ text }) => text);
        }"""
    )
    assert found == [f"{n}.x" for n in range(40)]


def test_two_clients_in_one_page(page, fast, plain):
    """Of two services: the second is of another origin, and can't be asked before it allows that."""
    open_client(page, fast.url)
    page.goto(f"{fast.url}/healthz")
    found = page.evaluate(
        """async url => {
            const { createClient } = await import('/static/client/everstream.js');
            const [own, other] = [createClient(), createClient({ baseUrl: url })];
            const reasons = [];
            const answer = other.start({ count: 2 }, { onEvent: ({ type, data }) => {
                if (type === 'reconnecting') {
                    reasons.push(data.reason.code);
                    answer.close();
                }
            } });
            await answer.result().catch(() => {});
            return [(await own.start({ texts: ['a'] }).result()).text, reasons];
        }""",
        plain.url,
    )
    assert found == ["a", ["connection_lost"]]


def test_numbers_that_javascript_would_round(client):
    bodies = []
    client.on("request", lambda request: bodies.append(request.post_data) if request.method == "POST" else None)
    text = '{ "texts": ["a"], "seed": 9223372036854775807, "request_id": "not this one" }'
    script = "text => { begin('start', new everstream.JsonInputs(text), { requestId: 'the-one-that-was-given' }); }"
    client.evaluate(script, text)
    assert error(client)["param"] == "seed"
    assert '"seed": 9223372036854775807' in bodies[0]
    assert json.loads(bodies[0])["request_id"] == "the-one-that-was-given"


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_firefox(firefox, fast, gate, kind):
    with fresh_page(firefox) as page:
        open_client(page, fast.url, **TRANSPORTS[kind])
        begin(page, "start", {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path})
        wait_for_text(page, "a")
        page.evaluate("client.interrupt()")
        wait_in(page, lambda: len(events(page, "connected")) == 2)
        gate.open()
        assert_whole(page, "ab")
