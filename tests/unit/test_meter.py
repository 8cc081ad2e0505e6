"""What an engine counts of its outputs: tokens, times to the first output, times between tokens."""

import pytest

from everstream.engine import meter as meter_module
from everstream.engine.meter import EngineMeter, GenerationMeter, items_in
from everstream.log.counters import MAX_VALUE_CHARS, field, labelled
from everstream.log.histograms import INTER_TOKEN_LATENCY, KINDS, TIME_TO_FIRST_TOKEN, Histogram, totals

FIRST, GAP = field(TIME_TO_FIRST_TOKEN.name, ""), field(INTER_TOKEN_LATENCY.name, "")


def answer(tokens):
    return {"tokens_generated": tokens, field("answer_tokens", "", ""): tokens}


@pytest.fixture
def engine():
    return EngineMeter()


def test_first_output_and_times_between(engine):
    meter = GenerationMeter(engine, 10.0)
    for at in (10.5, 10.52, 10.72):
        meter.note(at, 1)
    assert engine.take() == {
        **answer(3),
        f"{FIRST}:0.5": 1,
        f"{FIRST}:sum_us": 500_000,
        f"{GAP}:0.025": 1,
        f"{GAP}:0.3": 1,
        f"{GAP}:sum_us": 220_000,
    }
    assert engine.take() == {}
    meter.note(10.82, 1)
    assert engine.take() == {**answer(1), f"{GAP}:0.1": 1, f"{GAP}:sum_us": 100_000}


def test_tokens_that_come_together_share_the_time(engine):
    meter = GenerationMeter(engine, 0.0)
    meter.note(1.0, 1)
    meter.note(5.0, 8)
    taken = engine.take()
    assert (taken["tokens_generated"], taken[f"{GAP}:0.5"], taken[f"{GAP}:sum_us"]) == (9, 8, 4_000_000)


def test_pause_of_an_engines_death_is_neither(engine):
    meter = GenerationMeter(engine, 0.0, [b"[1,2]", b"", b"[3]"])
    meter.note(90.0, 1)
    assert engine.take() == answer(1)
    meter.note(90.004, 1)
    meter.end({"completion_tokens": 5})
    assert engine.take() == {**answer(1), f"{GAP}:0.005": 1, f"{GAP}:sum_us": 4000}


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"completion_tokens": 7}, 7), ({"completion_tokens": 1}, 2), ({}, 2), (None, 2), ({"completion_tokens": "7"}, 2)],
)
def test_usage_says_how_many_tokens_there_were(engine, usage, tokens):
    meter = GenerationMeter(engine, 0.0)
    meter.note(1.0, 2)
    meter.end(usage)
    meter.close()
    assert engine.take()["tokens_generated"] == tokens


def test_what_could_not_be_reported_is_reported_later(engine):
    meter = GenerationMeter(engine, 0.0)
    meter.note(1.0, 1)
    engine.put_back(engine.take())
    meter.note(1.1, 1)
    meter.close()
    taken = engine.take()
    assert (taken["tokens_generated"], taken[f"{FIRST}:1.0"], taken[f"{GAP}:0.15"]) == (2, 1, 1)


@pytest.mark.parametrize(("resume", "items"), [(b"[464]", 1), (b"[1,2,3]", 3), (b"[]", 0), (b"", 0), (b'{"a":1}', 0)])
def test_items_in(resume, items):
    assert items_in(resume) == items


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_are_inclusive_and_survive_the_log(kind):
    histogram = Histogram(kind)
    for bound in kind.bounds:
        histogram.add(bound)
    histogram.add(kind.bounds[-1] * 2, 3)
    known = totals(kind, histogram.take())[""]
    assert known.counts == (*[1] * len(kind.bounds), 3)
    assert known.sum_s == pytest.approx(sum(kind.bounds) + 6 * kind.bounds[-1])


def test_tokens_are_each_models_and_keys():
    engine = EngineMeter("small")
    for key, usage in (("alice", 5), ("bob", 7), ("alice", 1)):
        meter = GenerationMeter(engine, 0.0, key=key)
        meter.end({"completion_tokens": usage, "prompt_tokens": 2})
        engine.count_end(meter, "done", "", 1.5)
        meter.close()
    found = labelled(engine.take())
    assert found["answer_tokens"] == {("small", "alice"): 6, ("small", "bob"): 7}
    assert found["prompt_tokens"] == {("small", "alice"): 4, ("small", "bob"): 2}
    assert found["generations_ended"] == {("small", "done", ""): 3}


def test_keys_with_counters_of_their_own_are_bounded(monkeypatch):
    monkeypatch.setattr(meter_module, "MAX_KEYS", 2)
    engine = EngineMeter()
    for key in ("a", "b", "c", "d", "a"):
        meter = GenerationMeter(engine, 0.0, key=key)
        meter.end({"completion_tokens": 1})
        meter.close()
    assert labelled(engine.take())["answer_tokens"] == {("", "a"): 2, ("", "b"): 1, ("", "(other)"): 2}


def test_labels_can_hold_anything():
    name = field("http_requests", "GET", "/a|b", "x" * 1000)
    assert labelled({name: 3})["http_requests"] == {("GET", "/a/b", "x" * MAX_VALUE_CHARS): 3}
    assert labelled({"http_requests|too|few": 1, "unknown|a": 1})["http_requests"] == {}
