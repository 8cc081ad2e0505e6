"""Progress and log records as messages, with a publisher that sends when a test says so."""

import json
import logging
import sys

import pytest

from everstream.client import LogHandler, Progress, progress
from everstream.client.messages import encoded
from everstream.client.sender import THREAD_NAME


class Publisher:
    """`send` is what the background thread would do."""

    producer = "p"

    def __init__(self):
        self.waiting = []
        self.sent = []
        self.dues = []

    def publish(self, topic, data):
        self.sent.append(json.loads(encoded(data, None, None, None))["data"])

    def publish_later(self, topic, make, due):
        self.waiting.append(make)
        self.dues.append(due)

    def send(self):
        waiting, self.waiting = self.waiting, []
        self.sent += [json.loads(make())["data"] for make in waiting]
        return [(each["done"], each["total"], each["state"]) for each in self.sent]


@pytest.fixture
def publisher():
    return Publisher()


def test_only_the_newest_state_waits(publisher):
    job = Progress("job", total=100, publisher=publisher)
    for _ in range(10):
        job.update(5, text="half")
    assert len(publisher.waiting) == 1
    assert publisher.send() == [(50, 100, "running")]
    assert publisher.sent[0]["text"] == "half"
    job.set(60)
    job.set(70)
    assert publisher.send()[1:] == [(70, 100, "running")]


def test_states_are_apart(publisher):
    job = Progress("job", every_s=100, publisher=publisher)
    for _ in range(3):
        job.update()
        publisher.send()
    first, second, third = publisher.dues
    assert (second - first, third - second) == (100, 100)


def test_loop(publisher):
    assert list(progress("job", [7, 8, 9], publisher=publisher)) == [7, 8, 9]
    assert publisher.send() == [(3, 3, "done")]
    assert list(progress("job", iter("ab"), publisher=publisher)) == ["a", "b"]
    assert publisher.send()[1:] == [(2, 2, "done")]


def test_loop_over_what_has_no_length(publisher):
    for n, _ in enumerate(progress("job", (x for x in "abc"), publisher=publisher)):
        if n == 1:
            assert publisher.send() == [(1, None, "running")]
    assert publisher.send()[1:] == [(3, None, "done")]


def fail_in_a_loop(publisher):
    for item in progress("job", [1, 2], publisher=publisher):
        if item == 2:
            raise OSError("disk")


def fail_in_a_block(publisher):
    with progress("job", total=2, publisher=publisher) as job:
        job.update()
        raise OSError("disk")


@pytest.mark.parametrize(("fail", "error"), [(fail_in_a_loop, None), (fail_in_a_block, "OSError: disk")])
def test_failures(publisher, fail, error):
    with pytest.raises(OSError, match="disk"):
        fail(publisher)
    assert publisher.send() == [(1, 2, "failed")]
    assert publisher.sent[0].get("error") == error


def test_loop_that_is_left(publisher):
    for item in progress("left", [1, 2, 3], publisher=publisher):
        if item == 2:
            break
    assert publisher.send() == [(1, 3, "failed")]
    job = progress("meant", [1, 2, 3], publisher=publisher)
    for item in job:
        if item == 2:
            job.finish("found it")
            break
    assert publisher.send()[1:] == [(1, 3, "done")]
    assert publisher.sent[1]["text"] == "found it"


def test_callback(publisher):
    job = progress("job", publisher=publisher)
    job(1, 4)
    assert publisher.send() == [(1, 4, "running")]
    job(3, 4)
    job(4, 4)
    assert publisher.send()[1:] == [(4, 4, "done")]
    job(4, 4)
    assert not publisher.waiting


def test_last_state_is_sent_although_another_was_just_sent(publisher):
    with progress("job", total=1, publisher=publisher) as job:
        job.update()
        publisher.send()
    assert publisher.send() == [(1, 1, "running"), (1, 1, "done")]


def test_forked_child_schedules_its_own(publisher):
    job = progress("job", total=2, publisher=publisher)
    job.update()
    publisher.waiting, publisher.producer = [], "child"
    job.update()
    assert publisher.send() == [(2, 2, "running")]


def test_numbers_that_json_has_not(publisher):
    job = progress("job", total=float("inf"), text="\udcff", publisher=publisher)
    job.set(Index(3), total=7.5)
    assert publisher.send() == [(3, 7.5, "running")]
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            job.update(wrong)
    assert publisher.send()[-1] == (3, 7.5, "running")


class Index:
    """As numpy's integers, which json does not take."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value

    def __radd__(self, other):
        return other + self.value


def test_wrong_topic():
    with pytest.raises(ValueError, match="topic"):
        progress("a b", publisher=Publisher())


@pytest.fixture
def logger(publisher):
    made = logging.getLogger("test.topics")
    handler = LogHandler("logs", publisher=publisher)
    made.addHandler(handler)
    made.setLevel(logging.DEBUG)
    made.propagate = False
    yield made
    made.removeHandler(handler)


def test_records(publisher, logger):
    logger.warning("caf\xe9 %s", 7)
    try:
        raise OSError("disk")
    except OSError:
        logger.exception("it failed")
    first, second = publisher.sent
    assert first.pop("time") > 1e9
    assert first == {"level": "WARNING", "logger": "test.topics", "message": "caf\xe9 7"}
    assert second["exception"].startswith("Traceback") and second["exception"].endswith("OSError: disk")


def test_text_that_is_not_unicode(publisher):
    # Not through a logger: pytest's parallel processes can't report such a line.
    LogHandler("logs", publisher=publisher).handle(logging.LogRecord("app", logging.INFO, "", 0, "\udcff", None, None))
    assert publisher.sent[0]["message"] == "?"


def test_formatter_is_used(publisher, logger):
    logger.handlers[0].setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.info("hello")
    assert publisher.sent[0]["message"] == "INFO: hello"


def test_failures_of_the_handler_do_not_reach_the_program(publisher, logger, capsys):
    publisher.publish = None
    logger.info("hello")
    assert "Logging error" in capsys.readouterr().err
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize(
    ("name", "thread", "is_sent"),
    [
        ("httpx", "MainThread", True),
        ("httpx", THREAD_NAME, False),
        ("httpcore.http11", THREAD_NAME, False),
        ("everstream.client", "MainThread", False),
        ("httpx", None, False),
        ("app", None, True),
    ],
)
def test_records_about_publishing_are_left_out(publisher, name, thread, is_sent):
    record = logging.LogRecord(name, logging.INFO, "", 0, "hello", None, None)
    record.threadName = thread
    LogHandler("logs", publisher=publisher).handle(record)
    assert bool(publisher.sent) == is_sent
