"""The log's protocol against a real Valkey: one writer, one end, safe repeats."""

import asyncio
import uuid

import pytest
import valkey
from msgspec import structs

from everstream import engine_log, log
from everstream.engine_log import Batch, EngineLog
from everstream.errors import ChecksBusy, EverstreamError, LogFull, QueueFull, RequestConflict
from everstream.web_log import MAX_WAITING_ASKS, MAX_WAITING_LONG_ASKS, READ_BYTES, WebLog
from tests.stack import Stack, tries, wait_for

LEASE_S = 100
"""No test waits for it: `let_pass` has it pass."""


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
    """Run a coroutine function that is given a maker of engine logs, by consumer."""

    def run(test):
        async def main():
            made = []

            def engine(consumer):
                made.append(EngineLog(settings, consumer))
                return made[-1]

            try:
                await test(engine)
            finally:
                for one in made:
                    await one.close()

        asyncio.run(main())

    return run


def submit(web, generation=None, request_id="", prompt="a"):
    return web.submit(generation or uuid.uuid4().hex, log.Job({"prompt": prompt}), "model", request_id).id


def token(text):
    return log.encode_entry("", {"text": text}), b'["state"]'


def entries_of(web, generation):
    page = web.read([(generation, 0)], READ_BYTES)[0]
    return page.entries if page else []


DONE = (log.encode_entry("done", {"finish_reason": "stop"}), b"")


async def claim_one(engine):
    (claim,) = await engine.claim(1)
    return claim


def let_pass(web, *claims, lease_s=LEASE_S):
    """As if these had not been refreshed for the time of a lease."""
    for claim in claims:
        (pending,) = web._client.xpending_range(web._keys.jobs, log.GROUP, claim.job_id, claim.job_id, 1)
        idle_ms = int(lease_s * 1000)
        web._client.xclaim(web._keys.jobs, log.GROUP, pending["consumer"], 0, [claim.job_id], idle=idle_ms, justid=True)


def test_entries_are_read_as_they_were_appended(web, run):
    async def test(engine):
        one = engine("one")
        await one.claim(1)
        generation = submit(web)
        claim = await claim_one(one)
        assert (claim.generation, claim.job.inputs, claim.taken_over) == (generation, {"prompt": "a"}, False)
        assert await one.append([Batch(generation, 1, [token("x"), token("y"), DONE], "done")]) == set()
        entries = [
            (1, "", b'{"text":"x"}'),
            (2, "", b'{"text":"y"}'),
            (3, "done", b'{"finish_reason":"stop"}'),
        ]
        assert [(entry.n, entry.event, entry.data) for entry in entries_of(web, generation)] == entries
        history = await one.history(generation)
        assert [(entry.n, entry.event, entry.data) for entry in history] == entries
        assert [entry.resume for entry in history] == [b'["state"]', b'["state"]', b""]
        known = web.lookup([generation])[0]
        assert (known.state, known.top, known.model) == ("done", 3, "model")
        assert web._client.xlen(web._keys.jobs) == 0
        assert 0 < web._client.ttl(web._keys.log(generation)) <= 600
        assert 0 < web._client.ttl(web._keys.generation(generation)) <= 600

    run(test)


def test_a_repeated_append_is_taken_once(web, run):
    """As after an answer that was lost."""

    async def test(engine):
        generation, one = submit(web), engine("one")
        await claim_one(one)
        batch = Batch(generation, 1, [token("x"), token("y")])
        assert await one.append([batch]) == set()
        assert await one.append([batch]) == set()
        end = Batch(generation, 3, [DONE], "done")
        assert await one.append([end]) == set()
        assert await one.append([end]) == set()
        assert [entry.n for entry in entries_of(web, generation)] == [1, 2, 3]

    run(test)


def test_of_two_writers_one_is_refused(web, run):
    async def test(engine):
        generation, zombie, heir = submit(web), engine("zombie"), engine("heir")
        await claim_one(zombie)
        assert await zombie.append([Batch(generation, 1, [token("x")])]) == set()
        fence = log.encode_entry("resumed", {"attempt": 2})
        assert await heir.append([Batch(generation, 2, [(fence, b'"heir"')])]) == set()
        assert await zombie.append([Batch(generation, 2, [token("y")])]) == {generation}
        assert await zombie.append([Batch(generation, 2, [(fence, b'"zombie"')])]) == {generation}
        assert await heir.append([Batch(generation, 3, [token("y"), DONE], "done")]) == set()
        assert [entry.event for entry in entries_of(web, generation)] == ["", "resumed", "", "done"]

    run(test)


def test_a_refused_generation_does_not_hold_up_the_others(web, run):
    async def test(engine):
        refused, taken, one = submit(web), submit(web), engine("one")
        await one.append([Batch(refused, 1, [token("x")])])
        answer = await one.append([Batch(refused, 1, [token("other")]), Batch(taken, 1, [token("y")])])
        assert answer == {refused}
        assert web.lookup([taken])[0].top == 1

    run(test)


def test_nothing_follows_a_terminal_entry(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        await one.append([Batch(generation, 1, [DONE], "done")])
        assert await one.append([Batch(generation, 2, [token("x")])]) == {generation}
        assert await one.append([Batch("0" * 32, 1, [token("x")])]) == {"0" * 32}
        assert web.lookup(["0" * 32]) == [None]

    run(test)


def test_refused_entries_are_not_published(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        await one.append([Batch(generation, 1, [token("x")])])
        heard = web.subscribe()
        assert next(heard) == []
        await one.append([Batch(generation, 1, [token("zombie")])])
        await one.append([Batch(generation, 2, [token("y")])])
        ((of, first, entries),) = next(heard)
        assert (of, first, log.split_entries(entries)) == (generation, 2, [token("y")[0]])

    run(test)


def test_a_lease_that_is_refreshed_is_not_taken_over(web, run):
    async def test(engine):
        submit(web)
        holder, other = engine("holder"), engine("other")
        claim = await claim_one(holder)
        for _ in range(3):
            let_pass(web, claim)
            assert (await holder.refresh([(claim, 0)])).verdicts == ["held"]
            assert await other.take_over(1, LEASE_S) == []

    run(test)


def test_a_lease_that_is_not_refreshed_is_taken_over_and_stays_so(web, run):
    async def test(engine):
        generation, zombie, heir = submit(web), engine("zombie"), engine("heir")
        claim = await claim_one(zombie)
        let_pass(web, claim)
        taken = await heir.take_over(1, LEASE_S)
        assert (taken[0].generation, taken[0].taken_over) == (generation, True)
        assert (await zombie.refresh([(claim, 0)])).verdicts == ["lost"]
        assert (await heir.refresh([(each, 0) for each in taken])).verdicts == ["held"]

    run(test)


def test_an_entry_that_would_leave_a_gap_is_refused(web, run):
    """As after a Valkey that lost what it had acknowledged: the log has no holes."""

    async def test(engine):
        generation, one = submit(web), engine("one")
        await one.append([Batch(generation, 1, [token("x")])])
        assert await one.append([Batch(generation, 3, [token("z"), DONE], "done")]) == {generation}
        assert web.lookup([generation])[0].state == "open"
        assert [entry.n for entry in entries_of(web, generation)] == [1]

    run(test)


def test_a_lost_lease_is_found_behind_any_number_of_kept_ones(web, run):
    async def test(engine):
        holder, dead, heir = engine("holder"), engine("dead"), engine("heir")
        await holder.claim(1)
        kept = []
        for _ in range(40):
            submit(web)
            kept.append(await claim_one(holder))
        submit(web)
        lost = await claim_one(dead)
        let_pass(web, *kept, lost)
        await holder.refresh([(each, 0) for each in kept])
        taken = await heir.take_over(1, LEASE_S)
        assert [claim.generation for claim in taken] == [lost.generation]

    run(test)


def test_what_ended_meanwhile_is_not_begun(web, run):
    async def test(engine):
        one, heir = engine("one"), engine("heir")
        stopped, ended, going_on = submit(web), submit(web), submit(web)
        claimed = await one.claim(3)
        web.stop(stopped)
        await one.append([Batch(ended, 1, [DONE], "done")])
        let_pass(web, *(claim for claim in claimed if claim.generation != ended))
        taken = await heir.take_over(3, LEASE_S)
        assert [claim.generation for claim in taken] == [going_on]
        assert [entry.event for entry in entries_of(web, stopped)] == ["cancelled"]
        assert web._client.xlen(web._keys.jobs) == 1

    run(test)


def test_as_many_are_taken_over_as_are_wanted(web, run):
    async def test(engine):
        for _ in range(3):
            submit(web)
        claimed = await engine("dead").claim(3)
        let_pass(web, *claimed)
        heir, taken = engine("heir"), []
        for count in (1, 2, 0):
            found = await heir.take_over(count or 1, LEASE_S)
            assert len(found) == count
            taken += [claim.generation for claim in found]
        assert sorted(taken) == sorted(claim.generation for claim in claimed)

    run(test)


def test_a_job_whose_generation_is_gone_is_dropped(web, run):
    async def test(engine):
        one = engine("one")
        web._client.delete(web._keys.generation(submit(web)))
        assert await one.claim(1) == []
        # The first one makes the consumer group.
        assert await one.claim(1) == []
        assert web._client.xlen(web._keys.jobs) == 0

    run(test)


def test_the_lease_of_what_has_ended_is_lost(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        claim = await claim_one(one)
        await one.append([Batch(generation, 1, [DONE], "done")])
        assert (await one.refresh([(claim, 0)])).verdicts == ["lost"]

    run(test)


def test_engines_that_come_first_at_once_make_one_group(web, run):
    async def test(engine):
        submit(web)
        web._client.xgroup_destroy(web._keys.jobs, log.GROUP)
        one, two = engine("one"), engine("two")
        claims = [claim for found in await asyncio.gather(one.claim(1), two.claim(1)) for claim in found]
        # Whoever came second may have found the group that the first made, and the job with it.
        claims += [] if claims else await one.claim(1)
        assert len(claims) == 1

    run(test)


def test_an_engine_hears_of_each_stop(web, run):
    async def test(engine):
        generation, one = submit(web), engine("one")
        await claim_one(one)
        heard = asyncio.create_task(anext(one.stops()))
        await asyncio.to_thread(wait_for, lambda: dict(web._client.pubsub_numsub(web._keys.control)).popitem()[1])
        web.stop(generation)
        assert await heard == generation

    run(test)


def test_an_answer_that_comes_too_late_is_not_the_next_ones(web, run):
    async def test(engine):
        taken, refused, one = submit(web), submit(web), engine("one")
        await one.append([Batch(refused, 1, [token("x")])])
        web._client.client_pause(60_000, all=False)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.append([Batch(taken, 1, [token("x")])]), 0.2)
        web._client.client_unpause()
        assert await one.append([Batch(refused, 1, [token("other")])]) == {refused}

    run(test)


def test_a_lease_can_be_let_go(web, run):
    async def test(engine):
        submit(web)
        one, other = engine("one"), engine("other")
        claim = await claim_one(one)
        assert await other.take_over(1, 600) == []
        assert (await other.refresh([(claim, 0)], idle_s=600)).verdicts == ["lost"]
        assert await other.take_over(1, 600) == []
        await one.refresh([(claim, 0)], idle_s=600)
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
        assert (await one.refresh([(claim, 0)])).verdicts == ["held"]
        assert web.stop(running) == "stopping"
        assert (await one.refresh([(claim, 0)])).verdicts == ["stop"]

    run(test)


def test_the_queue_is_bounded_and_tells_places(web, run):
    generations = [submit(web) for _ in range(3)]
    assert web.positions() == {generation: place for place, generation in enumerate(generations, 1)}
    with pytest.raises(QueueFull):
        submit(web)

    async def test(engine):
        assert (await claim_one(engine("one"))).generation == generations[0]

    run(test)
    assert web.positions() == {generations[1]: 1, generations[2]: 2}
    assert submit(web) in web.positions()


def test_a_log_that_was_emptied_is_no_fault(web, run):
    async def test(engine):
        submit(web)
        one = engine("one")
        claim = await claim_one(one)
        web._client.flushall()
        assert web.positions() == {}
        assert (await one.refresh([(claim, 0)])).verdicts == ["lost"]
        await one.fail(claim, "code", "message")
        await one.report(log.EngineStatus("one", "ready", "model"))
        assert await one.append([Batch(claim.generation, 1, [token("x")])]) == {claim.generation}
        assert (web.fault, web.lookup([claim.generation])) == ("", [None])

    run(test)


def test_a_key_that_is_none_of_ours_stops_no_other_generation(web, run, settings):
    async def test(engine):
        one, foreign, other = engine("one"), submit(web), submit(web)
        web._client.set(web._keys.generation(foreign), "something else")
        claims = await one.claim(2)
        assert [claim.generation for claim in claims] == [other]
        running = submit(web)
        claims += await one.claim(1)
        web._client.set(web._keys.generation(other), "something else")
        assert (await one.refresh([(claim, 0) for claim in claims])).verdicts == ["foreign", "held"]
        web._client.set(web._keys.log(running), "something else")
        assert web.lookup([other, running]) == [None, None]
        assert web.read([(running, 0)], 1) == [None]
        for claim in claims:
            await one.fail(claim, "code", "message")
        assert web._client.xlen(web._keys.jobs) == 0
        # One that is finished and then made something else is no hindrance when room is made.
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


def test_a_shared_key_that_is_none_of_ours_is_no_generations_fault(web, run):
    async def test(engine):
        one = engine("one")
        submit(web)
        claim = await claim_one(one)
        web._client.set(web._keys.ns + "read", "something else")
        with pytest.raises(valkey.ResponseError, match="WRONGTYPE"):
            await one.refresh([(claim, 0)], abandon=True)

    run(test)


def test_a_generation_is_ended_for_a_broken_log_only_after_its_lease(web, run):
    async def test(engine):
        queued = submit(web)
        claim = await claim_one(engine("one"))
        error = EverstreamError("message")
        assert web.fail(queued, error, only_queued=False) == "open"
        let_pass(web, claim)
        assert web.fail(queued, error, only_queued=True) == "open"
        assert web.fail(queued, error, only_queued=False) == "failed"

    run(test)


def test_only_who_has_a_generation_can_fail_it(web, run):
    async def test(engine):
        generation, zombie, heir = submit(web), engine("zombie"), engine("heir")
        claim = await claim_one(zombie)
        let_pass(web, claim)
        (taken,) = await heir.take_over(1, LEASE_S)
        await zombie.fail(claim, "code", "message")
        assert web.lookup([generation])[0].state == "open"
        await heir.fail(taken, "code", "message")
        assert [entry.data for entry in entries_of(web, generation)] == [b'{"code":"code","message":"message"}']
        await heir.fail(taken, "code", "message")
        assert web.lookup([generation])[0].top == 1

    run(test)


def test_a_request_id_starts_one_generation(web):
    request_id = uuid.uuid4().hex
    first = submit(web, request_id=request_id)
    assert submit(web, request_id=request_id) == first
    assert list(web.positions()) == [first]


def test_a_request_id_whose_generation_is_gone_starts_another(web):
    request_id = uuid.uuid4().hex
    first = submit(web, request_id=request_id)
    web._client.delete(web._keys.generation(first))
    assert submit(web, request_id=request_id) != first


def test_a_request_id_that_comes_again_with_another_request_is_refused(web):
    request_id = uuid.uuid4().hex
    first = submit(web, request_id=request_id, prompt="a")
    with pytest.raises(RequestConflict):
        submit(web, request_id=request_id, prompt="b")
    assert list(web.positions()) == [first]
    ordered, other_way = {"prompt": "a", "seed": 7}, {"seed": 7, "prompt": "a"}
    assert log.digest(ordered) == log.digest(other_way) != log.digest({"prompt": "a", "seed": "7"})


def test_one_that_attaches_is_told_how_far_it_is(web, run):
    async def test(engine):
        request_id = uuid.uuid4().hex
        generation = submit(web, request_id=request_id)

        def attached():
            return web.submit("0" * 32, log.Job({"prompt": "a"}), "model", request_id)

        assert (attached().id, attached().state, attached().top) == (generation, "open", 0)
        await engine("one").append([Batch(generation, 1, [token("x"), DONE], "done")])
        assert attached() == web.lookup([generation])[0]
        assert (attached().state, attached().top) == ("done", 2)

    run(test)


def test_a_request_id_lives_as_long_as_its_generation(web, run, settings):
    async def test(engine):
        request_id = uuid.uuid4().hex
        key = web._keys.request(request_id)
        first = submit(web, request_id=request_id)
        assert web._client.ttl(key) == -1
        await engine("one").append([Batch(first, 1, [DONE], "done")])
        assert 0 < web._client.ttl(key) <= settings.retention_s
        # A log that is full drops both.
        small = WebLog(structs.replace(settings, max_log_bytes=2000))
        submit(small)
        assert web.lookup([first]) == [None]
        assert web._client.exists(key) == 0
        small.close()

    run(test)


def test_a_full_log_takes_no_more(web, settings):
    small = WebLog(structs.replace(settings, max_log_bytes=2000))
    submit(small)
    with pytest.raises(LogFull):
        submit(small)
    small.close()


def test_room_is_made_for_a_large_one_among_many_small(web, settings, run):
    async def test(engine):
        small = WebLog(structs.replace(settings, max_log_bytes=600_000))
        one = engine("one")
        finished = [submit(small) for _ in range(2)]
        # As many as fit, and more: the oldest go.
        while web.lookup(finished[:1]) != [None]:
            await one.append([Batch(generation, 1, [DONE], "done") for generation in finished[-2:]])
            finished += [submit(small) for _ in range(2)]
        for generation in finished[-2:]:
            small.stop(generation)
        assert len(finished) > 400
        large = submit(small, prompt="x" * 500_000)
        assert small.lookup([large])[0].state == "open"
        assert small.gauges()["log_bytes"] <= 600_000
        with pytest.raises(LogFull):
            submit(small, prompt="x" * 500_000)
        small.close()

    run(test)


def test_what_has_expired_makes_room(web, settings, run):
    async def test(engine):
        small = WebLog(structs.replace(settings, max_log_bytes=10_000))
        one = engine("one")
        finished = [submit(small) for _ in range(3)]
        await one.append([Batch(generation, 1, [DONE], "done") for generation in finished])
        for generation in finished:
            web._client.delete(web._keys.generation(generation), web._keys.log(generation))
            web._client.zadd(web._keys.ns + "finished", {generation: 0})
        submit(small, prompt="x" * 8000)
        assert small.counters()["generations_evicted"] == 0
        small.close()

    run(test)


def test_what_has_ended_counts_as_read_no_more(web, run):
    async def test(engine):
        generation, open_ = submit(web), submit(web)
        await engine("one").append([Batch(generation, 1, [DONE], "done")])
        web.touch([generation, open_, "0" * 32], {})
        assert web._client.zrange(web._keys.ns + "read", 0, -1) == [open_.encode()]

    run(test)


def test_what_is_counted(web, run):
    async def test(engine):
        zombie, heir = engine("zombie"), engine("heir")
        generation = submit(web)
        claim = await claim_one(zombie)
        await zombie.append([Batch(generation, 1, [token("x")])])
        let_pass(web, claim)
        await heir.take_over(1, LEASE_S)
        await zombie.append([Batch(generation, 1, [token("y"), token("z")])])
        end = Batch(generation, 2, [DONE], "done")
        for _ in range(2):
            await heir.append([end])
        web.touch([], {"streams": 2})
        counted = {name: value for name, value in web.counters().items() if value}
        ends = {"generations_started": 1, "generations_done": 1}
        assert counted == {"streams": 2, "leases_taken_over": 1, "entries_refused": 2, **ends}

    run(test)


def test_a_read_is_bounded_in_bytes_and_brings_at_least_one_entry(web, run):
    async def test(engine):
        large, small, one = submit(web), submit(web), engine("one")
        size = len(token("x" * 1000)[0])
        await one.append([Batch(large, 1, [token("x" * 1000)] * 5), Batch(small, 1, [token("y")] * 5)])

        def counts(max_bytes, *places):
            return [len(page.entries) for page in web.read(places, max_bytes)]

        assert counts(1, (large, 0)) == [1]
        assert counts(2 * size, (large, 0)) == [2]
        assert counts(100 * size, (large, 0), (small, 2)) == [5, 3]
        # What is left is for those that come later in the list.
        assert counts(2 * size, (large, 0), (small, 0)) == [2, 0]
        assert web.read([("0" * 32, 0)], size) == [None]

    run(test)


def test_an_engine_that_is_no_longer_heard_of_is_forgotten(web, run):
    async def test(engine):
        await engine("one").report(log.EngineStatus("one", "ready", "model"))
        assert [status.state for status in web.engines()] == ["ready"]
        key = web._keys.engine("one")
        assert 0 < web._client.pttl(key) <= 1000 * LEASE_S
        web._client.delete(key)
        await asyncio.to_thread(wait_for, lambda: web.engines() == [])

    run(test)


def idle_ms(web, consumer):
    consumers = web._client.xinfo_consumers(web._keys.jobs, log.GROUP)
    return next(each["idle"] for each in consumers if each["name"] == consumer.encode())


def test_engines_that_are_gone_leave_nothing(web, run, settings, monkeypatch):
    """As many as containers with names of their own may have been, each with a consumer of its own."""
    monkeypatch.setattr(engine_log, "CONSUMER_GONE_S", 0)

    async def test(engine):
        last = EngineLog(structs.replace(settings, lease_s=0.5), "last")
        names = [f"host{n}" for n in range(9000)]
        web._client.zadd(web._keys.ns + "engine_names", dict.fromkeys(names, 1))
        web._client.xgroup_create(web._keys.jobs, log.GROUP, id="0", mkstream=True)
        pipe = web._client.pipeline()
        for name in names:
            pipe.xgroup_createconsumer(web._keys.jobs, log.GROUP, name)
        pipe.execute()
        working = engine("working")
        submit(web)
        await claim_one(working)

        async def report():
            await last.report(log.EngineStatus("last", "ready", "model"))
            return sorted(each["name"] for each in web._client.xinfo_consumers(web._keys.jobs, log.GROUP))

        assert [status.name for status in web.engines()] == []
        await report()
        assert [status.name for status in web.engines()] == ["last"]
        assert web._client.zcard(web._keys.ns + "engine_names") == 1
        # One that has a job is left alone, however long it says nothing: others still have to take the job over.
        for _ in tries(60, "the end of the consumers"):
            if await report() == [b"working"]:
                break
        await asyncio.to_thread(wait_for, lambda: idle_ms(web, "working") > 2000)
        assert await report() == [b"working"]
        await last.close()

    run(test)


def give_up(web):
    """As if the askers of all questions that wait had waited long enough."""
    for is_long in (False, True):
        waiting = web._keys.asks(long=is_long)
        for ask in web._client.zrange(waiting, 0, -1):
            web._client.zadd(waiting, {ask: 1})
            web._client.delete(web._keys.ask(ask.decode()))


@pytest.mark.parametrize(("is_long", "most"), [(False, MAX_WAITING_ASKS), (True, MAX_WAITING_LONG_ASKS)])
def test_no_more_questions_wait_than_can_be_answered(web, is_long, most):
    for _ in range(most):
        web._put_question({}, is_long=is_long)
    with pytest.raises(ChecksBusy, match=f"^{most} prompts wait"):
        web.ask({}, is_long=is_long)
    web._put_question({}, is_long=not is_long)
    # Nobody answered, as after an engine's death: those that gave up are in nobody's way.
    give_up(web)
    for _ in range(most):
        web._put_question({}, is_long=is_long)
    assert web._client.zcard(web._keys.asks(long=is_long)) == most


def test_an_engine_passes_over_questions_whose_askers_have_given_up(web, run):
    async def test(engine):
        replies = [web._put_question({}, is_long=True) for _ in range(2)]
        # In one millisecond either may be the first.
        first, second = (ask.decode() for ask in web._client.zrange(web._keys.asks(long=True), 0, -1))
        assert {web._keys.answer(first), web._keys.answer(second)} == set(replies)
        web._client.delete(web._keys.ask(first))
        one = engine("one")
        asks = [await one.next_ask(is_long=True) for _ in range(2)]
        assert [ask and ask.reply for ask in asks] == [None, web._keys.answer(second)]

    run(test)


def test_what_is_asked_and_answered_leaves_no_key(web, run):
    async def test(engine):
        one = engine("one")
        asking = asyncio.create_task(asyncio.to_thread(web.ask, {"prompt": "a"}, is_long=False))
        async with asyncio.timeout(60):
            while not (ask := await one.next_ask(is_long=False)):
                pass
        await one.answer(ask, log.Answer("too long"))
        assert (await asking).message == "too long"
        assert web._client.keys("*") == []
        # One that nobody takes, and a question that nobody hears: both go by themselves.
        await one.answer(ask, log.Answer())
        web._put_question({}, is_long=True)
        keys = web._client.keys("*")
        assert len(keys) == 3 and all(0 < web._client.pttl(key) <= 4000 for key in keys)

    run(test)
