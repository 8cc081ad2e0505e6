"""What the dashboard makes of the service's figures."""

import gevent
import pytest
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import ResponseError

from everstream.apis.dashboard.history import CHART_S, History
from everstream.apis.dashboard.percentiles import percentiles
from everstream.apis.dashboard.sampler import MAX_VIEWERS, Sampler
from everstream.errors import TooManyStreams
from everstream.log.counters import COUNTERS
from everstream.log.figures import Figures
from everstream.log.histograms import INTER_TOKEN_LATENCY, KINDS, TIME_TO_FIRST_TOKEN, totals
from everstream.log.records import EngineStatus
from everstream.settings import load_settings
from everstream.web.open_streams import OpenStreams
from harness.sse_client import Decoder

TIMEOUT_S = 30
FIRST, GAP = f"{TIME_TO_FIRST_TOKEN.name}|", f"{INTER_TOKEN_LATENCY.name}|"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 0, 0, 0], None),
        # Evenly spread in their bucket.
        ([100, 0, 0, 0], (0.5, 0.9, 0.99)),
        ([0, 100, 0, 0], (1.5, 1.9, 1.99)),
        ([50, 50, 0, 0], (1.0, 1.8, 1.98)),
        ([0, 0, 10, 0], (3.0, 3.8, 3.98)),
        ([1, 0, 1, 0], (1.0, 3.6, 3.96)),
        # Above all bounds, only the highest is known.
        ([0, 0, 0, 7], (4.0, 4.0, 4.0)),
        ([98, 0, 0, 2], (50 / 98, 90 / 98, 4.0)),
        ([0, 1, 0, 0], (1.5, 1.9, 1.99)),
    ],
)
def test_percentiles(counts, expected):
    found = percentiles((1.0, 2.0, 4.0), counts)
    assert (found and (found.p50, found.p90, found.p99)) == (expected and pytest.approx(expected))


def figures(at, streams=0, engines=(), **counted):
    known = counted
    return Figures(
        at,
        {name: known.get(name, 0) for name in COUNTERS},
        {kind.name: totals(kind, known) for kind in KINDS},
        {},
        list(engines),
        queued=2,
        log_bytes=10,
        streams=streams,
    )


def test_rates_are_of_the_last_seconds_and_percentiles_of_the_last_minute():
    history = History(100)
    first = history.add(figures(0, tokens_generated=1000))
    assert first.point.tokens_per_s is first.point.inter_token_latency is None
    assert (first.window_s, first.recent.tokens, first.totals.tokens) == (0, 0, 1000)
    for at in range(1, 200):
        gaps = {f"{GAP}:0.025": 9 * at, f"{GAP}:0.5": at if at > 100 else 0}
        tokens = 1000 + 10 * at + 20 * max(0, at - 190)
        shown = history.add(figures(at, streams=at, tokens_generated=tokens, **gaps))
    assert (shown.point.streams, shown.point.queued, shown.log.bytes, shown.log.max_bytes) == (199, 2, 10, 100)
    assert (shown.point.tokens_per_s, shown.point.outputs_per_s) == (30, 10)
    assert (shown.window_s, shown.recent.tokens, shown.totals.tokens) == (60, 780, 3170)
    latency = shown.point.inter_token_latency
    assert latency.p50 == pytest.approx(0.01 + 0.015 * 300 / 540)
    assert shown.point.time_to_first_token is None
    assert (len(history.points), len(history._samples)) == (200, 61)


def test_points_are_those_of_five_minutes():
    history = History(100)
    for at in range(0, 1000):
        history.add(figures(at))
    assert [history.points[0].at, history.points[-1].at] == [999 - CHART_S, 999]


@pytest.mark.parametrize("counted", [{"resumes": 4}, {f"{FIRST}:0.01": 1}])
def test_log_that_began_anew_is_not_compared_with_the_old_one(counted):
    history = History(100)
    history.add(figures(0, **dict.fromkeys(counted, 9)))
    shown = history.add(figures(1, **counted))
    assert (shown.window_s, shown.recent.resumes, len(history.points)) == (0, 0, 1)


def test_engines_are_shown_and_only_ready_ones_count_as_running():
    ready = EngineStatus("a", "ready", "m", running=3, uptime_s=7)
    shown = History(100).add(figures(0, engines=[ready, EngineStatus("b", "loading", "m", running=9)]))
    assert shown.point.running == 3
    assert [(each.name, each.uptime_s) for each in shown.engines] == [("a", 7), ("b", None)]


class Log:
    """Figures whose time is the number of the read."""

    def __init__(self):
        self.reads = 0
        self.error = None

    def read(self):
        self.reads += 1
        if self.error:
            raise self.error
        return figures(self.reads)


@pytest.fixture
def log():
    with gevent.Timeout(TIMEOUT_S):
        yield Log()


@pytest.fixture
def sampler(log, monkeypatch):
    monkeypatch.setattr("everstream.apis.dashboard.sampler.EVERY_S", 0.001)
    return Sampler(log.read, 100)


def next_event(viewer):
    (event,) = Decoder().feed(viewer.next(TIMEOUT_S))
    return event


def wait_for_reads(log, count):
    while log.reads < count:
        gevent.sleep(0.001)


def test_slow_viewer_gets_the_newest_figures_only(sampler, log):
    viewer = sampler.open()
    wait_for_reads(log, 50)
    seen = next_event(viewer).json["point"]["at"]
    assert seen >= 49
    wait_for_reads(log, log.reads + 50)
    assert next_event(viewer).json["point"]["at"] >= seen + 49


def test_nothing_is_read_without_viewers_and_one_sampler_serves_all(sampler, log):
    gevent.sleep(0.01)
    assert log.reads == 0
    viewers = [sampler.open() for _ in range(MAX_VIEWERS)]
    with pytest.raises(TooManyStreams):
        sampler.open()
    first = {next_event(viewer).json["point"]["at"] for viewer in viewers}
    assert first == {1}
    for viewer in viewers:
        viewer.close()
    while sampler._is_running:
        gevent.sleep(0.001)
    reads = log.reads
    gevent.sleep(0.01)
    assert log.reads == reads
    again = sampler.open()
    assert next_event(again).json["point"]["at"] == reads + 1
    again.close()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValkeyConnectionError("gone"), "Valkey does not answer"),
        (ResponseError("NOPERM"), "Valkey refuses to be read: NOPERM"),
        (KeyError("bug"), "something went wrong in the server; its log has the details"),
    ],
)
def test_viewers_are_told_that_nothing_is_known_until_it_is_again(sampler, log, error, message):
    log.error = error
    viewer = sampler.open()
    event = next_event(viewer)
    assert (event.type, event.json) == ("away", {"message": message})
    log.error = None
    while (event := next_event(viewer)).type == "away":
        pass
    assert event.json["point"]["at"] == log.reads
    viewer.close()


def test_second_viewer_need_not_wait_for_the_next_figures(sampler, log, monkeypatch):
    monkeypatch.setattr("everstream.apis.dashboard.sampler.EVERY_S", 3600)
    one, other = next_event(sampler.open()), next_event(sampler.open())
    assert (one, log.reads) == (other, 1)


def test_draining_worker_tells_the_sampler(sampler):
    streams = OpenStreams(load_settings({}))
    streams.on_drain(sampler.drain)
    viewer = sampler.open()
    streams.drain()
    assert viewer.next(TIMEOUT_S) is None


def test_quiet_viewer_gets_heartbeats_and_a_draining_one_ends(sampler, log):
    viewer = sampler.open()
    next_event(viewer)
    sampler._viewers.clear()
    while sampler._is_running:
        gevent.sleep(0.001)
    viewer._unsent = None
    viewer._woken.clear()
    assert viewer.next(0.001) == b": heartbeat\n\n"
    sampler._viewers.add(viewer)
    sampler.drain()
    assert viewer.next(TIMEOUT_S) is None
