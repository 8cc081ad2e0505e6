"""The log's protocol against a real Valkey: one writer, one terminal entry, idempotent appends."""

import asyncio
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import valkey
from msgspec import structs

from everstream.contract.schema import Field
from everstream.errors import (
    ChecksBusy,
    EverstreamError,
    LogFull,
    ModelLoadError,
    QueueFull,
    RateLimited,
    RequestConflict,
)
from everstream.log import append_connection, engine_log
from everstream.log.api_keys import KeyLimits
from everstream.log.engine_log import EngineLog, Held
from everstream.log.entries import encode_entry, encode_lines, split_entries
from everstream.log.keys import GROUP
from everstream.log.records import EngineStatus, Job, ModelDescription, Submission, ValidationReply, inputs_digest
from everstream.log.retryable import UNAVAILABLE
from everstream.log.web_log import MAX_LONG_VALIDATIONS, MAX_VALIDATIONS, READ_BYTES, WebLog
from harness.batches import batch_at
from harness.stack import Stack, tries, wait_for

LEASE_S = 100
"""No test waits this long: `expire_leases` ages leases by it."""
CALM_S = 1000
"""So long ago was the last disturbance that abandoned generations end."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("log"), EVERSTREAM_MAX_QUEUED="3", EVERSTREAM_LEASE_S=str(LEASE_S))
    try:
        stack.start_valkey()
        yield stack.settings
    finally:
        stack.stop()


@pytest.fixture
def web(settings):
    web_log = WebLog(settings)
    web_log._client.flushall()
    yield web_log
    web_log.close()


@pytest.fixture
def run(settings):
    """Run a coroutine function, which is passed a function from consumer name to EngineLog."""

    def run(test):
        async def main():
            opened = []

            def engine(consumer):
                opened.append(EngineLog(settings, consumer))
                return opened[-1]

            try:
                await test(engine)
            finally:
                for one in opened:
                    await one.close()

        asyncio.run(main())

    return run


def submit(web, generation=None, request_id="", prompt="a"):
    return web.submit(generation or uuid.uuid4().hex, Job({"prompt": prompt}), "model", "", Submission(request_id)).id


def token(text):
    return encode_entry("", {"text": text}), b'["state"]'


def batch(web, generation, first, entries, *end):
    return batch_at(web._client.get(web._keys.log(generation)) or b"", generation, first, entries, *end)


def entries_of(web, generation):
    page = web.read([(generation, 0)], READ_BYTES)[0]
    return page.entries if page else []


DONE = (encode_entry("done", {"finish_reason": "stop"}), b"")


async def claim_one(engine):
    (claim,) = await engine.claim(1)
    return claim


def test_claim_says_how_long_the_job_was_queued(web, run):
    async def test(engine):
        generation, one, client = submit(web), engine("one"), web._client
        # As if it had been submitted earlier: the time is in the job's id.
        job_id, jobs = f"{int(time.time() * 1000) - 90_000}-0", web._keys.jobs
        client.delete(jobs)
        client.xadd(jobs, {"generation": generation}, id=job_id)
        client.hset(web._keys.generation(generation), "job_id", job_id)
        for _ in tries(30, "the claim"):
            if claims := await one.claim(1):
                break
        assert 90 <= claims[0].queued_s < 150

    run(test)


def expire_leases(web, *claims, lease_s=LEASE_S):
    """Age these claims, as if they had not been refreshed for `lease_s`."""
    for claim in claims:
        (pending,) = web._client.xpending_range(web._keys.jobs, GROUP, claim.job_id, claim.job_id, 1)
        idle_ms = int(lease_s * 1000)
        web._client.xclaim(web._keys.jobs, GROUP, pending["consumer"], 0, [claim.job_id], idle=idle_ms, justid=True)


def test_entries_are_read_as_they_were_appended(web, run):
    async def test(engine):
        one = engine("one")
        await one.claim(1)
        generation = submit(web)
        claim = await claim_one(one)
        assert (claim.generation, claim.job.inputs, claim.taken_over) == (generation, {"prompt": "a"}, False)
        assert await one.append([batch(web, generation, 1, [token("x"), token("y"), DONE], "done")]) == set()
        entries = [
            (1, "", b'{"text":"x"}'),
            (2, "", b'{"text":"y"}'),
            (3, "done", b'{"finish_reason":"stop"}'),
        ]
        assert [(entry.n, entry.event, entry.data) for entry in entries_of(web, generation)] == entries
        history = (await one.history(generation)).entries
        assert [(entry.n, entry.event, entry.data) for entry in history] == entries
        assert [entry.resume for entry in history] == [b'["state"]', b'["state"]', b""]
        known = web.lookup([generation])[0]
        assert (known.state, known.top, known.model) == ("done", 3, "model")
        assert web._client.xlen(web._keys.jobs) == 0
        assert 0 < web._client.ttl(web._keys.log(generation)) <= 600
        assert 0 < web._client.ttl(web._keys.generation(generation)) <= 600

    run(test)


def test_repeated_append_is_idempotent(web, run):
    """As after a lost reply."""

    async def test(engine):
        generation, one = submit(web), engine("one")
        await claim_one(one)
        beginning = batch(web, generation, 1, [token("x"), token("y")])
        assert await one.append([beginning]) == set()
        assert await one.append([beginning]) == set()
        end = batch(web, generation, 3, [DONE], "done")
        assert await one.append([end]) == set()
        assert await one.append([end]) == set()
        assert [entry.n for entry in entries_of(web, generation)] == [1, 2, 3]

    run(test)


def test_only_one_of_two_writers_is_accepted(web, run):
    async def test(engine):
        generation, zombie, heir = submit(web), engine("zombie"), engine("heir")
        await claim_one(zombie)
        assert await zombie.append([batch(web, generation, 1, [token("x")])]) == set()
        fence = encode_entry("resumed", {"attempt": 2})
        assert await heir.append([batch(web, generation, 2, [(fence, b'"heir"')])]) == set()
        assert await zombie.append([batch(web, generation, 2, [token("y")])]) == {generation}
        assert await zombie.append([batch(web, generation, 2, [(fence, b'"zombie"')])]) == {generation}
        assert await heir.append([batch(web, generation, 3, [token("y"), DONE], "done")]) == set()
        assert [entry.event for entry in entries_of(web, generation)] == ["", "resumed", "", "done"]

    run(test)


def test_refused_generation_does_not_delay_others(web, run):
    async def test(engine):
        refused, taken, one = submit(web), submit(web), engine("one")
        await one.append([batch(web, refused, 1, [token("x")])])
        answer = await one.append([batch(web, refused, 1, [token("other")]), batch(web, taken, 1, [token("y")])])
        assert answer == {refused}
        assert web.lookup([taken])[0].top == 1

    run(test)


def test_nothing_follows_a_terminal_entry(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        await one.append([batch(web, generation, 1, [token("x")])])
        late = batch(web, generation, 2, [token("y")])
        await one.append([batch(web, generation, 2, [DONE], "done")])
        assert await one.append([late]) == {generation}
        assert [entry.event for entry in entries_of(web, generation)] == ["", "done"]
        assert await one.append([batch(web, "0" * 32, 1, [token("x")])]) == {"0" * 32}
        assert web.lookup(["0" * 32]) == [None]

    run(test)


def test_refused_entries_are_not_published(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        await one.append([batch(web, generation, 1, [token("x")])])
        received = web.subscribe()
        assert next(received) == []
        await one.append([batch(web, generation, 1, [token("zombie")])])
        await one.append([batch(web, generation, 2, [token("y")])])
        ((of, first, entries),) = next(received)
        assert (of, first, split_entries(entries)) == (generation, 2, [token("y")[0]])

    run(test)


def test_messages_come_together_and_in_order(web, monkeypatch):
    """Also those that take several reads, between which other greenlets run."""
    sleeps = []
    received = web.messages("channel")
    assert next(received) == []
    monkeypatch.setattr("everstream.log.web_log.time.sleep", sleeps.append)
    sent = [b"%d" % n + b"." * size for n, size in enumerate([0, 1, 0, READ_BYTES, 10, *[900] * 300])]
    found, reads = [], 0
    for message in sent:
        web._client.publish("channel", message)
    while len(found) < len(sent):
        found += next(received)
        reads += 1
    received.close()
    assert found == sent
    assert reads < len(sent) and sleeps and not any(sleeps)


def test_error_among_messages_is_raised(settings):
    message = b"*3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$1\r\nx\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        url = f"valkey://127.0.0.1:{server.getsockname()[1]}"
        web = WebLog(structs.replace(settings, valkey_url=url))
        sent = pool.submit(_answer_subscriber, server, message + b"-NOPERM not any more\r\n" + message)
        with closing(web), pytest.raises(valkey.ResponseError, match="not any more"):
            list(web.messages("channel"))
        sent.result()


def _answer_subscriber(server, messages):
    connection, _ = server.accept()
    with connection:
        while b"SUBSCRIBE" not in (asked := connection.recv(1 << 16)):
            connection.sendall(b"+OK\r\n" * asked.count(b"SETINFO"))
        connection.sendall(b"*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n" + messages)


def test_accepted_entries_are_published_beside_refused_ones(web, run):
    async def test(engine):
        refused, taken, other, one = submit(web), submit(web), submit(web), engine("one")
        await one.append([batch(web, refused, 1, [token("x")]), batch(web, taken, 1, [token("y")])])
        received = web.subscribe()
        assert next(received) == []
        batches = [
            batch(web, refused, 1, [token("zombie")]),
            batch(web, taken, 2, [token("z"), token("\t\n,"), DONE], "done"),
            batch(web, other, 1, [token("o")]),
        ]
        assert await one.append(batches) == {refused}
        said = {of: (first, split_entries(entries)) for of, first, entries in next(received)}
        assert said == {
            taken: (2, [token("z")[0], token("\t\n,")[0], DONE[0]]),
            other: (1, [token("o")[0]]),
        }
        assert web.lookup([taken])[0].state == "done"

    run(test)


def test_end_that_can_not_be_published_is_the_only_one(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        claim = await claim_one(one)
        client = web._client
        client.execute_command("ACL", "SETUSER", "default", "-publish")
        try:
            with pytest.raises(valkey.ResponseError):
                await one.append([batch(web, generation, 1, [token("x"), DONE], "done")])
            await one.fail(claim, "log_error", "the log refuses it")
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+publish")
        assert [entry.event for entry in entries_of(web, generation)] == ["", "done"]
        assert web.lookup([generation])[0].state == "done"

    run(test)


def test_connection_to_a_demoted_primary_is_left(web, run):
    """Another one may reach the primary again."""

    async def test(engine):
        generation, one = submit(web), engine("one")
        first = await one._appends.call("CLIENT", "ID")
        web._client.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(UNAVAILABLE, match="read only"):
                await one.append([batch(web, generation, 1, [token("x")])])
        finally:
            web._client.replicaof("NO", "ONE")
        assert await one.append([batch(web, generation, 1, [token("x")])]) == set()
        assert await one._appends.call("CLIENT", "ID") != first

    run(test)


def test_connection_that_was_lost_while_idle_is_opened_again(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        web._client.client_kill_filter(_id=str(await one._appends.call("CLIENT", "ID")))
        async with asyncio.timeout(30):
            while not one._appends._channel.is_lost:
                await asyncio.sleep(0)
        assert await one.append([batch(web, generation, 1, [token("x")])]) == set()

    run(test)


def test_late_reply_is_not_taken_for_the_next(web, run):
    async def test(engine):
        one = engine("one")
        waiting = asyncio.create_task(one._appends.call("BLPOP", "nothing", 0))
        while one._appends._channel is None or not one._appends._turn.locked():
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        web._client.rpush("nothing", "late")
        assert await one._appends.call("PING") == b"PONG"

    run(test)


def test_reply_may_come_in_pieces(web, run):
    async def test(engine):
        web._client.set("large", b"x" * 5_000_000)
        assert len(await engine("one")._appends.call("GET", "large")) == 5_000_000

    run(test)


def test_refreshed_lease_is_not_taken_over(web, run):
    async def test(engine):
        submit(web)
        holder, other = engine("holder"), engine("other")
        claim = await claim_one(holder)
        for _ in range(3):
            expire_leases(web, claim)
            assert (await holder.refresh([Held(claim)])).verdicts == ["held"]
            assert await other.take_over(1, LEASE_S) == []

    run(test)


def test_expired_lease_is_taken_over_for_good(web, run):
    async def test(engine):
        generation, zombie, heir = submit(web), engine("zombie"), engine("heir")
        claim = await claim_one(zombie)
        expire_leases(web, claim)
        taken = await heir.take_over(1, LEASE_S)
        assert (taken[0].generation, taken[0].taken_over) == (generation, True)
        assert (await zombie.refresh([Held(claim)])).verdicts == ["lost"]
        assert (await heir.refresh([Held(each) for each in taken])).verdicts == ["held"]

    run(test)


def test_log_that_lost_entries_refuses_the_next(web, run):
    async def test(engine):
        generation, one, key = submit(web), engine("one"), None
        await one.append([batch(web, generation, 1, [token("x")])])
        key = web._keys.log(generation)
        shorter = web._client.get(key)
        await one.append([batch(web, generation, 2, [token("y")])])
        third = batch(web, generation, 3, [token("z")])
        web._client.set(key, shorter)
        assert await one.append([third]) == {generation}
        assert web._client.get(key) == shorter
        assert web.lookup([generation])[0].state == "open"
        web._client.delete(key)
        assert await one.append([third]) == {generation}
        assert not web._client.exists(key)

    run(test)


def test_read_finds_its_place_in_a_large_log(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        # Most are short, and some longer than what is searched at a time.
        sizes = [200_000 if n % 97 == 50 else n % 61 for n in range(500)]
        await one.append([batch(web, generation, 1, [token("x" * size) for size in sizes])])
        whole = [entry.data for entry in (await one.history(generation)).entries]
        assert web.lookup([generation])[0].top == len(whole)
        for after in range(0, 500, 7):
            (page,) = web.read([(generation, after)], 1000)
            assert page.top == len(whole)
            assert [entry.n for entry in page.entries][:1] == [after + 1]
            assert [entry.data for entry in page.entries] == whole[after : page.entries[-1].n]
        assert web.read([(generation, 500)], 1000)[0].entries == []

    run(test)


def test_last_entry_is_found_however_long_it_is(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        for n, size in enumerate((1, 300, 600, 10_000, 300_000), 1):
            await one.append([batch(web, generation, n, [token("x" * size)])])
            assert web.lookup([generation])[0].top == n
            assert web.read([(generation, n)], 1000)[0].top == n

    run(test)


def test_expired_lease_is_found_behind_many_refreshed_ones(web, run):
    async def test(engine):
        holder, dead, heir = engine("holder"), engine("dead"), engine("heir")
        await holder.claim(1)
        kept = []
        for _ in range(40):
            submit(web)
            kept.append(await claim_one(holder))
        submit(web)
        lost = await claim_one(dead)
        expire_leases(web, *kept, lost)
        await holder.refresh([Held(each) for each in kept])
        taken = await heir.take_over(1, LEASE_S)
        assert [claim.generation for claim in taken] == [lost.generation]

    run(test)


def test_ended_generations_are_not_taken_over(web, run):
    async def test(engine):
        one, heir = engine("one"), engine("heir")
        stopped, ended, running = submit(web), submit(web), submit(web)
        claimed = await one.claim(3)
        web.stop(stopped)
        await one.append([batch(web, ended, 1, [DONE], "done")])
        expire_leases(web, *(claim for claim in claimed if claim.generation != ended))
        taken = await heir.take_over(3, LEASE_S)
        assert [claim.generation for claim in taken] == [running]
        assert [entry.event for entry in entries_of(web, stopped)] == ["cancelled"]
        assert web._client.xlen(web._keys.jobs) == 1

    run(test)


def test_take_over_takes_at_most_count(web, run):
    async def test(engine):
        for _ in range(3):
            submit(web)
        claimed = await engine("dead").claim(3)
        expire_leases(web, *claimed)
        heir, taken = engine("heir"), []
        for count in (1, 2, 0):
            found = await heir.take_over(count or 1, LEASE_S)
            assert len(found) == count
            taken += [claim.generation for claim in found]
        assert sorted(taken) == sorted(claim.generation for claim in claimed)

    run(test)


def test_job_whose_generation_is_gone_is_dropped(web, run):
    async def test(engine):
        one = engine("one")
        web._client.delete(web._keys.generation(submit(web)))
        assert await one.claim(1) == []
        # The first claim only creates the consumer group.
        assert await one.claim(1) == []
        assert web._client.xlen(web._keys.jobs) == 0

    run(test)


def test_lease_of_an_ended_generation_is_lost(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        claim = await claim_one(one)
        await one.append([batch(web, generation, 1, [DONE], "done")])
        assert (await one.refresh([Held(claim)])).verdicts == ["lost"]

    run(test)


def test_concurrent_first_engines_create_one_group(web, run):
    async def test(engine):
        submit(web)
        web._client.xgroup_destroy(web._keys.jobs, GROUP)
        one, two = engine("one"), engine("two")
        claims = [claim for found in await asyncio.gather(one.claim(1), two.claim(1)) for claim in found]
        # The second may have found the group that the first created, and claimed the job.
        claims += [] if claims else await one.claim(1)
        assert len(claims) == 1

    run(test)


def test_engine_receives_cancellations(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        await claim_one(one)
        received = asyncio.create_task(anext(one.cancellations()))
        await asyncio.to_thread(wait_for, lambda: dict(web._client.pubsub_numsub(web._keys.control)).popitem()[1])
        web.stop(generation)
        assert await received == generation

    run(test)


def test_late_reply_does_not_answer_the_next_call(web, run):
    async def test(engine):
        taken, refused, one = submit(web), submit(web), engine("one")
        await one.append([batch(web, refused, 1, [token("x")])])
        web._client.client_pause(60_000, all=False)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.append([batch(web, taken, 1, [token("x")])]), 0.2)
        web._client.client_unpause()
        assert await one.append([batch(web, refused, 1, [token("other")])]) == {refused}

    run(test)


def test_lease_can_be_released(web, run):
    async def test(engine):
        submit(web)
        one, other = engine("one"), engine("other")
        claim = await claim_one(one)
        assert await other.take_over(1, 600) == []
        assert (await other.refresh([Held(claim)], idle_s=600)).verdicts == ["lost"]
        assert await other.take_over(1, 600) == []
        await one.refresh([Held(claim)], idle_s=600)
        assert len(await other.take_over(1, 600)) == 1

    run(test)


def test_stopping(web, run):
    async def test(engine):
        one = engine("one")
        queued = submit(web)
        assert web.fail("0" * 32, EverstreamError("message"), only_queued=True) == ""
        assert web.stop(queued) == "cancelled"
        assert web.stop(queued) == "cancelled"
        assert [entry.event for entry in entries_of(web, queued)] == ["cancelled"]
        running = submit(web)
        claim = await claim_one(one)
        assert web.fail(running, EverstreamError("message"), only_queued=True) == "open"
        assert (await one.refresh([Held(claim)])).verdicts == ["held"]
        assert web.stop(running) == "stopping"
        assert (await one.refresh([Held(claim)])).verdicts == ["stop"]

    run(test)


def test_queue_is_bounded_and_reports_positions(web, run):
    generations = [submit(web) for _ in range(3)]
    assert web.positions("") == {generation: place for place, generation in enumerate(generations, 1)}
    with pytest.raises(QueueFull):
        submit(web)

    async def test(engine):
        assert (await claim_one(engine("one"))).generation == generations[0]

    run(test)
    assert web.positions("") == {generations[1]: 1, generations[2]: 2}
    assert submit(web) in web.positions("")


def test_emptied_log_is_not_a_fault(web, run):
    async def test(engine):
        submit(web)
        one = engine("one")
        claim = await claim_one(one)
        web._client.flushall()
        assert web.positions("") == {}
        assert (await one.refresh([Held(claim)])).verdicts == ["lost"]
        await one.fail(claim, "code", "message")
        await one.report(EngineStatus("one", "ready", "model"))
        assert await one.append([batch(web, claim.generation, 1, [token("x")])]) == {claim.generation}
        assert (web.fault, web.lookup([claim.generation])) == ("", [None])

    run(test)


def test_foreign_key_affects_no_other_generation(web, run, settings):
    async def test(engine):
        one, foreign, other = engine("one"), submit(web), submit(web)
        web._client.set(web._keys.generation(foreign), "something else")
        claims = await one.claim(2)
        assert [claim.generation for claim in claims] == [other]
        running = submit(web)
        claims += await one.claim(1)
        web._client.set(web._keys.generation(other), "something else")
        assert (await one.refresh([Held(claim) for claim in claims])).verdicts == ["foreign", "held"]
        web._client.set(web._keys.log(running), "something else")
        assert web.lookup([other, running]) == [None, None]
        assert web.read([(running, 0)], 1) == [None]
        for claim in claims:
            await one.fail(claim, "code", "message")
        assert web._client.xlen(web._keys.jobs) == 0
        # A finished generation whose key was overwritten does not block eviction.
        finished = submit(web)
        web.stop(finished)
        web._client.set(web._keys.generation(finished), "something else")
        small = WebLog(structs.replace(settings, max_log_bytes=2000))
        submit(small)
        small.close()
        request_id = uuid.uuid4().hex
        web._client.set(web._keys.log(submit(web, request_id=request_id)), "something else")
        assert web.lookup([submit(web, request_id=request_id)])[0].state == "open"

    run(test)


def test_foreign_shared_key_is_not_blamed_on_a_generation(web, run):
    async def test(engine):
        one = engine("one")
        submit(web)
        claim = await claim_one(one)
        web._client.set(web._keys.ns + "read", "something else")
        with pytest.raises(valkey.ResponseError, match="WRONGTYPE"):
            await one.refresh([Held(claim)], calm_s=CALM_S)

    run(test)


def test_generation_is_abandoned_after_its_own_time(web, run):
    async def test(engine):
        one = engine("one")
        own = web.submit("0" * 32, Job({}), "model", "", Submission(abandon_after_s=5)).id
        claims = [await claim_one(one)]
        submit(web)
        claims.append(await claim_one(one))
        seconds, _ = web._client.time()
        unread_since = {claim.generation: (seconds - 20) * 1000 for claim in claims}
        web._client.zadd(web._keys.ns + "read", unread_since)
        for calm_s, verdict in ((1, "held"), (CALM_S, "abandoned")):
            refreshed = await one.refresh([Held(claim) for claim in claims], calm_s=calm_s)
            assert refreshed.verdicts == [verdict, "held"]
        web.touch([own], {})
        assert (await one.refresh([Held(claims[0])], calm_s=CALM_S)).verdicts == ["held"]

    run(test)


def test_deleted_generation_is_gone_with_its_request_id(web):
    kept = submit(web)
    before = web.figures().gauges()["log_bytes"]
    submission = Submission("a-request", record=b"asked")
    for outcome in ("queued", "stopped"):
        generation = web.submit(uuid.uuid4().hex, Job({}), "model", "", submission).id
        if outcome == "stopped":
            web.stop(generation)
        web.delete(generation)
        assert (web.lookup([generation]), web.read([(generation, 0)], READ_BYTES)) == ([None], [None])
        assert web.record(generation) is None
        assert web.figures().gauges()["log_bytes"] == before
    assert web.lookup([kept]) != [None]
    web.delete("f" * 32)


def test_deleted_generation_that_runs_is_stopped_and_has_no_record(web, run):
    async def test(engine):
        one = engine("one")
        await one.claim(1)
        generation = web.submit("0" * 32, Job({}), "model", "", Submission(record=b"asked")).id
        claim, before = await claim_one(one), web.figures().gauges()["log_bytes"]
        web.delete(generation)
        assert web.figures().gauges()["log_bytes"] == before - len(b"asked")
        assert (web.record(generation), web.lookup([generation])[0].state) == (None, "open")
        assert (await one.refresh([Held(claim)])).verdicts == ["stop"]
        cancelled = encode_entry("cancelled", {"reason": "requested"}), b""
        await one.append([batch(web, generation, 1, [cancelled], "cancelled")])
        web.delete(generation)
        assert web.lookup([generation]) == [None]
        assert web.figures().gauges()["log_bytes"] == 0

    run(test)


def test_record_lives_as_long_as_its_generation(web):
    generation = web.submit("0" * 32, Job({}), "model", "", Submission(record=b"asked")).id
    assert web.record(generation) == b"asked"
    assert web.record(submit(web)) is None
    assert web.record("f" * 32) is None


def test_broken_log_ends_a_generation_only_after_its_lease(web, run):
    async def test(engine):
        queued = submit(web)
        claim = await claim_one(engine("one"))
        error = EverstreamError("message")
        assert web.fail(queued, error, only_queued=False) == "open"
        expire_leases(web, claim)
        assert web.fail(queued, error, only_queued=True) == "open"
        assert web.fail(queued, error, only_queued=False) == "failed"

    run(test)


def test_only_the_lease_holder_can_fail_a_generation(web, run):
    async def test(engine):
        generation, zombie, heir = submit(web), engine("zombie"), engine("heir")
        claim = await claim_one(zombie)
        expire_leases(web, claim)
        (taken,) = await heir.take_over(1, LEASE_S)
        await zombie.fail(claim, "code", "message")
        assert web.lookup([generation])[0].state == "open"
        await heir.fail(taken, "code", "message")
        assert [entry.data for entry in entries_of(web, generation)] == [b'{"code":"code","message":"message"}']
        await heir.fail(taken, "code", "message")
        assert web.lookup([generation])[0].top == 1

    run(test)


def test_request_id_starts_one_generation(web):
    request_id = uuid.uuid4().hex
    first = submit(web, request_id=request_id)
    assert submit(web, request_id=request_id) == first
    assert list(web.positions("")) == [first]


def test_request_id_whose_generation_is_gone_starts_another(web):
    request_id = uuid.uuid4().hex
    first = submit(web, request_id=request_id)
    web._client.delete(web._keys.generation(first))
    assert submit(web, request_id=request_id) != first


def test_request_id_reused_for_another_request_is_refused(web):
    request_id = uuid.uuid4().hex
    first = submit(web, request_id=request_id, prompt="a")
    with pytest.raises(RequestConflict):
        submit(web, request_id=request_id, prompt="b")
    assert list(web.positions("")) == [first]
    ordered, reordered = {"prompt": "a", "seed": 7}, {"seed": 7, "prompt": "a"}
    assert inputs_digest(ordered, "") == inputs_digest(reordered, "") != inputs_digest({"prompt": "a", "seed": "7"}, "")
    assert len({inputs_digest(ordered, queue) for queue in ("", "one", "two")}) == 3


def test_attaching_returns_the_generations_progress(web, run):
    async def test(engine):
        request_id = uuid.uuid4().hex
        generation = submit(web, request_id=request_id)

        def attached():
            return web.submit("0" * 32, Job({"prompt": "a"}), "model", "", Submission(request_id))

        assert (attached().id, attached().state, attached().top) == (generation, "open", 0)
        await engine("one").append([batch(web, generation, 1, [token("x"), DONE], "done")])
        assert attached() == web.lookup([generation])[0]
        assert (attached().state, attached().top) == ("done", 2)

    run(test)


def test_request_id_lives_as_long_as_its_generation(web, run, settings):
    async def test(engine):
        request_id = uuid.uuid4().hex
        key = web._keys.request(request_id, "")
        first = submit(web, request_id=request_id)
        assert web._client.ttl(key) == -1
        await engine("one").append([batch(web, first, 1, [DONE], "done")])
        assert 0 < web._client.ttl(key) <= settings.retention_s
        # Eviction from a full log deletes both.
        small = WebLog(structs.replace(settings, max_log_bytes=2000))
        submit(small)
        assert web.lookup([first]) == [None]
        assert web._client.exists(key) == 0
        small.close()

    run(test)


def test_full_log_refuses_generations(web, settings):
    small = WebLog(structs.replace(settings, max_log_bytes=2000))
    submit(small)
    with pytest.raises(LogFull):
        submit(small)
    small.close()


def test_many_small_generations_are_evicted_for_a_large_one(web, settings, run):
    async def test(engine):
        small = WebLog(structs.replace(settings, max_log_bytes=600_000))
        one = engine("one")
        finished = [submit(small) for _ in range(2)]
        # Submit more than fit, so that the oldest are evicted.
        while web.lookup(finished[:1]) != [None]:
            await one.append([batch(web, generation, 1, [DONE], "done") for generation in finished[-2:]])
            finished += [submit(small) for _ in range(2)]
        for generation in finished[-2:]:
            small.stop(generation)
        assert len(finished) > 400
        large = submit(small, prompt="x" * 500_000)
        assert small.lookup([large])[0].state == "open"
        assert small.figures().gauges()["log_bytes"] <= 600_000
        with pytest.raises(LogFull):
            submit(small, prompt="x" * 500_000)
        small.close()

    run(test)


def test_expired_generations_make_room(web, settings, run):
    async def test(engine):
        small = WebLog(structs.replace(settings, max_log_bytes=10_000))
        one = engine("one")
        finished = [submit(small) for _ in range(3)]
        await one.append([batch(web, generation, 1, [DONE], "done") for generation in finished])
        for generation in finished:
            web._client.delete(web._keys.generation(generation), web._keys.log(generation))
            web._client.zadd(web._keys.ns + "finished", {generation: 0})
        submit(small, prompt="x" * 8000)
        assert small.figures().counters["generations_evicted"] == 0
        small.close()

    run(test)


def test_ended_generations_do_not_count_as_read(web, run):
    async def test(engine):
        generation, open_ = submit(web), submit(web)
        await engine("one").append([batch(web, generation, 1, [DONE], "done")])
        web.touch([generation, open_, "0" * 32], {})
        assert web._client.zrange(web._keys.ns + "read", 0, -1) == [open_.encode()]

    run(test)


def test_counters(web, run):
    async def test(engine):
        zombie, heir = engine("zombie"), engine("heir")
        generation = submit(web)
        claim = await claim_one(zombie)
        await zombie.append([batch(web, generation, 1, [token("x")])])
        expire_leases(web, claim)
        await heir.take_over(1, LEASE_S)
        await zombie.append([batch(web, generation, 1, [token("y"), token("z")])])
        end = batch(web, generation, 2, [DONE], "done")
        for _ in range(2):
            await heir.append([end])
        web.touch([], {"streams": 2})
        counted = {name: value for name, value in web.figures().counters.items() if value}
        ends = {"generations_started": 1, "generations_done": 1}
        assert counted == {"streams": 2, "leases_taken_over": 1, "entries_refused": 2, **ends}

    run(test)


def test_read_is_bounded_in_bytes_but_returns_at_least_one_entry(web, run):
    async def test(engine):
        large, small, one = submit(web), submit(web), engine("one")
        size = len(encode_lines(1, [token("x" * 1000)]))
        await one.append([batch(web, large, 1, [token("x" * 1000)] * 5), batch(web, small, 1, [token("y")] * 5)])

        def counts(max_bytes, *places):
            return [len(page.entries) for page in web.read(places, max_bytes)]

        assert counts(1, (large, 0)) == [1]
        assert counts(2 * size, (large, 0)) == [2]
        assert counts(100 * size, (large, 0), (small, 2)) == [5, 3]
        # The remaining bytes are for generations later in the list.
        assert counts(2 * size, (large, 0), (small, 0)) == [2, 0]
        assert web.read([("0" * 32, 0)], size) == [None]

    run(test)


def test_silent_engine_is_forgotten(web, run):
    async def test(engine):
        await engine("one").report(EngineStatus("one", "ready", "model"))
        assert [status.state for status in web.engines([""])] == ["ready"]
        key = web._keys.engine("one")
        assert 0 < web._client.pttl(key) <= 1000 * LEASE_S
        web._client.delete(key)
        await asyncio.to_thread(wait_for, lambda: web.engines([""]) == [])

    run(test)


def idle_ms(web, consumer):
    consumers = web._client.xinfo_consumers(web._keys.jobs, GROUP)
    return next(each["idle"] for each in consumers if each["name"] == consumer.encode())


def test_gone_engines_leave_nothing(web, run, settings, monkeypatch):
    """As many as uniquely named containers may leave behind, each with its own consumer."""
    monkeypatch.setattr(engine_log, "CONSUMER_GONE_S", 0)

    async def test(engine):
        last = EngineLog(structs.replace(settings, lease_s=0.5), "last")
        names = [f"host{n}" for n in range(9000)]
        web._client.zadd(web._keys.ns + "engine_names", dict.fromkeys(names, 1))
        web._client.xgroup_create(web._keys.jobs, GROUP, id="0", mkstream=True)
        pipe = web._client.pipeline()
        for name in names:
            pipe.xgroup_createconsumer(web._keys.jobs, GROUP, name)
        pipe.execute()
        working = engine("working")
        submit(web)
        await claim_one(working)

        async def report():
            await last.report(EngineStatus("last", "ready", "model"))
            return sorted(each["name"] for each in web._client.xinfo_consumers(web._keys.jobs, GROUP))

        assert [status.name for status in web.engines([""])] == []
        await report()
        assert [status.name for status in web.engines([""])] == ["last"]
        assert web._client.zcard(web._keys.ns + "engine_names") == 1
        # A consumer with a job is kept, however long it is silent: its job must still be taken over.
        for _ in tries(60, "the end of the consumers"):
            if await report() == [b"working"]:
                break
        await asyncio.to_thread(wait_for, lambda: idle_ms(web, "working") > 2000)
        assert await report() == [b"working"]
        await last.close()

    run(test)


def expire_validations(web):
    """Expire every waiting validation request, as if its sender had given up."""
    for is_long in (False, True):
        waiting = web._keys.validations(long=is_long)
        for request in web._client.zrange(waiting, 0, -1):
            web._client.zadd(waiting, {request: 1})
            web._client.delete(web._keys.validation(request.decode()))


@pytest.mark.parametrize(("is_long", "most"), [(False, MAX_VALIDATIONS), (True, MAX_LONG_VALIDATIONS)])
def test_waiting_validations_are_bounded(web, is_long, most):
    for _ in range(most):
        web._request_validation({}, "", "check", is_long=is_long)
    with pytest.raises(ChecksBusy, match=f"^{most} prompts are already waiting"):
        web.validate({}, "", "check", is_long=is_long)
    web._request_validation({}, "", "check", is_long=not is_long)
    # No engine answered, as after a crash: expired requests do not block new ones.
    expire_validations(web)
    for _ in range(most):
        web._request_validation({}, "", "check", is_long=is_long)
    assert web._client.zcard(web._keys.validations(long=is_long)) == most


def test_engine_skips_expired_validations(web, run):
    async def test(engine):
        replies = [web._request_validation({}, "", "check", is_long=True) for _ in range(2)]
        # Requests of the same millisecond may be in either order.
        first, second = (request.decode() for request in web._client.zrange(web._keys.validations(long=True), 0, -1))
        assert {web._keys.validation_reply(first), web._keys.validation_reply(second)} == set(replies)
        web._client.delete(web._keys.validation(first))
        one = engine("one")
        requests = [await one.next_validation(is_long=True) for _ in range(2)]
        assert [request and request.reply for request in requests] == [None, web._keys.validation_reply(second)]

    run(test)


def test_answered_validation_leaves_no_key(web, run):
    async def test(engine):
        one = engine("one")
        validation = asyncio.create_task(asyncio.to_thread(web.validate, {"prompt": "a"}, "", "check", is_long=False))
        async with asyncio.timeout(60):
            while not (request := await one.next_validation(is_long=False)):
                pass
        await one.reply(request, ValidationReply("too long"))
        assert (await validation).message == "too long"
        assert web._client.keys("*") == []
        # A reply that nobody fetches and a request that nobody takes: both expire.
        await one.reply(request, ValidationReply())
        web._request_validation({}, "", "check", is_long=True)
        keys = web._client.keys("*")
        assert len(keys) == 3 and all(0 < web._client.pttl(key) <= 4000 for key in keys)

    run(test)


def test_append_that_times_out_can_be_repeated(web, run, monkeypatch):
    """The engine retries what raises UNAVAILABLE; a reply that comes too late must not be taken for the next one."""

    async def test(engine):
        generation, one = submit(web), engine("one")
        await claim_one(one)
        batches = [batch(web, generation, 1, [token("a")])]
        monkeypatch.setattr(append_connection, "COMMAND_TIMEOUT_S", 0.1)
        web._client.client_pause(60_000, all=False)
        try:
            with pytest.raises(UNAVAILABLE):
                await one.append(batches)
        finally:
            web._client.client_unpause()
            monkeypatch.undo()
        assert await one.append(batches) == set()
        assert await one.append([batch(web, generation, 2, [token("b")])]) == set()
        assert [entry.data for entry in entries_of(web, generation)] == [b'{"text":"a"}', b'{"text":"b"}']

    run(test)


def test_probes_are_rate_limited(web):
    web._client.config_resetstat()
    for _ in range(100):
        web.probe()
    assert web._client.info("commandstats")["cmdstat_xdel"]["calls"] == 1


@pytest.fixture
def two_queues(settings):
    """The settings of an engine of each of two models, and a web process's."""
    given = structs.replace(settings, models="one=/one two=/two")
    return {name: structs.replace(given, engine_model=name) for name in ("", "one", "two")}


def submit_to(web, queue, request_id=""):
    return web.submit(uuid.uuid4().hex, Job({"prompt": "a"}), "model", queue, Submission(request_id)).id


def test_queues_are_independent(web, two_queues):
    generations = {queue: [submit_to(web, queue) for _ in range(3)] for queue in ("", "one", "two")}
    with pytest.raises(QueueFull):
        submit_to(web, "one")
    for queue, queued in generations.items():
        assert web.positions(queue) == {generation: place for place, generation in enumerate(queued, 1)}
        assert {known.queue for known in web.lookup(queued)} == {queue}
    assert web.stop(generations["two"][0]) == "cancelled"
    assert list(web.positions("two")) == generations["two"][1:]
    assert list(web.positions("one")) == generations["one"]

    async def test():
        one = EngineLog(two_queues["one"], "one")
        try:
            claims = await one.claim(3)
            assert [claim.generation for claim in claims] == generations["one"]
            assert (await one.refresh([Held(claim) for claim in claims])).verdicts == ["held"] * 3
            assert web.stop(generations["one"][0]) == "stopping"
            assert (await one.refresh([Held(claims[0])])).verdicts == ["stop"]
            assert await one.append([batch(web, claims[1].generation, 1, [DONE], "done")]) == set()
            await one.fail(claims[2], "code", "message")
            states = [known.state for known in web.lookup(generations["one"])]
            assert states == ["open", "done", "failed"]
            expire_leases_of(web, "one", claims[0])
            other = EngineLog(two_queues["two"], "two")
            assert await other.take_over(3, LEASE_S) == []
            await other.close()
            heir = EngineLog(two_queues["one"], "heir")
            # It was stopped, so it ends when it is taken over.
            assert await heir.take_over(3, LEASE_S) == []
            await heir.close()
            assert web.lookup(generations["one"][:1])[0].state == "cancelled"
        finally:
            await one.close()

    asyncio.run(test())
    jobs = {queue: web._client.xlen(web._keys_of(queue).jobs) for queue in ("", "one", "two")}
    assert jobs == {"": 3, "one": 0, "two": 2}


def expire_leases_of(web, queue, claim):
    jobs = web._keys_of(queue).jobs
    (pending,) = web._client.xpending_range(jobs, GROUP, claim.job_id, claim.job_id, 1)
    web._client.xclaim(jobs, GROUP, pending["consumer"], 0, [claim.job_id], idle=LEASE_S * 1000, justid=True)


def test_request_id_of_another_model_is_refused(web):
    generation = submit_to(web, "one", "request-id-of-one")
    assert submit_to(web, "one", "request-id-of-one") == generation
    for queue in ("two", ""):
        with pytest.raises(RequestConflict):
            submit_to(web, queue, "request-id-of-one")


def test_generation_without_a_queue_is_in_the_only_one(web, run):
    """As an earlier version made it."""

    async def test(engine):
        generation, one = submit(web), engine("one")
        web._client.hdel(web._keys.generation(generation), "queue")
        assert web.lookup([generation])[0].queue == ""
        stopped = submit(web)
        web._client.hdel(web._keys.generation(stopped), "queue")
        assert web.stop(stopped) == "cancelled"
        claim = await claim_one(one)
        assert claim.generation == generation
        assert await one.append([batch(web, generation, 1, [DONE], "done")]) == set()
        assert web._client.xlen(web._keys.jobs) == 0

    run(test)


def test_engines_and_their_descriptions_belong_to_a_queue(web, two_queues):
    async def test():
        logs = {name: EngineLog(two_queues[name], name) for name in ("one", "two")}
        for name, log in logs.items():
            await log.describe(ModelDescription(name, name, {f"of_{name}": Field("STRING")}))
            await log.report(EngineStatus(name, "ready", name))
        assert [engine.queue for engine in web.engines(["one", "two"])] == ["one", "two"]
        assert [engine.name for engine in web.engines(["two"])] == ["two"]
        assert web.engines([""]) == []
        assert list(web.description("two").inputs) == ["of_two"]
        assert web.description("") is None
        # A description that the log has lost comes back with the next report; a newer one is kept.
        web._client.delete(web._keys_of("one").model)
        newer = ModelDescription("two", "two", {})
        web._client.set(web._keys_of("two").model, newer.encoded())
        for name, log in logs.items():
            await log.report(EngineStatus(name, "ready", name))
            await log.close()
        assert list(web.description("one").inputs) == ["of_one"]
        assert web.description("two") == newer

    asyncio.run(test())


def test_description_that_is_no_json_is_a_load_error():
    with pytest.raises(ModelLoadError, match="one: INPUT_SCHEMA can't be written as JSON"):
        ModelDescription("one", "", {"name": Field("STRING", example=object())}).encoded()


def test_description_of_another_version_is_ignored(web):
    web._client.set(web._keys.model, b'{"name": 7}')
    assert web.description("") is None


def test_validations_belong_to_a_queue(web, two_queues):
    web._request_validation({}, "one", "check", is_long=False)

    async def test():
        two, one = EngineLog(two_queues["two"], "two"), EngineLog(two_queues["one"], "one")
        assert await two._client.zcard(two._keys.validations(long=False)) == 0
        assert (await one.next_validation(is_long=False)).inputs == {}
        for each in (one, two):
            await each.close()

    asyncio.run(test())


def test_status_of_an_earlier_version_has_no_queue(web):
    web._client.zadd(web._keys.ns + "engine_names", {"old": 1e15})
    web._client.set(web._keys.engine("old"), b'{"name":"old","state":"ready","model":"model"}')
    assert [engine.queue for engine in web.engines([""])] == [""]


def submit_for(web, client, **limits):
    submission = Submission(client=client, limits=KeyLimits(**limits))
    return web.submit(uuid.uuid4().hex, Job({"prompt": "a"}), "model", "", submission).id


async def claim_all(engine, count=100):
    return [claim.generation for claim in await engine.claim(count)]


def test_clients_take_turns(web, run, monkeypatch):
    monkeypatch.setattr(web, "_settings", structs.replace(web._settings, max_queued=100))
    flood = [submit_for(web, "flood") for _ in range(5)]
    few = [submit_for(web, "few") for _ in range(2)]
    one = submit_for(web, "one")
    assert list(web.positions("")) == [flood[0], few[0], one, flood[1], few[1], *flood[2:]]

    async def test(engine):
        first = engine("first")
        assert await claim_all(first, 2) == [flood[0], few[0]]
        # One that stops waiting leaves its place to the next of the same client.
        web.stop(flood[1])
        assert list(web.positions("")) == [one, flood[2], few[1], *flood[3:]]
        assert await claim_all(first, 2) == [one, flood[2]]
        late = submit_for(web, "late")
        assert await claim_all(first) == [few[1], flood[3], late, flood[4]]

    run(test)
    assert web.positions("") == {}


async def wait_until_blocked(web, waiting):
    """Wait until an engine's claim waits in Valkey."""
    for _ in tries(10, "a blocked engine"):
        assert not waiting.done()
        if web._client.info("clients")["blocked_clients"]:
            return
        await asyncio.sleep(0.01)


def test_idle_engine_learns_of_a_new_job_at_once(web, run, monkeypatch):
    monkeypatch.setattr(engine_log, "BLOCK_S", 4)

    async def test(engine):
        one = engine("one")
        for _ in range(3):
            waiting = asyncio.create_task(one.claim(5))
            await wait_until_blocked(web, waiting)
            generation = submit_for(web, "a")
            (claim,) = await waiting
            assert claim.generation == generation
            # Not because the wait was over.
            assert one._seen[one._keys.jobs] == claim.job_id.encode()

    run(test)


def test_clients_own_limit_of_running_generations(web, run, monkeypatch):
    monkeypatch.setattr(web, "_settings", structs.replace(web._settings, max_queued=100))
    monkeypatch.setattr(engine_log, "BLOCK_S", 4)
    limited = [submit_for(web, "limited", running=2) for _ in range(4)]
    free = submit_for(web, "free")

    async def test(engine):
        one, other = engine("one"), engine("other")
        assert await claim_all(one) == [limited[0], free, limited[1]]
        assert await other.claim(5) == []
        # An idle engine wakes when one of them ends, wherever it ran.
        waiting = asyncio.create_task(other.claim(5))
        await wait_until_blocked(web, waiting)
        await one.append([batch(web, limited[0], 1, [DONE], "done")])
        assert [claim.generation for claim in await waiting] == [limited[2]]
        assert other._seen[other._keys.wake] != "0-0"
        # Running ones whose keys were lost don't count for ever.
        web._client.unlink(web._keys.generation(limited[1]), web._keys.generation(limited[2]))
        web._client.unlink(f"{web._keys.ns}checked/limited")
        assert await claim_all(other) == [limited[3]]

    run(test)


def test_clients_own_limit_of_waiting_generations(web):
    for _ in range(2):
        submit_for(web, "limited", queued=2)
    with pytest.raises(RateLimited, match="2 of your requests"):
        submit_for(web, "limited", queued=2)


def test_full_queue_takes_the_share_of_a_client_that_waits_with_less(web):
    """The queue holds 3, and twice as many at most."""
    for _ in range(3):
        submit_for(web, "flood")
    with pytest.raises(QueueFull):
        submit_for(web, "flood")
    victim = submit_for(web, "victim")
    assert web.positions("")[victim] == 2
    with pytest.raises(QueueFull):
        submit_for(web, "victim")
    submit_for(web, "a")
    with pytest.raises(QueueFull):
        submit_for(web, "one too many")


def test_client_that_holds_most_is_evicted_first(web, run, monkeypatch):
    async def test(engine):
        one = engine("one")
        victim = submit_for(web, "victim")
        await claim_all(one)
        await one.append([batch(web, victim, 1, [token("x" * 1000), DONE], "done", 2000)])
        flood = []
        for _ in range(3):
            flood.append(submit_for(web, "flood"))
            await claim_all(one)
            await one.append([batch(web, flood[-1], 1, [token("x" * 1000), DONE], "done", 2000)])
        bound = int(web._client.get(web._keys.bytes)) - 100
        monkeypatch.setattr(web, "_settings", structs.replace(web._settings, max_log_bytes=bound))
        last = submit_for(web, "flood")
        # The victim's is the oldest of all.
        known = web.lookup([victim, *flood, last])
        assert [found is not None for found in known] == [True, False, True, True, True]

    run(test)


def test_clients_own_limit_of_bytes(web, run, monkeypatch):
    monkeypatch.setattr(web, "_settings", structs.replace(web._settings, max_queued=100))

    async def test(engine):
        one = engine("one")
        first = submit_for(web, "a", log_bytes=4000)
        await claim_all(one)
        await one.append([batch(web, first, 1, [token("x" * 1500), DONE], "done", 2000)])
        # Its own oldest one makes room; nothing of others does.
        other = submit_for(web, "b")
        second = submit_for(web, "a", log_bytes=4000)
        third = submit_for(web, "a", log_bytes=4000)
        assert [found is not None for found in web.lookup([first, other, second, third])] == [False, True, True, True]
        with pytest.raises(RateLimited, match="4000 bytes"):
            for _ in range(3):
                submit_for(web, "a", log_bytes=4000)

    run(test)


def test_tokens_are_counted_once_per_client(web, run):
    async def test(engine):
        one = engine("one")
        generation = submit_for(web, "a")
        (claim,) = await one.claim(1)
        await one.refresh([Held(claim, 0, 10)])
        await one.refresh([Held(claim, 0, 25)])
        await one.refresh([Held(claim, 0, 25)])
        end = batch(web, generation, 1, [DONE], "done", 100, 30)
        await one.append([end])
        await one.append([end])

    run(test)
    assert sum(web.tokens_used("a")[:2]) == 30
    assert sum(web.tokens_used("b")[:2]) == 0


@pytest.mark.parametrize("lost", [["*waiting*", "*turns"], ["*turns"], ["*waiting*"]])
def test_lost_lists_of_waiting_jobs_are_rebuilt(web, run, lost):
    generations = [submit_for(web, "a"), submit_for(web, "b"), submit_for(web, "a")]
    for pattern in lost:
        for key in web._client.scan_iter(pattern):
            web._client.unlink(key)

    async def test(engine):
        one = engine("one")
        found = await claim_all(one) or await claim_all(one)
        assert sorted(found) == sorted(generations)

    run(test)


def test_nothing_is_left_of_generations_that_have_expired(web, settings, run, monkeypatch):
    async def test(engine):
        one = engine("one")
        generation = submit_for(web, "a", running=1)
        await claim_all(one)
        await one.append([batch(web, generation, 1, [DONE], "done", 100, 5)])
        monkeypatch.setattr(one, "_settings", structs.replace(settings, retention_s=0))
        await one.refresh([])

    run(test)
    known = {key.decode().removeprefix(web._keys.ns) for key in web._client.scan_iter("*")}
    left = {key for key in known if not key.startswith(("gen:", "log:", "tokens/"))}
    assert left <= {"jobs", "bytes", "counters"}


def in_thread(web, thread, owner=""):
    submission = Submission(thread=thread, owner=owner)
    return web.submit(uuid.uuid4().hex, Job({"prompt": "a"}), "model", "", submission).id


def test_threads_know_their_newest_generation(web, settings):
    assert web.newest("one", "") == ""
    first, other, owned = in_thread(web, "one"), in_thread(web, "two"), in_thread(web, "one", "owner")
    assert (web.newest("one", ""), web.newest("two", ""), web.newest("one", "owner")) == (first, other, owned)
    web.stop(first)
    assert 0 < web._client.ttl(web._keys.thread("one", "")) <= settings.retention_s
    second = in_thread(web, "one")
    assert (web.newest("one", ""), web._client.ttl(web._keys.thread("one", ""))) == (second, -1)
    assert web.newest("one", "owner") == owned


def test_end_of_an_older_generation_leaves_its_thread_alone(web):
    first, second = in_thread(web, "one"), in_thread(web, "one")
    web.stop(first)
    assert (web.newest("one", ""), web._client.ttl(web._keys.thread("one", ""))) == (second, -1)
    web.delete(first)
    assert web.newest("one", "") == second
    web.stop(second)
    web.delete(second)
    assert web.newest("one", "") == "" and not web._client.exists(web._keys.thread("one", ""))


def test_submission_that_fails_leaves_no_thread(web):
    web._client.set(web._keys.counters, "not a hash")
    with pytest.raises(valkey.exceptions.ResponseError):
        in_thread(web, "one")
    assert not web._client.exists(web._keys.thread("one", ""))
