"""`everstream publish`, `follow` and `tail`, as processes, with the real service."""

import itertools
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest
import requests

from everstream.client import Client, publishing
from everstream.settings import CLIENT_NAMES, PROJECT_ROOT, SettingsError, load_settings
from everstream.topic_commands.tailed_file import QUIET_LOOKS, TailedFile
from harness.callers import keys
from harness.cutting_proxy import CuttingProxy
from harness.python_client import READERS
from harness.stack import free_port, wait_for, web_alone

TIMEOUT_S = 60
_names = itertools.count()


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    with web_alone(tmp_path_factory.mktemp("topic-commands")) as stack:
        yield stack


@pytest.fixture
def name(topics):
    """Of a topic that keeps everything."""
    found = f"cli/{next(_names)}"
    with Client(topics.url) as client:
        client.make_topic(found)
    return found


@pytest.fixture
def proxy(topics):
    with CuttingProxy(topics.port) as proxy:
        yield proxy


def command(url, *arguments):
    return {
        "args": [sys.executable, "-W", "error", "-m", "everstream.cli", *map(str, arguments)],
        "env": {"EVERSTREAM_URL": url, "PATH": os.environ["PATH"], "TZ": "UTC"},
        "cwd": PROJECT_ROOT,
        "text": True,
    }


def run(url, *arguments, status=0, given=None, **environ):
    """Returns its output, and what it says on standard error."""
    options = command(url, *arguments)
    options["env"] |= environ
    done = subprocess.run(**options, input=given, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


@contextmanager
def running(url, *arguments, **options):
    """A command that goes on. It is killed at the end, if it has not ended by then."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    with subprocess.Popen(**command(url, *arguments), **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process, number):
    """Returns the exit status, and what it says on standard error."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, errors


def kept(topics, topic, count):
    return [each.data for each in READERS["sync"].messages(topics.url, topic, count, after="0" * 16)]


def read_count(topics, topic):
    """How many messages the topic has."""
    found = requests.get(f"{topics.url}/topics", params={"prefix": topic}, timeout=30).json()["topics"]
    return next((each["messages"] for each in found if each["topic"] == topic), 0)


def lines_of(process, number):
    return [process.stdout.readline().rstrip("\n") for _ in range(number)]


def test_publish_one(topics, name):
    assert run(topics.url, "publish", name, "hello") == ("", "")
    run(topics.url, "publish", name, '{"a": [1]}', "--event", "named", "--id", "x")
    run(topics.url, "publish", name, "again", "--id", "x")
    run(topics.url, "publish", name, '{"a": 1}', "--text")
    run(topics.url, "publish", name, "7", "--json")
    run(topics.url, "publish", name, "7")
    run(topics.url, "publish", name, "{not json")
    found = READERS["sync"].messages(topics.url, name, 6, after="0" * 16)
    assert [each.data for each in found] == ["hello", {"a": [1]}, '{"a": 1}', 7, "7", "{not json"]
    assert [each.event for each in found] == ["", "named", *[""] * 4]


def test_publish_lines(topics, name):
    given = "one\r\n\ntwo ü\n[1]\nlast"
    run(topics.url, "publish", name, "-", given=given)
    assert kept(topics, name, 5) == ["one", "", "two ü", [1], "last"]
    run(topics.url, "publish", name, given="")
    assert read_count(topics, name) == 5


def test_publish_more_lines_than_may_wait(topics, name):
    """Standard input is read as fast as the service takes it."""
    run(topics.url, "publish", name, "-", given="".join(f"{n}\n" for n in range(30_000)))
    assert kept(topics, name, 30_000) == [str(n) for n in range(30_000)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a b", "x"], "a topic is up to 200 characters"),
        (["a", "x", "--json"], "this is not JSON"),
        (["a", "x", "--event", "reset"], "an event is"),
        (["generations/x", "x"], "1 of 1 messages are not acknowledged"),
        (["a", "x", "--url", "ftp://host"], "base_url must be like"),
    ],
)
def test_publish_that_fails(topics, arguments, message):
    output, errors = run(topics.url, "publish", *arguments, status=1)
    assert output == "" and message in errors and "Traceback" not in errors


def test_publish_while_the_service_is_away():
    _, errors = run(f"http://127.0.0.1:{free_port()}", "publish", "a", "x", "--timeout", "0.5", status=1)
    assert "publishing again in" in errors and "1 of 1 messages are not acknowledged" in errors


def test_publish_with_keys(own_stack):
    stack = own_stack(WEB_CONCURRENCY="1", EVERSTREAM_ACCESS="keys")
    stack.start_valkey()
    stack.start_web()
    _, errors = run(stack.url, "publish", "a", "x", status=1)
    assert "401" in errors or "key" in errors
    _, errors = run(stack.url, "follow", "a", status=1)
    assert errors.startswith("everstream: ") and errors.count("\n") == 1
    key = keys(stack, "add", "shell", "--scopes", "publish,read")
    run(stack.url, "publish", "a", "x", EVERSTREAM_API_KEY=key)


def test_publish_goes_on_over_a_killed_worker(topics, name):
    with running(topics.url, "publish", name, "-") as process:
        for n in range(4000):
            process.stdin.write(f"{n}\n")
            if n == 2000:
                process.stdin.flush()
                wait_for(lambda: read_count(topics, name) > 0, what="the first lines")
                (pid,) = topics.workers()
                psutil.Process(pid).kill()
        process.stdin.close()
        assert process.wait(TIMEOUT_S) == 0
    assert kept(topics, name, 4000) == [str(n) for n in range(4000)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_publish_that_is_stopped(topics, name, number, status):
    """What was read is published."""
    with running(topics.url, "publish", name, "-") as process:
        process.stdin.write("one\ntwo\n")
        process.stdin.flush()
        wait_for(lambda: read_count(topics, name) == 2, what="the lines")
        assert end(process, number) == (status, "")


def test_follow(topics, name):
    for data in ("first", '{"a":1}'):
        run(topics.url, "publish", name, data)
    with running(topics.url, "follow", name, "--last", "5") as process:
        assert [line.split(" ", 1)[1] for line in lines_of(process, 2)] == [f"{name} first", f'{name} {{"a": 1}}']
        run(topics.url, "publish", name, "now", "--event", "e")
        assert lines_of(process, 1)[0].endswith(f" {name} [e] now")
        assert end(process, signal.SIGINT) == (130, "")


def test_follow_several_as_json(topics, name):
    run(topics.url, "publish", f"{name}/a", "1", "--json")
    run(topics.url, "publish", f"{name}/b", "two")
    with running(topics.url, "follow", f"{name}/*", "--json", "--since", "1h") as process:
        first, second = map(json.loads, lines_of(process, 2))
        assert (first["topic"], first["data"], second["topic"], second["data"]) == (f"{name}/a", 1, f"{name}/b", "two")
    with running(topics.url, "follow", f"{name}/*", "--json", "--after", first["id"]) as process:
        assert json.loads(lines_of(process, 1)[0]) == second


def test_follow_into_a_pipe_that_closes(topics, name):
    """As `| head` does: at once, not with the next message."""
    run(topics.url, "publish", name, "one")
    with running(topics.url, "follow", name, "--last", "1") as process:
        lines_of(process, 1)
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == -signal.SIGPIPE
        assert process.stderr.read() == ""


def test_follow_on_a_terminal(topics, name):
    run(topics.url, "publish", name, "one\x1b[2J")
    for options, has_colour in (([], True), (["--no-colour"], False)):
        ours, theirs = pty.openpty()
        with running(topics.url, "follow", name, "--last", "1", *options, stdout=theirs):
            line = os.read(ours, 1000).decode()
        os.close(ours)
        os.close(theirs)
        assert ("\x1b[" in line) == has_colour
        assert line.endswith(" one\\x1b[2J\r\n")


def test_follow_over_a_restart(topics, name, proxy):
    with running(proxy.url, "follow", name, "--last", "1") as process:
        run(topics.url, "publish", name, "one")
        assert lines_of(process, 1)[0].endswith("one")
        proxy.mode = "refuse"
        run(topics.url, "publish", name, "two")
        proxy.mode = "pass"
        run(topics.url, "publish", name, "three")
        assert [line.split()[-1] for line in lines_of(process, 2)] == ["two", "three"]
        status, errors = end(process, signal.SIGINT)
    assert status == 130 and "trying again in" in errors


def test_follow_says_what_is_missing(topics):
    name = f"cli/{next(_names)}"
    with Client(topics.url) as client:
        client.make_topic(name, history=2)
    run(topics.url, "publish", name, "0")
    (first,) = READERS["sync"].messages(topics.url, name, 1, last=1)
    run(topics.url, "publish", name, given="1\n2\n3\n")
    with running(topics.url, "follow", name, "--after", first.id) as process:
        assert [line.split()[-1] for line in lines_of(process, 2)] == ["2", "3"]
        assert 'messages are missing here: {"reason": "history"}' in end(process, signal.SIGINT)[1]


def test_tail_once(topics, name, tmp_path):
    path = tmp_path / "app.log"
    path.write_bytes(b'one\n{"a": 1}\nbad \xff\nincomplete')
    run(topics.url, "tail", path, "--topic", name)
    assert kept(topics, name, 4) == ["one", {"a": 1}, "bad �", "incomplete"]
    run(topics.url, "tail", path, "--topic", name, "-n", "1", "--text", "--event", "line")
    assert READERS["sync"].messages(topics.url, name, 6, after="0" * 16)[4].event == "line"
    _, errors = run(topics.url, "tail", tmp_path / "none", "--topic", name, status=1)
    assert "No such file" in errors and "Traceback" not in errors


def append(path, *lines):
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def wait_for_lines(topics, name, number):
    wait_for(lambda: read_count(topics, name) >= number, TIMEOUT_S, f"{number} lines")


def test_tail_of_a_growing_file(topics, name, tmp_path):
    path = tmp_path / "app.log"
    append(path, "old")
    with running(topics.url, "tail", "-f", path, "--topic", name, "-n", "1"):
        wait_for_lines(topics, name, 1)
        with path.open("a") as file:
            file.write("in two ")
            file.flush()
            wait_for(lambda: read_count(topics, name) == 1, what="nothing more")
            file.write("pieces\nnext\n")
        wait_for_lines(topics, name, 3)
        path.rename(tmp_path / "app.log.1")
        append(tmp_path / "app.log.1", "to the old one")
        append(path, "rotated")
        wait_for_lines(topics, name, 5)
        path.write_text("")
        wait_for(lambda: not path.stat().st_size, what="the truncation")
        append(path, "t")
        wait_for_lines(topics, name, 6)
    expected = ["old", "in two pieces", "next", "to the old one", "rotated", "t"]
    assert kept(topics, name, 6) == expected


def test_rotated_file_that_is_still_written(tmp_path):
    """Whoever writes it notices the rotation later."""
    path = tmp_path / "app.log"
    append(path, "one")
    file = TailedFile(path)
    file.open(None)

    def look():
        return [line.content for line in file.lines()]

    assert look() == [b"one\n"]
    path.rename(tmp_path / "app.log.1")
    assert look() == []
    append(path, "new")
    for late in ("late", "later"):
        assert look() == []
        append(tmp_path / "app.log.1", late)
        assert look() == [f"{late}\n".encode()]
    with (tmp_path / "app.log.1").open("a") as old:
        old.write("not complete")
    seen = [line for _ in range(QUIET_LOOKS + 2) for line in look()]
    assert seen == [b"not complete", b"new\n"]
    file.close()


def test_tail_of_a_file_that_appears(topics, name, tmp_path):
    path = tmp_path / "app.log"
    with running(topics.url, "tail", "-f", path, "--topic", name) as process:
        assert "does not exist yet" in process.stderr.readline()
        append(path, "first")
        wait_for_lines(topics, name, 1)
        status, errors = end(process, signal.SIGTERM)
    assert (status, errors) == (143, "")


def test_tail_begins_at_the_end(topics, name, tmp_path):
    path = tmp_path / "app.log"
    append(path, *range(1000))
    with running(topics.url, "tail", "-f", path, "--topic", name) as process:
        wait_for(lambda: str(path) in opened_by(process.pid), what="the file to be opened")
        append(path, "new")
        wait_for_lines(topics, name, 1)
    assert kept(topics, name, 1) == ["new"]


def opened_by(pid):
    return [each.path for each in psutil.Process(pid).open_files()]


def test_tail_goes_on_where_it_was(topics, name, tmp_path):
    path, state = tmp_path / "app.log", tmp_path / "state"
    options = ["tail", "-f", path, "--topic", name, "--state", state]
    append(path, *range(100))
    with running(topics.url, *options) as process:
        wait_for_lines(topics, name, 100)
        assert end(process, signal.SIGTERM)[0] == 143
    append(path, *range(100, 200))
    with running(topics.url, *options):
        wait_for_lines(topics, name, 200)
    append(path, *range(200, 250))
    path.rename(tmp_path / "app.log.1")
    append(path, *range(250, 300))
    with running(topics.url, *options):
        wait_for_lines(topics, name, 300)
    assert kept(topics, name, 300) == [str(n) for n in range(300)]


def test_tail_that_is_killed_again_and_again(topics, name, tmp_path):
    """At any moment, also after lines were acknowledged and before that is noted: no line is lost or repeated."""
    path, state = tmp_path / "app.log", tmp_path / "state"
    append(path, *range(5000))
    options = ["tail", path, "--topic", name, "--state", state]
    for _ in range(4):
        with running(topics.url, *options) as process:
            wait_for_change(topics, name, process)
            process.kill()
    run(topics.url, *options)
    assert read_count(topics, name) == 5000
    assert kept(topics, name, 5000) == [str(n) for n in range(5000)]


def wait_for_change(topics, name, process):
    before = read_count(topics, name)
    wait_for(lambda: read_count(topics, name) > before or process.poll() is not None, what="some lines")


def test_tail_of_lines_that_are_sent_but_not_noted(topics, name, tmp_path):
    """The state is older than what is acknowledged, as after a kill between the two."""
    path, state = tmp_path / "app.log", tmp_path / "state"
    append(path, *range(10))
    options = ["tail", path, "--topic", name, "--state", state]
    run(topics.url, *options)
    older = state.read_text()
    append(path, *range(10, 20))
    run(topics.url, *options)
    state.write_text(older)
    append(path, *range(20, 30))
    run(topics.url, *options)
    assert kept(topics, name, 30) == [str(n) for n in range(30)]
    assert read_count(topics, name) == 30


def test_tail_of_another_file_than_before(topics, name, tmp_path):
    path, state = tmp_path / "app.log", tmp_path / "state"
    options = ["tail", path, "--topic", name, "--state", state]
    append(path, "a", "b")
    run(topics.url, *options)
    # The same inode, truncated and longer than before.
    path.write_text("x\ny\nz\n")
    _, errors = run(topics.url, *options)
    assert "another file" in errors
    assert kept(topics, name, 5) == ["a", "b", "x", "y", "z"]


def test_tail_while_the_service_is_away(topics, name, proxy, tmp_path):
    """More lines than a publisher would keep: the file is the buffer."""
    path = tmp_path / "app.log"
    proxy.mode = "refuse"
    append(path, *range(25_000))
    with running(proxy.url, "tail", path, "--topic", name, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: str(path) in opened_by(process.pid), what="the file to be opened")
        proxy.mode = "pass"
        assert process.wait(TIMEOUT_S) == 0
    assert kept(topics, name, 25_000) == [str(n) for n in range(25_000)]


def test_tail_that_is_refused_notes_nothing(topics, name, proxy, tmp_path):
    path, state = tmp_path / "app.log", tmp_path / "state"
    append(path, "a", "b")
    options = ["tail", path, "--topic", name, "--state", state]
    proxy.answer(403, b"{}")
    _, errors = run(proxy.url, *options, status=1)
    assert "messages are not acknowledged" in errors
    run(proxy.url, *options)
    assert kept(topics, name, 2) == ["a", "b"]


def test_long_line(topics, name, tmp_path):
    path = tmp_path / "app.log"
    path.write_text("x" * 600_000 + "\nnext\n")
    run(topics.url, "tail", path, "--topic", name)
    *pieces, last = kept(topics, name, 4)
    assert ("".join(pieces), last) == ("x" * 600_000, "next")


def test_names_of_the_client_are_no_settings():
    assert (publishing.URL_VARIABLE, publishing.KEY_VARIABLE) == CLIENT_NAMES
    load_settings(dict.fromkeys(CLIENT_NAMES, "x"))
    with pytest.raises(SettingsError, match="did you mean EVERSTREAM_API_KEY"):
        load_settings({"EVERSTREAM_API_KEYS": "x"})
    with pytest.raises(SettingsError, match="unknown setting EVERSTREAM_URL__A"):
        load_settings({"EVERSTREAM_URL__A": "x", "MODELS": "A=/a"})
