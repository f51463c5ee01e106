"""Scenarios of the reference's own suites that nothing else here plays: conversations, conditions after an end (section 9)."""

from __future__ import annotations

import pytest

from dispatch.bench import Worker, on_bench, schedule
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.storage import migrations
from durabletask_sql.storage.url import parse_url
from semantics.acts import TERMINATED, again, child, end, kinds, names, new, send, soon, start_of, timer


@pytest.mark.parametrize("tags", [{}, {"FireAndForget": ""}], ids=["awaited", "only fired"])
def test_a_parent_and_its_child_talk_by_events(database_url, tags):
    """The child says when it is ready, hears two things and says goodbye; awaited or not makes no difference to that."""
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("below", number=1, tags=tags))
        below = await worker.turn()
        await bench.answer(below, send(1, start_of(below).parentInstance.orchestrationInstance.instanceId, "ready"))
        ready = await worker.turn()
        assert (ready.key.instance_id, names(new(ready))) == ("parent", ["ready"])
        await bench.answer(ready, send(2, "below", "first", "1"), send(3, "below", "second", "2"))
        heard = await worker.turn()
        assert [(event.eventRaised.name, event.eventRaised.input.value) for event in new(heard)[1:]] == [
            ("first", "1"), ("second", "2")]
        await bench.answer(heard, send(2, "parent", "goodbye"), end(result="said"))
        last = await worker.turn()
        assert names(new(last)) == ["goodbye"]
        assert kinds(new(last))[2:] == ([] if tags else ["subOrchestrationInstanceCompleted"])
        await bench.answer(last, end())
        assert await bench.status("parent") == await bench.status("below") == "COMPLETED"

    on_bench(database_url, test)


def test_a_recursive_termination_leaves_a_child_that_has_ended(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("ended", number=1), child("live", number=2))
        found = {item.key.instance_id: item for item in (await worker.turn(), await worker.turn())}
        await bench.answer(found["live"])
        await bench.answer(found["ended"], end(result="kept"))
        await bench.answer(await worker.turn())
        await bench.service.terminate("parent", "why", recursive=True)
        for instance_id in ("parent", "live"):
            item = await worker.turn()
            assert (item.key.instance_id, kinds(new(item))[1]) == (instance_id, "executionTerminated")
            await bench.answer(item, end(TERMINATED, "why"))
        state = await bench.service.get("ended", payloads=True)
        assert (state.row.status, state.output) == (Status.COMPLETED, "kept")
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_an_instance_that_is_made_anew_again_and_again_gets_the_events_of_its_time(database_url):
    """Each time one event before and one after the creation: none is stuck, none comes to a later one."""
    async def test(bench):
        worker = bench.connect(Worker())
        for number in range(10):
            await bench.service.raise_event("one", f"before {number}", None)
            await bench.start("flow", "one", policy=CreationPolicy(frozenset()))
            await bench.service.raise_event("one", f"after {number}", None)
            raised = []
            while not raised:
                item = await worker.turn()
                before = (await bench.service.get("one", payloads=False)).row
                seen = names(new(item)) if before.execution_id == item.execution_id else []
                await bench.answer(item, *([end(result="done")] if seen and number % 2 else []))
                after = (await bench.service.get("one", payloads=False)).row
                # A turn may see a row that the creation has deleted meanwhile; it is lost then, and runs again.
                raised += seen if after.history_count > before.history_count else []
            assert raised == [f"after {number}"]
        state = await bench.service.wait_for_completion("one", payloads=True)
        assert (state.output, state.row.generation) == ("done", 9)

    on_bench(database_url, test)


@pytest.mark.parametrize("status", ["null", "", " ", "{}", "x" * 100_000], ids=["null", "empty", "space", "json", "large"])
def test_a_custom_status_of_any_text_is_shown_as_it_is(database_url, status):
    """JavaScript's null is a text like others; only the empty text is none."""
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        item = await worker.turn()
        await bench.board.complete_turn(pb.OrchestratorResponse(
            instanceId="one", completionToken=item.token, customStatus={"value": status}))
        assert (await bench.service.get("one", payloads=False)).row.custom_status == (status or None)

    on_bench(database_url, test)


@pytest.mark.parametrize("tags", [{}, {"": ""}, {"ünï %_'\"\\": "a\nb\t🎉", "a": ""}, {f"tag {n}": "x" * 1000 for n in range(100)}],
                         ids=["none", "empty", "odd", "large"])
def test_tags_of_any_kind_are_kept_by_the_instance_its_next_executions_and_its_children(database_url, tags):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", tags=tags)
        await bench.answer(await worker.turn(), again("next"))
        item = await worker.turn()
        assert dict(start_of(item).tags) == tags
        await bench.answer(item, child("below", number=1))
        below = await worker.turn()
        for instance_id, found in (("one", item), ("below", below)):
            assert dict(start_of(found).tags) == tags
            assert dict((await bench.service.get(instance_id, payloads=False)).row.tags) == tags

    on_bench(database_url, test)


@pytest.mark.parametrize("revision", ["0001", "0004", "0008"])
def test_an_instance_in_a_database_of_an_older_schema_goes_on_after_the_upgrade(database_url, revision):
    async def before(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", input="kept")
        await bench.answer(await worker.turn(), *schedule("act"), timer(5, soon(0.2)))
        await bench.service.raise_event("one", "waiting", "data")

    async def after(bench):
        worker = bench.connect(Worker())
        told = []
        while len(told) < 2:
            item = await worker.turn()
            assert start_of(item).input.value == "kept"
            told += kinds(new(item))[1:]
            await bench.answer(item)
        assert sorted(told) == ["eventRaised", "timerFired"]
        await bench.result(await worker.activity())
        await bench.answer(await worker.turn(), end())
        assert await bench.status("one") == "COMPLETED"

    on_bench(database_url, before)
    migrations.downgrade(parse_url(database_url), revision)
    on_bench(database_url, after)
