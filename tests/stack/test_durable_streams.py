"""Durable Streams: the protocol's own tests of servers, and its own client, while processes are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest
import requests

from harness import client_environments
from harness.stack import running_stack, wait_for

PASSED = 332
SKIPPED = 6
"""Of subscriptions, an extension of the protocol."""
TESTS_TIMEOUT_S = 280
TIMEOUT_S = 60
LIVE = ["sse", "long-poll"]
MESSAGES = 200
KILLS = 3
ENVIRON = {"EVERSTREAM_CORS_ORIGINS": "*", "EVERSTREAM_MAX_BODY_BYTES": str(20 << 20)}


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """The command, and a folder with the client and the protocol's tests."""
    folder = tmp_path_factory.mktemp("durable_streams")
    yield client_environments.durable_streams(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("durable"), **ENVIRON) as stack:
        yield stack


@contextmanager
def running(node, stack, script, *arguments):
    """A process of the client."""
    command, project = node
    log_path = stack.folder / f"{script}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, project / script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    except BaseException:
        sys.stderr.write(log_path.read_text(errors="replace")[-4000:])
        raise
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(TESTS_TIMEOUT_S + TIMEOUT_S)
def test_conformance(node, stack):
    command, project = node
    vitest = [*command, "node_modules/vitest/vitest.mjs", "run", "--reporter=json", "--outputFile=report.json"]
    environ = os.environ | {"SERVICE_URL": stack.url}
    done = subprocess.run(
        vitest, cwd=project, env=environ, capture_output=True, text=True, timeout=TESTS_TIMEOUT_S, check=False
    )
    report = project / "report.json"
    assert report.exists(), done.stdout + done.stderr
    tests = [each for part in json.loads(report.read_text())["testResults"] for each in part["assertionResults"]]
    named = {status: [each for each in tests if each["status"] == status] for status in ("passed", "failed", "skipped")}
    assert not named["failed"], "\n".join(
        f"{each['fullName']}: {each['failureMessages'][0][:500]}" for each in named["failed"]
    )
    assert (len(named["passed"]), len(named["skipped"])) == (PASSED, SKIPPED)
    assert all("subscription" in each["fullName"].lower() for each in named["skipped"])


@pytest.mark.parametrize("live", LIVE)
def test_client_follows_through_killed_workers(node, stack, live):
    """Its producer writes meanwhile, and nothing is lost or repeated."""
    url = f"{stack.url}/v1/stream/killed/{live}"
    with running(node, stack, "write.mjs", url, str(MESSAGES)) as writer:
        assert writer.stdout.readline() == "made\n"
        with running(node, stack, "follow.mjs", url, live) as follower:
            found = []
            for n in range(MESSAGES):
                writer.stdin.write("\n")
                writer.stdin.flush()
                if n % 10 == 0:
                    found.append(json.loads(follower.stdout.readline()))
                if n % (MESSAGES // KILLS) == MESSAGES // KILLS - 1:
                    kill_a_worker(stack)
            found += map(json.loads, follower.stdout)
        assert writer.stdout.readline() == "closed\n"
        assert writer.wait(TIMEOUT_S) == 0
    assert found == [{"n": n} for n in range(MESSAGES)]
    assert requests.delete(url, timeout=TIMEOUT_S).status_code == 204


def kill_a_worker(stack):
    """The one that has most connections."""
    workers = set(stack.workers())
    busiest = max(workers, key=lambda pid: len(psutil.Process(pid).net_connections("tcp")))
    os.kill(busiest, signal.SIGKILL)
    wait_for(lambda: len(set(stack.workers()) - {busiest}) == len(workers), what="another worker")


@pytest.mark.parametrize("live", LIVE)
def test_client_follows_a_generation_through_killed_processes(node, own_stack, gate, live):
    stack = own_stack().start(engines=2)
    texts = [f"{n} " for n in range(20)]
    generation = stack.submit(texts=texts, hold_before=11, gate=gate.path)
    with running(node, stack, "follow.mjs", f"{stack.url}/v1/stream/generations/{generation}", live) as follower:
        found = [json.loads(follower.stdout.readline()) for _ in range(10)]
        kill_a_worker(stack)
        (busy,) = wait_for(lambda: [each["name"] for each in stack.readiness()["engines"] if each["running"]])
        stack.engines[int(busy.removeprefix("engine"))].kill()
        gate.open()
        found += map(json.loads, follower.stdout)
        assert follower.wait(TIMEOUT_S) == 0
    said = [each["data"]["text"] for each in found if each["event"] == "message"]
    assert said == texts
    assert [each["event"] for each in found if each["event"] != "message"] == ["resumed", "done"]


def test_fork_can_not_count_from_messages_that_are_gone(stack):
    url = f"{stack.url}/topics/short"
    assert requests.put(url, json={"history": 2}, timeout=TIMEOUT_S).status_code == 201
    ids = [requests.post(url, json={"data": n}, timeout=TIMEOUT_S).json()["last"] for n in range(5)]

    def fork(name, offset):
        headers = {"Stream-Forked-From": "/v1/stream/short", "Stream-Fork-Offset": offset}
        headers["Stream-Fork-Sub-Offset"] = "1"
        return requests.put(f"{stack.url}/v1/stream/{name}", headers=headers, timeout=TIMEOUT_S)

    refused = fork("fork/gone", ids[0])
    assert (refused.status_code, refused.json()["error"]["code"]) == (410, "position_gone")
    assert fork("fork/kept", ids[2]).status_code == 201
    assert requests.get(f"{stack.url}/v1/stream/fork/kept", timeout=TIMEOUT_S).json() == [3]
