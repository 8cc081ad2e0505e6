"""Metrics of the whole service: exact over several processes and their deaths, and as a real Prometheus reads them."""

import json
import shutil
import signal

import pytest
import requests
import yaml

from everstream.settings import PROJECT_ROOT
from harness.callers import Caller, keys
from harness.sse_client import connect, read_all
from harness.stack import Process, free_port, running_stack, wait_for
from tools import grafana_dashboard

TIMEOUT_S = 30
DEPLOY = PROJECT_ROOT / "deploy" / "prometheus"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    options = {"EVERSTREAM_ACCESS": "keys", "EVERSTREAM_HEALTH_PORT": str(free_port())}
    with running_stack(tmp_path_factory.mktemp("measured"), **options) as stack:
        # Metrics are on the health listener.
        stack.metrics_url = f"http://127.0.0.1:{stack.settings.health_port}"
        yield stack


@pytest.fixture(scope="module")
def alice(measured):
    return Caller(measured, keys(measured, "add", "alice"))


def metric(stack, name, **labels):
    stack.url, url = stack.metrics_url, stack.url
    try:
        return stack.metric(name, **labels)
    finally:
        stack.url = url


def test_requests_are_counted_by_route_and_status(measured, alice):
    route = "/generations/<generation>"
    before = metric(measured, "http_requests_total", route=route, status="404")
    for _ in range(6):
        alice.call("GET", f"/generations/{'0' * 32}")
    # Both workers report theirs.
    wait_for(lambda: metric(measured, "http_requests_total", route=route, status="404") == before + 6)
    alice.call("BREW", "/nowhere/at/all")
    wait_for(lambda: metric(measured, "http_requests_total", route="none", method="any") >= 1)


def test_generations_and_tokens_are_those_of_a_model_and_a_key(measured, alice):
    model = measured.settings.model_name
    names = ("answer_tokens_total", "prompt_tokens_total", "generation_seconds_count", "queue_wait_seconds_count")

    def values():
        labels = [{"model": model, "key": "alice"}] * 2 + [{"model": model}] * 2
        return [metric(measured, name, **each) for name, each in zip(names, labels, strict=True)]

    before = values()
    for _ in range(2):
        alice.read(f"/generations/{alice.start(texts=['a', 'b', 'c'])}/events")
    wait_for(lambda: values() == [before[0] + 6, before[1] + 2, before[2] + 2, before[3] + 2])
    failed = metric(measured, "generations_ended_total", state="failed", code="model_error")
    alice.read(f"/generations/{alice.start(texts=['a'], raise_before=1)}/events")
    wait_for(lambda: metric(measured, "generations_ended_total", state="failed", code="model_error") == failed + 1)
    assert metric(measured, "log_append_seconds_count") > 0


def test_gauges(measured, alice, gate):
    generation = alice.start(texts=["a"], hold_before=1, gate=gate.path)
    with connect(measured.events_url(generation), headers=alice.headers) as stream:
        stream.read(lambda got: got.events)
        wait_for(lambda: metric(measured, "worker_streams") == metric(measured, "streams_open") == 1)
        assert metric(measured, "worker_connections") >= 1
        wait_for(lambda: metric(measured, "engine_running", engine="engine0") == 1)
        assert metric(measured, "engine_state", engine="engine0", state="ready") == 1
        assert metric(measured, "prefix_cache_queries_total") == 100
        assert metric(measured, "prefix_cache_hits_total") == 50
        assert metric(measured, "worker_memory_bytes") > 20_000_000
        assert metric(measured, "valkey_memory_bytes") > 100_000
    gate.open()
    text = requests.get(f"{measured.metrics_url}/metrics", timeout=TIMEOUT_S).text
    assert 'everstream_build_info{version="' in text
    assert text.count("everstream_worker_streams{") == 2


def test_oldest_queued_generation(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_RUNNING="1", WEB_CONCURRENCY="1").start()
    assert stack.metric("oldest_queued_seconds") == 0
    stack.submit(texts=["a"], hold_before=1, gate=gate.path)
    wait_for(lambda: stack.running() == 1)
    stack.submit(texts=["b"])
    wait_for(lambda: stack.metric("oldest_queued_seconds") >= 1, what="a second in the queue")
    gate.open()
    wait_for(lambda: stack.metric("oldest_queued_seconds") == 0)


def test_nothing_is_forgotten_when_processes_die(own_stack):
    stack = own_stack().start()
    for _ in range(3):
        read_all(f"{stack.url}/stream?texts=a&texts=b")
    wait_for(lambda: stack.metric("answer_tokens_total") == 6 and stack.metric("generation_seconds_count") == 3)
    stack.web.stop()
    stack.engines[0].kill(signal.SIGKILL)
    stack.start_web()
    stack.start_engine()
    read_all(f"{stack.url}/stream?texts=a&texts=b")
    wait_for(lambda: stack.metric("answer_tokens_total") == 8 and stack.metric("generation_seconds_count") == 4)
    assert stack.metric("generations_started_total") == 4


def test_dashboard_file_is_current():
    """After a change: `python -m tools.grafana_dashboard`."""
    assert json.loads(grafana_dashboard.PATH.read_text()) == grafana_dashboard.dashboard()


@pytest.fixture(scope="module")
def prometheus(measured, alice, tmp_path_factory):
    """The shipped configuration, with this service's address and a shorter interval."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is missing: apt-get install prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = (DEPLOY / "prometheus.yml").read_text().replace("15s", "1s")
    assert "web:8001" in config
    config = config.replace("web:8001", measured.metrics_url.removeprefix("http://"))
    (folder / "prometheus.yml").write_text(config)
    (folder / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command = ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"]
    process = Process("prometheus", command, {}, folder)
    url = f"http://127.0.0.1:{port}/api/v1"
    try:
        alice.read(f"/generations/{alice.start(texts=['a', 'b', 'c'])}/events")
        wait_for(lambda: value_of(url, "count_over_time(up[1m])") >= 3, what="three scrapes")
        yield url
    finally:
        process.stop()


def ask(url, query):
    try:
        answer = requests.get(f"{url}/query", {"query": query}, timeout=TIMEOUT_S).json()
    except (requests.RequestException, ValueError):
        return None
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


def value_of(url, query):
    found = ask(url, query)
    return float(found[0]["value"][1]) if found else 0


def test_prometheus_reads_all_of_it(measured, prometheus):
    assert value_of(prometheus, "up") == 1
    targets = requests.get(f"{prometheus}/targets", timeout=TIMEOUT_S).json()["data"]["activeTargets"]
    assert [target["lastError"] for target in targets] == [""]
    started = metric(measured, "generations_started_total")
    wait_for(lambda: value_of(prometheus, "everstream_generations_started_total") == started)


def test_each_query_of_the_dashboard_finds_something(prometheus):
    for query in grafana_dashboard.expressions():
        assert ask(prometheus, query), query


def test_alerts(prometheus):
    """Each is valid, none fires in a healthy service, and the metrics that it needs exist."""
    groups = requests.get(f"{prometheus}/rules", timeout=TIMEOUT_S).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    shipped = [
        rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in shipped}
    wait_for(lambda: all(rule["health"] == "ok" for rule in rules_now(prometheus)), what="an evaluation of all rules")
    assert [rule["name"] for rule in rules_now(prometheus) if rule["state"] == "firing"] == []
    operations = (PROJECT_ROOT / "docs" / "operations.md").read_text()
    assert [rule["alert"] for rule in shipped if f"`{rule['alert']}`" not in operations] == []


def rules_now(url):
    groups = requests.get(f"{url}/rules", timeout=TIMEOUT_S).json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_of_a_service_that_is_gone(prometheus, measured):
    """What they ask for is true when it should be."""
    assert not ask(prometheus, "everstream_engines == 0")
    measured.engines[0].stop()
    wait_for(lambda: ask(prometheus, "everstream_engines == 0"), what="the missing engine")
    measured.start_engine()
    assert not ask(prometheus, 'up{job="everstream"} == 0')
    measured.web.stop()
    wait_for(lambda: ask(prometheus, 'up{job="everstream"} == 0'), what="the missing service")
    measured.start_web()
    measured.wait_ready()
