"""Continue-as-new: what goes into the next execution, in what order, and what is left behind (S-237, S-244, S-417)."""

from __future__ import annotations

import pytest

from dispatch.bench import Worker, on_bench, only, schedule
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from semantics.acts import (
    TERMINATED,
    again,
    child,
    claimed,
    end,
    kinds,
    names,
    new,
    past,
    raised,
    send,
    soon,
    start_of,
    timer,
)


async def begin(bench, instance_id="one", **fields):
    """An instance that has begun and waits."""
    worker = bench.connect(Worker())
    await bench.start("flow", instance_id, **fields)
    await bench.answer(await worker.turn())
    return worker


def test_the_next_execution_sees_carried_sent_and_late_events_in_this_order_each_once(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.raise_event("one", "consumed", None)
        item = await worker.turn()
        await bench.service.raise_event("one", "late", None)  # between the turn's fetch and its commit
        await bench.answer(item, send(1, "one", "to self"), again("next", raised("carried 1"), raised("carried 2")))
        item = await worker.turn()
        assert kinds(new(item))[:2] == ["orchestratorStarted", "executionStarted"]
        assert names(new(item)) == ["carried 1", "carried 2", "to self", "late"]
        assert (item.past, start_of(item).input.value) == ((), "next")
        assert all(event.timestamp.seconds > 1_000_000 for event in new(item))
        await bench.answer(item)
        await bench.service.raise_event("one", "last", None)
        assert names(new(await worker.turn())) == ["last"]

    on_bench(database_url, test)


def test_results_timers_and_children_of_the_old_execution_reach_no_later_one(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        await bench.answer(await worker.turn(), *schedule("act"), timer(1, soon(30)), child("below", number=2))
        activity, below = await worker.activity(), await worker.turn()
        await bench.service.raise_event("one", "now", None)
        await bench.answer(await worker.turn(), *schedule("left", first=3), again("next"))
        left, due = await worker.activity(), soon(31)
        await bench.answer(await worker.turn(), timer(1, due))
        await bench.result(activity, "late")
        await bench.result(left, "late")
        await bench.answer(below, end(result="late"))
        bench.ahead(60)  # past both timers at once
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "timerFired"]
        assert new(item)[1].timerFired.fireAt == due
        assert kinds(past(item)) == ["orchestratorStarted", "executionStarted", "timerCreated"]

    on_bench(database_url, test)


@pytest.mark.parametrize("version", [None, "2"])
def test_it_keeps_who_it_is_and_replaces_what_it_is_told_to(database_url, version):
    async def test(bench):
        trace = pb.TraceContext(traceParent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
        worker = await begin(bench, tags={"a": "b"}, version="1", trace=trace, input="first")
        before = (await bench.service.get("one", payloads=True)).row
        await bench.service.raise_event("one", "now", None)
        item = await worker.turn()
        await bench.board.complete_turn(pb.OrchestratorResponse(
            instanceId="one", completionToken=item.token, actions=[again("next", version=version)],
            customStatus={"value": "status"}, orchestrationTraceContext={"spanID": {"value": "span"}}))
        state = await bench.service.get("one", payloads=True)
        row = state.row
        assert (row.status, row.history_count, row.trace, row.completed_at) == (Status.RUNNING, 0, None, None)
        assert (row.created_at, row.generation, row.name, dict(row.tags)) == (
            before.created_at, before.generation, "flow", {"a": "b"})
        assert (row.version, state.input, state.output) == (version or "1", "next", None)
        assert row.execution_id != before.execution_id
        started = start_of(await worker.turn())
        assert (started.version.value, dict(started.tags)) == (version or "1", {"a": "b"})
        assert started.parentTraceContext == trace

    on_bench(database_url, test)


def test_a_child_keeps_its_parent_and_reports_at_its_final_end_alone(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("below", number=3))
        for number in range(3):
            item = await worker.turn()
            assert item.key.instance_id == "below"
            assert start_of(item).parentInstance.orchestrationInstance.instanceId == "parent"
            await bench.answer(item, again(str(number)) if number < 2 else end(result="done"))
        told = new(await worker.turn())
        assert kinds(told) == ["orchestratorStarted", "subOrchestrationInstanceCompleted"]
        assert told[1].subOrchestrationInstanceCompleted.result.value == "done"

    on_bench(database_url, test)


def test_a_parent_that_has_continued_hears_nothing_of_its_earlier_children(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("below", number=3), again("next"))
        found = sorted([await worker.turn(), await worker.turn()], key=lambda item: item.key.instance_id)
        below, parent = found
        await bench.answer(parent)
        await bench.answer(below, end(result="done"))
        await bench.service.raise_event("parent", "now", None)
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]

    on_bench(database_url, test)


def test_a_wait_for_the_end_does_not_end_with_an_execution(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.raise_event("one", "now", None)
        await bench.answer(await worker.turn(), again("next"))
        assert await bench.status("one") == "RUNNING"
        await bench.answer(await worker.turn(), end(result="done"))
        state = await bench.service.wait_for_completion("one", payloads=True)
        assert state.output == "done"

    on_bench(database_url, test)


# Suspension around it (S-244).


def test_a_suspension_ends_its_batch_and_goes_along_into_the_next_execution(database_url):
    async def test(bench):
        worker = await begin(bench)
        bench.board.disconnect(worker)
        await bench.service.raise_event("one", "before", None)
        await bench.service.suspend("one", "why")
        await bench.service.raise_event("one", "after", None)
        await claimed(bench, "one", 3)
        worker = bench.connect(Worker())
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "eventRaised", "executionSuspended"]
        await bench.answer(item, again("next", raised("carried")))
        assert await bench.status("one") == "RUNNING"
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "executionStarted", "eventRaised", "executionSuspended"]
        assert new(item)[3].executionSuspended.input.value == "why"
        await bench.answer(item)
        assert await bench.status("one") == "SUSPENDED"
        item = await worker.turn()
        assert names(new(item)) == ["after"]
        await bench.answer(item)
        assert await bench.status("one") == "SUSPENDED"

    on_bench(database_url, test)


# Termination beside it (S-237).


def test_a_termination_wins_over_continue_as_new_in_its_turn(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("one", number=3))
        await bench.answer(await worker.turn())
        await bench.service.terminate("one", "why", recursive=False)
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "executionTerminated"]
        await bench.answer(item, again("next"))
        state = await bench.service.get("one", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")
        told = await worker.turn()
        assert kinds(new(told)) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]
        await bench.answer(told)
        await bench.service.raise_event("parent", "last", None)
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]

    on_bench(database_url, test)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_termination_that_comes_with_continue_as_new_in_one_answer_wins(database_url, order):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.terminate("one", "why", recursive=False)
        answers = [end(TERMINATED, "why", number=order[0]), again("next", number=order[1])]
        await bench.answer(await worker.turn(), *answers)
        state = await bench.service.get("one", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")

    on_bench(database_url, test)


def test_a_termination_that_comes_while_the_last_turn_is_out_ends_the_next_execution(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.raise_event("one", "now", None)
        item = await worker.turn()
        await bench.service.terminate("one", "why", recursive=False)
        await bench.answer(item, again("next"))
        state = await bench.service.wait_for_completion("one", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")
        assert worker.turns.empty()

    on_bench(database_url, test)


def test_a_just_continued_instance_is_terminated_without_a_worker(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.raise_event("one", "now", None)
        await bench.answer(await worker.turn(), again("next"))
        out = await worker.turn()
        await bench.service.terminate("one", "why", recursive=False)
        assert await bench.status("one") == "TERMINATED"
        await bench.answer(out, end(result="late"))
        state = await bench.service.get("one", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")

    on_bench(database_url, test)


def test_a_just_continued_child_that_is_terminated_fails_for_its_parent(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"])))
        await bench.start("flow", "parent")
        await bench.answer(await worker.turn(), child("one", "flow", number=3))
        await bench.answer(await worker.turn(), again("next"))
        out = await worker.turn()
        await bench.service.terminate("one", "why", recursive=False)
        told = await worker.turn()
        assert kinds(new(told)) == ["orchestratorStarted", "subOrchestrationInstanceFailed"]
        await bench.answer(told)
        await bench.answer(out, end(result="late"))
        await bench.service.raise_event("parent", "last", None)
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]

    on_bench(database_url, test)


def test_a_termination_that_recurses_takes_the_children_of_a_turn_that_would_have_continued(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.terminate("one", "why", recursive=True)
        await bench.answer(await worker.turn(), child("below", number=1), again("next"))
        state = await bench.service.wait_for_completion("below", payloads=True)
        assert (state.row.status, state.output) == (Status.TERMINATED, "why")
        assert await bench.status("one") == "TERMINATED"

    on_bench(database_url, test)


def test_a_suspension_of_an_earlier_turn_goes_along_too(database_url):
    async def test(bench):
        worker = await begin(bench)
        await bench.service.suspend("one", "why")
        await bench.answer(await worker.turn())
        await bench.service.raise_event("one", "go", None)
        await bench.answer(await worker.turn(), again("next"))
        item = await worker.turn()
        assert kinds(new(item)) == ["orchestratorStarted", "executionStarted", "executionSuspended"]
        assert new(item)[2].executionSuspended.input.value == "why"
        await bench.answer(item)
        assert await bench.status("one") == "SUSPENDED"

    on_bench(database_url, test)
