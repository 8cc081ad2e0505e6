"""The page of examples/audio in a real Chromium, behind its own small server."""

import os
import runpy
import sys

import pytest
from playwright.sync_api import expect

from everstream.settings import PROJECT_ROOT
from harness.stack import Process, free_port, listening, wait_for
from tests.stack.test_examples import PIECE_FRAMES, SAMPLE_RATE

EXAMPLE = PROJECT_ROOT / "examples" / "audio"
MODEL = runpy.run_path(str(EXAMPLE / "app.py"))
# Five seconds of generation, to be interrupted.
NOTES = "CDECCDECEFG-EFG-GAGFECCD"
PIECES = 2 * len(NOTES)
RECORD = """
    window.played = [];
    const start = AudioBufferSourceNode.prototype.start;
    AudioBufferSourceNode.prototype.start = function (when) {
        played.push({ when, rate: this.buffer.sampleRate, samples: Array.from(this.buffer.getChannelData(0)) });
        start.call(this, when);
    };
"""


@pytest.fixture
def stack(own_stack):
    return own_stack(app_dir=EXAMPLE).start()


@pytest.fixture
def listener(page, stack, tmp_path):
    """The page, opened and recording what it plays."""
    port = free_port()
    command = [sys.executable, str(EXAMPLE / "serve.py"), str(port), f"127.0.0.1:{stack.port}"]
    server = Process("page", command, dict(os.environ), tmp_path)
    wait_for(lambda: port in listening(server), what="the page's server")
    page.add_init_script(RECORD)
    page.goto(f"http://127.0.0.1:{port}")
    page.get_by_label("Notes").fill(NOTES)
    yield page
    page.goto("about:blank")
    server.stop()


def status(page):
    return page.get_by_role("status")


def played(page):
    return page.evaluate("played")


def assert_whole_melody(page):
    """Every sample of the melody was played, once and in order."""
    pieces = played(page)
    samples = [round(sample * 32768) for piece in pieces for sample in piece["samples"]]
    assert samples == [MODEL["sample"](NOTES, at) for at in range(PIECES * PIECE_FRAMES)]
    assert {piece["rate"] for piece in pieces} == {SAMPLE_RATE}


def test_pieces_play_without_gaps(listener):
    listener.get_by_role("button", name="Play").click()
    expect(status(listener)).to_have_text(f"Done, {PIECES} pieces")
    assert_whole_melody(listener)
    starts = [piece["when"] for piece in played(listener)]
    expected = [starts[0] + number * PIECE_FRAMES / SAMPLE_RATE for number in range(PIECES)]
    assert starts == pytest.approx(expected, abs=1e-6)
    expect(listener.get_by_role("button", name="Play")).to_be_enabled()


def test_lost_connection_repeats_and_skips_nothing(listener, stack):
    requests = []
    listener.on("request", lambda request: requests.append(request.url))
    listener.get_by_role("button", name="Play").click()
    listener.wait_for_function("played.length >= 3")
    stack.web.stop()
    expect(status(listener)).to_contain_text("Connection lost")
    assert len(played(listener)) < PIECES
    stack.start_web()
    expect(status(listener)).to_have_text(f"Done, {PIECES} pieces")
    assert_whole_melody(listener)
    assert len([url for url in requests if "/stream?" in url]) >= 2


def test_closed_eventsource_is_recreated_with_the_last_id(listener, stack):
    """An error status closes an EventSource for good, so the page makes a new one."""
    urls = []
    listener.on("request", lambda request: urls.append(request.url))
    listener.get_by_role("button", name="Play").click()
    listener.wait_for_function("played.length >= 3")
    listener.route("**/stream?*", lambda route: route.fulfill(status=503))
    stack.web.stop()
    with listener.expect_request(lambda request: "last_event_id=" in request.url):
        pass
    listener.unroute("**/stream?*")
    stack.start_web()
    expect(status(listener)).to_have_text(f"Done, {PIECES} pieces")
    assert_whole_melody(listener)


def test_failure_is_shown(listener):
    listener.get_by_label("Notes").fill("C")
    listener.route("**/stream?*", lambda route: route.fulfill(body=FAILED, content_type="text/event-stream"))
    listener.get_by_role("button", name="Play").click()
    expect(status(listener)).to_have_text("Failed: no engine, 0 pieces")


FAILED = 'event: failed\nid: 0.1\ndata: {"code": "model_failed", "message": "no engine"}\n\n'
