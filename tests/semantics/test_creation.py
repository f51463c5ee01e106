"""Creation and reuse of ids: nothing of an old execution is left, and nobody waits for what is gone (section 2)."""

from __future__ import annotations

import asyncio

import pytest

from dispatch.bench import SECONDS, Worker, on_bench, only, schedule
from durabletask_sql.errors import AlreadyExistsError
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.queries import InstanceQuery
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from semantics.acts import FAILED, again, child, end, kinds, names, new, soon, timer

ANY = CreationPolicy(frozenset())
DETAILS = pb.TaskFailureDetails(errorType="E", errorMessage="m")


def test_a_creation_carries_its_event_behind_its_start(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", event=("go", "data"))
        await bench.service.raise_event("one", "later", None)
        item = await worker.turn()
        assert kinds(new(item))[:3] == ["orchestratorStarted", "executionStarted", "eventRaised"]
        assert (new(item)[2].eventRaised.name, new(item)[2].eventRaised.input.value) == ("go", "data")

    on_bench(database_url, test)


@pytest.mark.parametrize("policy", [CreationPolicy(), CreationPolicy(frozenset(), ignore=frozenset(LIVE)),
                                    CreationPolicy(LIVE | TERMINAL)], ids=["default", "ignore", "everything"])
def test_a_creation_that_does_nothing_raises_no_event(database_url, policy):
    async def test(bench):
        await bench.start("flow", "one")
        if policy.ignore:
            await bench.start("flow", "one", policy=policy, event=("go", None))
        else:
            with pytest.raises(AlreadyExistsError):
                await bench.start("flow", "one", policy=policy, event=("go", None))
        item = await bench.connect(Worker()).turn()
        assert names(new(item)) == []

    on_bench(database_url, test)


def test_the_event_of_a_scheduled_creation_waits_with_it(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        at = soon(0.3).ToMicroseconds()
        await bench.start("flow", "one", start_at=at, event=("go", None))
        item = await worker.turn()
        assert names(new(item)) == ["go"]
        assert new(item)[0].timestamp.ToMicroseconds() > at

    on_bench(database_url, test)


def test_a_re_created_instance_shows_nothing_of_the_one_before(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        for ending, policy in ((end(FAILED, failure=DETAILS), CreationPolicy()), (end(result="out"), ANY)):
            await bench.start("flow", "one", input="first", tags={"a": "b"}, version="1", policy=policy)
            item = await worker.turn()
            await bench.board.complete_turn(pb.OrchestratorResponse(
                instanceId="one", completionToken=item.token, actions=[ending], customStatus={"value": "status"}))
            assert (await bench.service.get("one", payloads=True)).row.custom_status == "status"
        await bench.start("other", "one")
        state = await bench.service.get("one", payloads=True)
        row = state.row
        assert (row.name, row.status, row.generation) == ("other", Status.PENDING, 2)
        assert (state.input, state.output, row.custom_status, row.failure, row.completed_at) == (None,) * 5
        assert (dict(row.tags), row.version) == ({}, None)

    on_bench(database_url, test)


def test_a_re_creation_over_a_live_instance_starts_from_nothing(database_url):
    """With an activity out, a timer armed, an event queued, a turn out and a child running: none of it reaches the new one."""
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        first = await worker.turn()
        # The old timer and the new one are due when the clock passes both, the old one first, and not before.
        await bench.answer(first, *schedule("act"), timer(1, soon(30)), child("below", number=2))
        activity, below = await worker.activity(), await worker.turn()
        assert below.key.instance_id == "below"
        await bench.service.raise_event("one", "old", None)
        out = await worker.turn()
        assert names(new(out)) == ["old"]
        await bench.service.raise_event("one", "older", None)
        await bench.start("flow", "one", policy=ANY)
        fresh = await worker.turn()
        assert fresh.execution_id != first.execution_id
        assert kinds(new(fresh)) == ["orchestratorStarted", "executionStarted"]
        await bench.answer(out, end(result="stale"))
        await bench.result(activity, "stale")
        await bench.answer(below, end(result="stale"))
        assert await bench.status("below") == "COMPLETED"
        await bench.answer(fresh, timer(7, soon(31)))
        bench.ahead(60)
        item = await worker.turn()
        assert [event.timerFired.timerId for event in new(item) if event.HasField("timerFired")] == [7]
        assert kinds(new(item)) == ["orchestratorStarted", "timerFired"]

    on_bench(database_url, test)


def test_what_was_read_of_an_instance_just_before_it_was_replaced_does_not_reach_the_new_one(database_url, monkeypatch):
    """Not even a turn whose commit would be lost: who replaced it has the answer, and may tell of it."""
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        await worker.turn()
        committer = bench.runtime.dispatcher._committer
        load, read, replaced = committer.load, asyncio.Event(), asyncio.Event()

        async def slow(what):
            found = await load(what)
            if any(row.key.instance_id == "one" for row in found.claimed):
                read.set()
                await replaced.wait()
            return found

        monkeypatch.setattr(committer, "load", slow)
        await bench.service.raise_event("one", "old", None)
        await asyncio.wait_for(read.wait(), SECONDS)
        await bench.start("flow", "one", policy=ANY)
        replaced.set()
        fresh = await worker.turn()
        assert kinds(new(fresh)) == ["orchestratorStarted", "executionStarted"]
        await bench.answer(fresh)
        await bench.service.raise_event("one", "young", None)
        assert names(new(await worker.turn())) == ["young"]

    on_bench(database_url, test)


def test_a_turn_that_is_out_of_a_replaced_instance_is_stale_at_once(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        out = await worker.turn()
        await bench.start("flow", "one", policy=ANY)
        fresh = await worker.turn()
        await bench.answer(out, end(result="stale"))
        assert await bench.status("one") == "PENDING"
        await bench.answer(fresh, end(result="fresh"))
        assert (await bench.service.get("one", payloads=True)).output == "fresh"

    on_bench(database_url, test)


@pytest.mark.parametrize("dedupe", [frozenset(), LIVE, LIVE | TERMINAL], ids=["none", "live", "all"])
def test_of_racing_creators_one_execution_remains_and_runs_once(database_url, dedupe):
    async def test(bench):
        outcomes = await asyncio.gather(
            *(bench.start("flow", "one", input=str(number), policy=CreationPolicy(dedupe)) for number in range(20)),
            return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, AlreadyExistsError)]
        assert len(refused) == (19 if dedupe else 0)
        state = await bench.service.get("one", payloads=True)
        assert state.row.generation == (0 if dedupe else 19)
        worker = bench.connect(Worker())
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "executionStarted"]
        assert new(item)[1].executionStarted.input.value == state.input
        assert item.execution_id == state.row.execution_id
        await bench.answer(item, end())
        assert await bench.status("one") == "COMPLETED"
        assert worker.turns.empty()

    on_bench(database_url, test)


# Sub-orchestrations whose id is taken (S-102)


def test_a_child_whose_id_a_live_instance_has_fails_for_its_parent_and_leaves_that_one(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "taken")
        live = await worker.turn()
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("taken", number=3))
        told = new(await worker.turn())
        assert kinds(told) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]
        failure = told[1].subOrchestrationInstanceFailed
        assert failure.taskScheduledId == 3
        assert "already exists" in failure.failureDetails.errorMessage
        await bench.answer(live, end(result="untouched"))
        state = await bench.service.get("taken", payloads=True)
        assert (state.output, state.row.parent) == ("untouched", None)

    on_bench(database_url, test)


def test_a_child_whose_id_an_ended_instance_has_replaces_it(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "ended", input="old")
        await bench.answer(await worker.turn(), end(result="old"))
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("ended", number=3, input={"value": "new"}))
        item = await worker.turn()
        state = await bench.service.get("ended", payloads=True)
        assert (state.input, state.output, state.row.status) == ("new", None, Status.PENDING)
        assert item.execution_id == state.row.execution_id
        assert item.past == ()
        await bench.answer(item, end(result="done"))
        told = new(await worker.turn())
        assert told[1].subOrchestrationInstanceCompleted.result.value == "done"

    on_bench(database_url, test)


def test_a_parent_hears_once_of_a_live_child_that_a_client_replaces(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("below", number=3))
        old = await worker.turn()
        await bench.start("flow", "below", policy=ANY)
        found = [await worker.turn(), await worker.turn()]
        told, fresh = sorted(found, key=lambda item: item.key.instance_id != "parent")
        assert told.key.instance_id == "parent"
        assert "replaced" in new(told)[1].subOrchestrationInstanceFailed.failureDetails.errorMessage
        await bench.answer(told)
        await bench.answer(old, end())
        await bench.answer(fresh, end())
        await bench.service.raise_event("parent", "last", None)
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]

    on_bench(database_url, test)


@pytest.mark.parametrize("live", ["pending", "scheduled", "suspended"])
def test_an_instance_lives_until_it_has_ended_whatever_it_waits_for(database_url, live):
    async def test(bench):
        if live == "suspended":
            early = bench.connect(Worker())
            await bench.start("flow", "taken")
            await bench.answer(await early.turn())
            await bench.service.suspend("taken", None)
            await bench.answer(await early.turn())
            bench.board.disconnect(early)
        else:
            await bench.start("other", "taken", start_at=soon(60).ToMicroseconds() if live == "scheduled" else None)
        worker = bench.connect(Worker(only(["flow"])))
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("taken", number=3))
        told = new(await worker.turn())
        assert kinds(told) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]
        assert await bench.status("taken") == ("SUSPENDED" if live == "suspended" else "PENDING")

    on_bench(database_url, test)


def test_of_two_children_with_one_id_in_one_turn_the_first_runs_and_the_other_fails(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("twin", "first", number=3), child("twin", "second", number=4))
        found = {item.key.instance_id: item for item in (await worker.turn(), await worker.turn())}
        assert found["twin"].name == "first"
        [failed] = new(found["parent"])[1:]
        assert failed.subOrchestrationInstanceFailed.taskScheduledId == 4
        await bench.answer(found["parent"])
        await bench.answer(found["twin"], end(result="done"))
        [completed] = new(await worker.turn())[1:]
        assert completed.subOrchestrationInstanceCompleted.taskScheduledId == 3

    on_bench(database_url, test)


@pytest.mark.parametrize("ends", [False, True])
def test_no_instance_is_its_own_child(database_url, ends):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", input="mine")
        await bench.answer(await worker.turn(), child("one", number=3), *([end(result="done")] if ends else []))
        if not ends:
            told = await worker.turn()
            assert kinds(new(told)) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]
            await bench.answer(told, end(result="done"))
        state = await bench.service.get("one", payloads=True)
        assert (state.row.status, state.input, state.output, state.row.parent) == (Status.COMPLETED, "mine", "done", None)
        await bench.start("flow", "next")
        assert (await worker.turn()).key.instance_id == "next"

    on_bench(database_url, test)


@pytest.mark.parametrize("ended", [True, False])
def test_a_child_whose_default_id_comes_again_replaces_its_ended_predecessor_alone(database_url, ended):
    """A parent that continues as new asks for the same ids again."""
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("", number=1))
        old = await worker.turn()
        if ended:
            await bench.answer(old, end(result="old"))
        else:
            await bench.service.raise_event("parent", "go", None)
        await bench.answer(await worker.turn(), again("next"))
        await bench.answer(await worker.turn(), child("", number=1))
        item = await worker.turn()
        if ended:
            assert (item.key, item.execution_id != old.execution_id) == (old.key, True)
            await bench.answer(item, end(result="fresh"))
            assert new(await worker.turn())[1].subOrchestrationInstanceCompleted.result.value == "fresh"
        else:
            assert "already exists" in new(item)[1].subOrchestrationInstanceFailed.failureDetails.errorMessage
            await bench.answer(item)
            await bench.answer(old, end(result="old"))
            assert await bench.status(old.key.instance_id) == "COMPLETED"
            await bench.service.raise_event("parent", "last", None)
            assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]

    on_bench(database_url, test)


def test_a_child_counts_no_generations(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "below")
        await bench.answer(await worker.turn(), end())
        await bench.start("flow", "parent")
        for number in range(2):
            await bench.answer(await worker.turn(), child("below", number=number))
            assert (await bench.service.get("below", payloads=False)).row.generation == 0
            await bench.answer(await worker.turn(), end())

    on_bench(database_url, test)


def test_ids_that_differ_by_case_alone_are_two_instances(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        for instance_id in ("case", "CASE"):
            await bench.start("flow", instance_id, input=instance_id)
        items = {item.key.instance_id: item for item in (await worker.turn(), await worker.turn())}
        await bench.service.raise_event("case", "lower", None)
        await bench.answer(items["CASE"], end(result="upper"))
        await bench.answer(items["case"])
        assert names(new(await worker.turn())) == ["lower"]
        for prefix in ("ca", "CA"):
            page = await bench.service.query(InstanceQuery(prefix=prefix, payloads=True))
            assert [state.input for state in page.states] == [prefix + ("se" if prefix == "ca" else "SE")]
        assert (await bench.service.purge(["CASE"], recursive=False)).count == 1
        assert await bench.status("case") == "RUNNING"
        assert await bench.service.get("CASE", payloads=False) is None

    on_bench(database_url, test)
