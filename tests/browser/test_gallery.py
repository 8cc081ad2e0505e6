"""The pages in examples/topics in a real Chromium, with their own publishers, while the web worker is killed."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import quote

import psutil
import pytest
import requests
from playwright.sync_api import expect

from everstream.settings import PROJECT_ROOT
from harness.accessibility import violations
from harness.callers import keys
from harness.sse_client import connect
from harness.stack import Process, wait_for, web_alone

FOLDER = PROJECT_ROOT / "examples" / "topics"
PAGES = sorted(path.stem for path in FOLDER.glob("*.html"))
EXAMPLES = [name for name in PAGES if name != "index"]
MAX_LINES = 59
PAUSE_S = "0.02"
TIMEOUT_S = 30
TOPICS = {
    "progress": "jobs/a",
    "log": "logs/a",
    "ticker": "prices/A",
    "leaderboard": "games/results",
    "map": "buses/1",
    "note": "note/1",
    "notifications": "notifications/me",
    "score": "match/score",
    "server": "servers/a",
}
HTML = "<img src=x onerror=alert(1)>"
GOOD = {
    "progress": {"done": 1, "total": 4, "text": HTML},
    "log": f"error {HTML}",
    "ticker": {"price": 5, "n": 1},
    "leaderboard": {"player": HTML, "points": 3},
    "map": {"x": 5, "y": 7},
    "note": {"text": HTML, "by": HTML, "edit": "1"},
    "notifications": HTML,
    "score": {"home": HTML, "away": "b", "goals": [1, 0], "minute": 4},
    "server": {"cpu": 5, "memory": 5, "n": 1},
}
SIGN = {
    "progress": "25 %",
    "log": HTML,
    "ticker": "5.00",
    "leaderboard": HTML,
    "map": "Bus 1: 5, 7",
    "notifications": HTML,
    "score": HTML,
    "server": "5 %",
}
"""What of the good message is to be seen."""
SPOILT = {"toString": 1, "valueOf": 1}
"""It can't be made into text."""
# What Chromium says of a connection that was lost or refused, and of a session that there is none of.
LOST = re.compile("Failed to load resource: (net::ERR_|the server responded with a status of 401)")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """With one web worker, so that each page is its own."""
    with web_alone(tmp_path_factory.mktemp("gallery")) as stack:
        yield stack


@pytest.fixture(autouse=True)
def forgotten(stack):
    """No topic is left of other tests."""
    for topic in requests.get(f"{stack.url}/topics", timeout=TIMEOUT_S).json()["topics"]:
        requests.delete(f"{stack.url}/topics/{topic['topic']}", timeout=TIMEOUT_S)


@pytest.fixture
def page(page):
    """Whatever the browser complains of fails the test, but for lost connections."""
    said = []
    page.on("console", lambda message: said.append(message.text))
    yield page
    assert [text for text in said if not LOST.match(text)] == []


@pytest.fixture
def shown(page, stack):
    def open_page(name, url=None):
        page.goto(f"{url or stack.url}/examples/{name}")
        return page

    return open_page


@contextmanager
def publishing(stack, folder, name, *arguments):
    """A publisher, until it ends or the block does."""
    runner = [] if name.endswith(".sh") else [sys.executable]
    environ = os.environ | {"EVERSTREAM_URL": stack.url}
    process = Process(name, [*runner, str(FOLDER / name), *map(str, arguments)], environ, folder)
    try:
        yield process
    finally:
        process.stop()
    assert "Traceback" not in process.output, process.output


def run_publisher(stack, name, *arguments, text=""):
    environ = os.environ | {"EVERSTREAM_URL": stack.url}
    runner = [] if name.endswith(".sh") else [sys.executable]
    command = [*runner, str(FOLDER / name), *map(str, arguments)]
    subprocess.run(command, env=environ, input=text, text=True, check=True, timeout=120)


def kill_worker(stack, page):
    """And wait until the page has asked for its stream again."""
    (worker,) = stack.workers()
    with page.expect_request(re.compile(r"/topics[/?]")):
        os.kill(worker, signal.SIGKILL)


def publish(stack, topic, *data):
    messages = [{"data": each} for each in data]
    requests.post(f"{stack.url}/topics/{topic}", json=messages, timeout=TIMEOUT_S).raise_for_status()


def published(stack, pattern):
    """All messages of the topics that match: [(topic, data)]."""
    topics = requests.get(f"{stack.url}/topics", timeout=TIMEOUT_S).json()["topics"]
    expected = sum(topic["messages"] for topic in topics if re.fullmatch(pattern.replace("*", ".*"), topic["topic"]))
    with connect(f"{stack.url}/topics?topic={quote(pattern)}&last_event_id={'0' * 16}") as stream:
        stream.read(until=lambda seen: len(messages_of(seen.events)) >= expected)
        return messages_of(stream.events)


def messages_of(events):
    return [(event.json["topic"], event.json["data"]) for event in events if event.type == "message"]


def number_of(locator):
    """The first number in its text; 0: there is none yet."""
    found = re.search("[0-9]+", locator.text_content())
    return int(found[0]) if found else 0


def interrupt(stack, page, progress):
    """Kill the worker in the middle of a stream, and wait until it goes on. `progress`: what grows with the stream."""
    wait_for(lambda: progress() >= 5, what="the first messages")
    kill_worker(stack, page)
    before = progress()
    wait_for(lambda: progress() >= before + 5, what="more messages")


# The files.


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.*")), ids=lambda path: path.name)
def test_file_is_short_and_safe(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert max(map(len, text.splitlines())) <= 133
    if path.suffix == ".html":
        for unsafe in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=",
            " onclick=",
        ):
            assert unsafe not in text
        assert text.count("new EventSource(") == 1
        assert "https:" not in text and "import" not in text


@pytest.mark.parametrize("name", PAGES)
def test_policy_allows_the_pages_own_script_alone(stack, name):
    answer = requests.get(f"{stack.url}/examples/{name}", timeout=TIMEOUT_S)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.count("'sha256-") == 1 and "unsafe" not in policy and "default-src 'none'" in policy


def test_sources_are_text(stack):
    for name in ("ticker.html", "ticker.py", "log.sh"):
        answer = requests.get(f"{stack.url}/examples/source/{name}", timeout=TIMEOUT_S)
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.text == (FOLDER / name).read_text()


@pytest.mark.parametrize(
    "path", ["nothing", "ticker.html", "source/nothing", "source/README.md", "source/..%2f..%2fapp.py", "source/"]
)
def test_nothing_else_is_served(stack, path):
    answer = requests.get(f"{stack.url}/examples/{path}", timeout=TIMEOUT_S)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("example_not_found", "not_found")


def test_front_page_leads_there(page, stack):
    page.goto(stack.url)
    page.get_by_role("link", name="what else").click()
    expect(page).to_have_title("Examples · Everstream")
    page.get_by_role("link", name="Ticker").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ticker")


# A killed worker, in the middle.


def test_progress(stack, shown, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n}").write_bytes(b"%d" % (n % 20) * 1_000_000)
    page = shown("progress")
    bar, says = page.get_by_role("progressbar", name="jobs/hash-files"), page.locator("#jobs small")
    with publishing(stack, tmp_path, "progress.py", folder):
        wait_for(lambda: bar.count() and float(bar.get_attribute("value") or 0) > 0, what="progress")
        kill_worker(stack, page)
        expect(says).to_have_text("done · 40 files, 20 of them copies of others")
    assert bar.get_attribute("value") == "1"
    page.reload()
    expect(page.locator("#jobs .figure")).to_have_text("100 %")


def test_log(stack, shown, tmp_path):
    page = shown("log")
    lines = page.locator("#lines div")
    pipe = subprocess.Popen(
        [FOLDER / "log.sh", "logs/test"],
        env=os.environ | {"EVERSTREAM_URL": stack.url},
        stdin=subprocess.PIPE,
        text=True,
    )
    expected = [f"logs {n} of 60 {'error' if n % 10 == 0 else ''}".strip() for n in range(60)]
    with pipe:
        pipe.stdin.write("\n".join(expected) + "\n")
        pipe.stdin.close()
        interrupt(stack, page, lines.count)
    assert pipe.returncode == 0
    expect(lines).to_have_count(60)
    assert lines.all_text_contents() == [f"test {line}" for line in expected]
    page.get_by_label("Show lines with").fill("ERROR")
    expect(page.locator("#lines div:visible")).to_have_count(6)
    assert set(page.locator("#lines div:visible").evaluate_all("all => all.map((one) => one.dataset.level)")) == {
        "error"
    }


def test_ticker(stack, shown, tmp_path):
    page = shown("ticker")
    count = page.locator("#count")
    with publishing(stack, tmp_path, "ticker.py", PAUSE_S):
        interrupt(stack, page, lambda: number_of(count))
    found = published(stack, "prices/*")
    expect(count).to_have_text(f"{len(found)} prices received, 0 missed")
    last = dict(found)
    rows = page.locator("#rows tr")
    assert {row.locator("th").text_content(): row.locator("td").first.text_content() for row in rows.all()} == {
        topic.removeprefix("prices/"): f"{data['price']:.2f}" for topic, data in last.items()
    }


def board_of(page):
    return {
        row.locator("span").nth(1).text_content(): number_of(row.locator("b"))
        for row in page.locator("#board li").all()
    }


def test_leaderboard(stack, shown, tmp_path):
    page = shown("leaderboard")
    count = page.locator("#count")
    with publishing(stack, tmp_path, "leaderboard.py", PAUSE_S):
        interrupt(stack, page, lambda: number_of(count))
    sums, found = {}, published(stack, "games/results")
    for _, game in found:
        sums[game["player"]] = sums.get(game["player"], 0) + game["points"]
    expect(count).to_have_text(f"{len(found)} games")
    assert board_of(page) == sums
    assert list(board_of(page).values()) == sorted(sums.values(), reverse=True)
    page.reload()
    expect(count).to_have_text(f"{len(found)} games")
    with publishing(stack, tmp_path, "leaderboard.py", "--new-season", "60"):
        expect(count).to_have_text("1 games")
    assert sum(board_of(page).values()) == published(stack, "games/results")[0][1]["points"]


def test_map(stack, shown, tmp_path):
    page = shown("map")
    stops, seen = page.locator("#stops li"), set()

    def places():
        seen.add(tuple(stops.all_text_contents()))
        return len(seen)

    with publishing(stack, tmp_path, "map.py", PAUSE_S):
        interrupt(stack, page, places)
    last = dict(published(stack, "buses/*"))
    assert len(last) == 6
    for topic, place in last.items():
        line = topic.removeprefix("buses/")
        point = page.locator("#points g", has=page.get_by_text(line, exact=True))
        wait_for(lambda point=point, place=place: translation(point) == (place["x"], place["y"]), what="its place")


def translation(point):
    return tuple(float(part) for part in re.findall("[0-9.]+", point.evaluate("point => point.style.translate")))


def test_note(stack, shown, chromium):
    page = shown("note")
    other = page.context.new_page()
    other.goto(f"{stack.url}/examples/note")
    for each in (page, other):
        expect(each.locator("#link")).to_have_text("Live")
    page.get_by_label("Line 1").press_sequentially("first ")
    kill_worker(stack, page)
    page.get_by_label("Line 1").press_sequentially("and more")
    other.get_by_label("Line 2").press_sequentially("second")
    run_publisher(stack, "note.sh", "3", 'a "quoted" \\ line')
    for each in (page, other):
        expect(each.get_by_label("Line 1")).to_have_value("first and more")
        expect(each.get_by_label("Line 2")).to_have_value("second")
        expect(each.get_by_label("Line 3")).to_have_value('a "quoted" \\ line')
    # Both type in one line: in the end they show the same.
    for n in range(10):
        page.get_by_label("Line 4").press_sequentially(f"a{n}")
        other.get_by_label("Line 4").press_sequentially(f"b{n}")
    lines = [each.get_by_label("Line 4") for each in (page, other)]

    def texts():
        return {dict(published(stack, "note/*"))["note/4"]["text"], *(line.input_value() for line in lines)}

    wait_for(lambda: len(texts()) == 1, what="the same text in both")
    other.close()


def test_notifications(stack, shown):
    page = shown("notifications")
    badge, notes = page.get_by_role("status", name="Unread"), page.locator("#notes li > span")
    run_publisher(stack, "notify.sh", "one")
    expect(badge).to_have_text("1")
    kill_worker(stack, page)
    run_publisher(stack, "notify.sh", "two")
    expect(badge).to_have_text("2")
    expect(page).to_have_title("(2) Notifications · Everstream")
    page.reload()
    expect(badge).to_have_text("2")
    assert notes.all_text_contents() == ["two", "one"]
    page.get_by_role("button", name="Mark all as read").click()
    expect(badge).to_have_text("0")
    page.goto("about:blank")
    run_publisher(stack, "notify.sh", 'three "quoted" \\ &')
    shown("notifications")
    expect(notes).to_have_text(['three "quoted" \\ &'])
    expect(badge).to_have_text("1")


def test_notifications_of_a_browser_that_keeps_nothing(stack, page, shown):
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied'); } });"
    )
    shown("notifications")
    publish(stack, "notifications/me", "one")
    expect(page.locator("#badge")).to_have_text("1")
    page.get_by_role("button", name="Mark all as read").click()
    expect(page.locator("#badge")).to_have_text("0")


def test_score(stack, shown, tmp_path):
    page = shown("score")
    with publishing(stack, tmp_path, "score.py", "0.05"):
        interrupt(stack, page, lambda: number_of(page.locator("#minute")))
    last = published(stack, "match/score")[-1][1]
    expect(page.locator("#score")).to_have_text(" : ".join(map(str, last["goals"])))
    expect(page.locator("#home")).to_have_text(last["home"])
    comments = [data["text"] for topic, data in published(stack, "match/comments")]
    assert page.locator("#comments span").all_text_contents() == comments[::-1]
    assert sum(last["goals"]) == page.locator("#comments [data-kind=goal]").count()
    # Whoever comes later gets the score at once.
    page.reload()
    expect(page.locator("#score")).to_have_text(" : ".join(map(str, last["goals"])))


def test_next_match_begins_with_no_comments(stack, shown):
    page = shown("score")
    publish(stack, "match/comments", {"minute": 1, "text": "old"})
    expect(page.locator("#comments p")).to_have_count(1)
    requests.delete(f"{stack.url}/topics/match/comments", timeout=TIMEOUT_S)
    publish(stack, "match/comments", {"minute": 1, "text": "new"})
    expect(page.locator("#comments span")).to_have_text(["new"])


def test_server(stack, shown, tmp_path):
    page = shown("server")
    says = page.locator("article .note")
    with publishing(stack, tmp_path, "server.py", PAUSE_S):
        expect(says).to_have_count(1)
        interrupt(stack, page, lambda: number_of(says))
    found = published(stack, "servers/*")
    expect(says).to_have_text(f"{len(found)} reports, 0 missed")
    figures = [round(found[-1][1][name]) for name in ("cpu", "memory")]
    assert all(0 <= figure <= 100 for figure in figures)
    assert page.locator("polyline").first.get_attribute("points").count(",") == min(120, len(found))


def test_index(stack, shown):
    page = shown("index")
    for name, topic in TOPICS.items():
        publish(stack, topic, GOOD[name])
    expect(page.locator(".cards .fresh")).to_have_count(len(EXAMPLES))
    kill_worker(stack, page)
    wait_for(stack.web_answers)
    publish(stack, "logs/b", "another line")
    expect(page.locator(".cards")).to_contain_text('logs/b "another line"')


def test_all_at_once(stack, shown, tmp_path):
    page = shown("index")
    with publishing(stack, tmp_path, "run_all.py") as process:
        expect(page.locator(".cards .fresh")).to_have_count(len(EXAMPLES), timeout=120_000)
        children = process.children()
        process.kill(signal.SIGTERM)
        _, alive = psutil.wait_procs(children, timeout=TIMEOUT_S)
        assert children and not alive


# What publishers should not send.


def bad_of(good):
    """Other types, and each field of a good message spoilt."""
    fields = [good | {name: SPOILT} for name in good] if isinstance(good, dict) else []
    return [None, 0, "", [], [[]], {}, SPOILT, {"level": SPOILT, "message": SPOILT}, *fields]


@pytest.mark.parametrize("name", EXAMPLES)
def test_bad_data_breaks_nothing(stack, shown, name):
    page = shown(name)
    topic = TOPICS[name]
    publish(stack, topic, *bad_of(GOOD[name]))
    publish(stack, topic, GOOD[name])
    if name == "note":
        expect(page.get_by_label("Line 1")).to_have_value(HTML)
    else:
        expect(page.locator("main")).to_contain_text(SIGN[name])
    assert page.locator("main img:not(nav img)").count() == 0
    page.reload()
    expect(page.locator("#link")).to_have_text("Live")


# How they look.


@pytest.mark.parametrize("width", [360, 960])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit(stack, shown, artifacts, scheme, width):
    page = shown("index")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 760})
    run_publisher(stack, "log.sh", "logs/web", text="started\nwarning: slow disk\nerror: no space left\n")
    for name, topic in TOPICS.items():
        publish(stack, topic, json.loads(json.dumps(GOOD[name]).replace(HTML, "x" * 60)))
    for name in PAGES:
        shown(name)
        expect(page.locator("#link")).to_have_text("Live")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        assert violations(page) == [], name
        page.screenshot(path=artifacts / f"gallery-{name}-{scheme}-{width}.png")


# A service that needs keys.


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with web_alone(tmp_path_factory.mktemp("guarded"), EVERSTREAM_ACCESS="keys") as stack:
        yield stack


def test_with_keys(guarded, page, tmp_path):
    # A browser keeps a Secure cookie for this name, without TLS.
    url = guarded.url.replace("127.0.0.1", "localhost")
    key = keys(guarded, "add", "ann", "--scopes", "infer,publish")
    page.goto(f"{url}/examples/notifications")
    expect(page.locator("#link")).to_have_text("Refused: sign in on the front page")
    assert requests.get(f"{guarded.url}/topics/notifications/me", timeout=TIMEOUT_S).status_code == 401
    page.goto(url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.goto(f"{url}/examples/notifications")
    expect(page.locator("#link")).to_have_text("Live")
    environ = os.environ | {"EVERSTREAM_URL": guarded.url, "EVERSTREAM_API_KEY": key}
    subprocess.run([FOLDER / "notify.sh", "for you"], env=environ, check=True, timeout=TIMEOUT_S)
    expect(page.locator("#notes span")).to_have_text("for you")
    page.goto(f"{url}/examples/note")
    page.get_by_label("Line 1").fill("mine")
    expect(page.locator("#lines small").first).to_contain_text("guest")
