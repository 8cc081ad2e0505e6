"""The Python client when parts die, links break or freeze, and proxies answer: nothing is lost, nothing is repeated."""

import ssl

import psutil
import pytest

from everstream.client import Client, GaveUp, RequestRefused
from harness.cutting_proxy import CuttingProxy
from harness.python_client import READERS, meanwhile
from harness.stack import nginx_executable, running_stack, wait_for

TEXTS = ["a", "b", "c", "d"]


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.fixture
def proxy(fast):
    with CuttingProxy(fast.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    """A stack whose parts these tests kill and replace."""
    with running_stack(tmp_path_factory.mktemp("mortal"), WEB_CONCURRENCY="1") as stack:
        yield stack


def assert_whole(result, events, texts=TEXTS):
    numbers = [event.n for event in events if event.n is not None]
    assert numbers == list(range(len(numbers)))
    assert [event.text for event in events if event.type == "message"] == texts
    assert (result.text, result.state) == ("".join(texts), "done")


def after_entry(n, action):
    """An `on_event` that acts once this entry was read."""

    def on_event(event, answer):
        if event.n == n:
            action()

    return on_event


def test_worker_killed(mortal, reader, gate):
    """The worker that serves the stream; gunicorn starts another."""

    def kill():
        (pid,) = mortal.workers()
        psutil.Process(pid).kill()
        gate.open()

    result, events = reader.answer(mortal.url, after_entry(2, kill), texts=TEXTS, hold_before=3, gate=gate.path)
    assert_whole(result, events)


def test_only_gunicorn_killed(mortal, reader, gate):
    def replace():
        mortal.web.stop()
        gate.open()
        mortal.start_web()

    result, events = reader.answer(mortal.url, after_entry(2, replace), texts=TEXTS, hold_before=3, gate=gate.path)
    assert_whole(result, events)


def test_engine_killed(mortal, reader, gate):
    def replace():
        mortal.engines[-1].kill()
        mortal.start_engine()
        gate.open()

    result, events = reader.answer(mortal.url, after_entry(2, replace), texts=TEXTS, hold_before=3, gate=gate.path)
    assert_whole(result, events)
    assert [event.data["attempt"] for event in events if event.type == "resumed"] == [2]


def test_post_whose_answer_is_lost(fast, proxy, reader):
    begun = fast.metric("generations_started_total")
    proxy.mode = "cut"

    def heal():
        wait_for(lambda: proxy.cuts, what="a lost answer")
        proxy.mode = "pass"

    with meanwhile(heal):
        result, events = reader.answer(proxy.url, texts=TEXTS)
    assert_whole(result, events)
    assert fast.metric("generations_started_total") == begun + 1


def test_stream_cut(proxy, reader, gate):
    def cut():
        proxy.cut_now()
        gate.open()

    result, events = reader.answer(proxy.url, after_entry(2, cut), texts=TEXTS, hold_before=3, gate=gate.path)
    assert_whole(result, events)
    assert proxy.accepted == 2


def test_server_gone_for_a_while(proxy, reader, gate):
    def leave():
        proxy.mode = "refuse"
        gate.open()

    def come_back():
        wait_for(lambda: proxy.mode == "refuse", what="the fault")
        proxy.mode = "pass"

    with meanwhile(come_back):
        result, events = reader.answer(proxy.url, after_entry(2, leave), texts=TEXTS, hold_before=3, gate=gate.path)
    assert_whole(result, events)


def freeze_until_noticed(proxy):
    """Freeze all connections, and relay again once the client has made another."""
    wait_for(lambda: proxy.mode == "freeze", what="the fault")
    known = proxy.accepted
    wait_for(lambda: proxy.accepted > known, what="the client to notice that the link is dead")
    proxy.mode = "pass"


def test_frozen_link(proxy, reader, gate):
    """No byte and no error comes: only the missing pings show it."""

    def freeze():
        proxy.mode = "freeze"
        gate.open()

    with meanwhile(freeze_until_noticed, proxy):
        result, events = reader.answer(proxy.url, after_entry(2, freeze), texts=TEXTS, hold_before=3, gate=gate.path)
    assert_whole(result, events)


def test_frozen_link_with_tls(own_stack, reader, gate):
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    stack = own_stack().start()
    stack.start_nginx(tls=True)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with CuttingProxy(stack.tls_port) as proxy:
        url = proxy.url.replace("http:", "https:")

        def freeze():
            proxy.mode = "freeze"
            gate.open()

        with meanwhile(freeze_until_noticed, proxy):
            result, events = reader.answer(
                url,
                after_entry(2, freeze),
                texts=TEXTS,
                hold_before=3,
                gate=gate.path,
                options={"transport": reader.transport(verify=trusting)},
            )
        assert_whole(result, events)
        with pytest.raises(RequestRefused) as raised:
            reader.answer(url, texts=TEXTS)
        assert raised.value.code == "certificate_refused"


def test_slow_reader_is_not_a_dead_link(proxy, gate):
    """The watchdog counts only the time in which the client waits for bytes."""
    with Client(proxy.url) as client:
        answer = client.start(texts=TEXTS, hold_before=2, gate=gate.path)
        assert next(answer.texts()) == "a"
        watched = answer._link
        assert watched.silence_s == 2.0
        assert client.watchdog._check(watched, float("inf")) == 2.0
        gate.open()
        assert answer.result().text == "abcd"


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (502, b"<html>Bad Gateway</html>", {"content_type": "text/html"}),
        (429, b"", {"retry_after": "1"}),
        (503, b"<html>", {"retry_after": "soon"}),
        (200, b"<html>Sign in</html>", {"content_type": "text/html"}),
        (408, b"", {}),
    ],
)
def test_proxies_that_answer_for_now(proxy, reader, status, body, headers):
    """To the POST, to the stream's GET, and to the DELETE."""
    proxy.answer(status, body, **headers)
    result, events = reader.answer(proxy.url, texts=TEXTS)
    assert_whole(result, events)
    proxy.answer(status, body, **headers)
    result, events = reader.answer(proxy.url, follow=result.id)
    assert_whole(result, events)
    proxy.answer(status, body, **headers)
    assert reader.stop(proxy.url, result.id) == "done"
    assert not proxy.answers


@pytest.mark.parametrize("status", [401, 403, 404, 413, 302])
def test_proxies_that_refuse(fast, proxy, reader, status):
    generation = fast.submit(texts=["a"])
    calls = [
        lambda: reader.answer(proxy.url, texts=["a"]),
        lambda: reader.answer(proxy.url, follow=generation),
        lambda: reader.stop(proxy.url, generation),
    ]
    for call in calls:
        proxy.answer(status, b"<html>", location="https://elsewhere/")
        with pytest.raises(RequestRefused) as raised:
            call()
        assert raised.value.status == status


def test_status_204_from_a_proxy(proxy, reader):
    """It is no proof that all has been read."""
    whole, _ = reader.answer(proxy.url, texts=TEXTS)
    proxy.answer(204)
    assert_whole(*reader.answer(proxy.url, follow=whole.id))
    proxy.answer(204)
    rest, events = reader.answer(proxy.url, follow=whole.id, after=2)
    assert (rest.text, [event.n for event in events]) == ("cd", [3, 4, 5])
    assert not proxy.answers


def test_giving_up(proxy, reader):
    proxy.mode = "refuse"
    with pytest.raises(GaveUp) as raised:
        reader.answer(proxy.url, texts=TEXTS, options={"give_up_after_s": 1})
    assert raised.value.code == "connection_lost"


def test_giving_up_in_the_middle(proxy, reader, gate):
    def leave():
        proxy.mode = "refuse"

    with pytest.raises(GaveUp):
        reader.answer(
            proxy.url,
            after_entry(2, leave),
            texts=TEXTS,
            hold_before=3,
            gate=gate.path,
            options={"give_up_after_s": 1},
        )


def test_server_that_never_answers(proxy, reader):
    proxy.mode = "freeze"
    with pytest.raises(GaveUp) as raised:
        reader.answer(proxy.url, texts=TEXTS, options={"give_up_after_s": 0, "request_timeout_s": 0.2})
    assert raised.value.code == "timeout"
    with pytest.raises(GaveUp):
        reader.answer(proxy.url, follow="0" * 32, options={"give_up_after_s": 0, "request_timeout_s": 0.2})


def test_full_server(own_stack, reader, gate):
    """In place of 503 it sends `busy`, which is waited for, and says why if the client gives up."""
    stack = own_stack(WEB_CONCURRENCY="1", EVERSTREAM_MAX_STREAMS="1").start()
    generation = stack.submit(texts=TEXTS, hold_before=3, gate=gate.path)
    with Client(stack.url) as client, client.follow(generation) as holder:
        next(holder)
        with pytest.raises(GaveUp) as raised:
            reader.answer(stack.url, follow=generation, options={"give_up_after_s": 1})
        assert raised.value.code == "too_many_streams"
        holder.close()
        gate.open()
        result, events = reader.answer(stack.url, follow=generation)
    assert_whole(result, events)
