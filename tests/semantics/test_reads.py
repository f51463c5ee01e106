"""What queries and histories say: committed state of the right execution, whole rows, half-open ranges (section 7)."""

from __future__ import annotations

import asyncio

import pytest

from dispatch.bench import Worker, on_bench, schedule
from durabletask_sql.errors import NotFoundError
from durabletask_sql.model.queries import InstanceQuery
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.sidecar.conversion import orchestration_state
from semantics.acts import FAILED, again, child, end, kinds, send

DETAILS = pb.TaskFailureDetails(errorType="E", errorMessage="m")


async def read(bench, instance_id, execution_id=None):
    return [event for page in [page async for page in bench.service.history(instance_id, execution_id)]
            for event in iter_events(page)]


def test_a_history_is_that_of_the_current_execution_and_another_has_none(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        first = await worker.turn()
        await bench.answer(first, again("next"))
        second = await worker.turn()
        await bench.answer(second, *schedule("act"))
        assert kinds(await read(bench, "one")) == ["orchestratorStarted", "executionStarted", "taskScheduled"]
        assert await read(bench, "one", second.execution_id) == await read(bench, "one")
        assert await read(bench, "one", first.execution_id) == []
        with pytest.raises(NotFoundError):
            await read(bench, "nobody")

    on_bench(database_url, test)


def test_a_history_holds_what_is_committed_and_not_what_waits(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        item = await worker.turn()
        await bench.service.raise_event("one", "waiting", None)
        assert await read(bench, "one") == []
        await bench.answer(item)
        assert kinds(await read(bench, "one")) == ["orchestratorStarted", "executionStarted"]

    on_bench(database_url, test)


def test_a_row_of_a_query_says_all_that_is_known_and_the_failure_without_payloads(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "parent", input="in", tags={"a": "b"}, version="1")
        await bench.answer(await worker.turn(), child("below", input={"value": "given"}))
        await bench.answer(await worker.turn(), end(FAILED, failure=DETAILS))
        page = await bench.service.query(InstanceQuery())
        states = {state.row.instance_id: orchestration_state(state, payloads=False) for state in page.states}
        below, parent = states["below"], states["parent"]
        assert below.parentInstanceId.value == "parent"
        assert below.failureDetails == DETAILS
        assert below.HasField("completedTimestamp")
        assert (below.HasField("input"), below.HasField("output")) == (False, False)
        assert (parent.name, parent.version.value, dict(parent.tags)) == ("flow", "1", {"a": "b"})
        assert len(parent.executionId.value) == 32
        assert parent.createdTimestamp.seconds
        assert parent.lastUpdatedTimestamp.ToNanoseconds() >= parent.createdTimestamp.ToNanoseconds()
        assert not parent.HasField("completedTimestamp")
        page = await bench.service.query(InstanceQuery(frozenset({Status.FAILED}), payloads=True))
        assert [(state.row.instance_id, state.input) for state in page.states] == [("below", "given")]

    on_bench(database_url, test)


def test_a_range_of_creation_times_takes_its_beginning_and_leaves_its_end(database_url):
    async def test(bench):
        for name in ("a", "b", "c"):
            await bench.start("flow", name)
        every = (await bench.service.query(InstanceQuery())).states
        times = [state.row.created_at for state in every]
        assert times == sorted(set(times))
        page = await bench.service.query(InstanceQuery(created_from=times[0], created_to=times[2]))
        assert [state.row.instance_id for state in page.states] == ["a", "b"]

    on_bench(database_url, test)


def test_a_wait_begins_before_its_instance_and_ends_with_it(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        started = asyncio.create_task(bench.service.wait_for_start("one", payloads=False))
        ended = asyncio.create_task(bench.service.wait_for_completion("one", payloads=True))
        await bench.start("flow", "one")
        await bench.answer(await worker.turn())
        assert (await started).row.status is Status.RUNNING
        await bench.service.suspend("one", None)
        await bench.answer(await worker.turn())
        assert (await bench.service.wait_for_start("one", payloads=False)).row.status is Status.SUSPENDED
        assert not ended.done()
        await bench.service.resume("one", None)
        await bench.answer(await worker.turn(), end(result="done"))
        assert (await ended).output == "done"

    on_bench(database_url, test)


def test_resuming_what_is_not_suspended_and_suspending_twice_do_no_harm(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one")
        await bench.answer(await worker.turn())
        for call, status in ((bench.service.resume, "RUNNING"), (bench.service.suspend, "SUSPENDED"),
                             (bench.service.suspend, "SUSPENDED"), (bench.service.resume, "RUNNING")):
            await call("one", "why")
            await bench.answer(await worker.turn())
            assert await bench.status("one") == status

    on_bench(database_url, test)


def test_a_pending_instance_that_is_suspended_begins_suspended(database_url):
    async def test(bench):
        await bench.start("flow", "one")
        await bench.service.suspend("one", "why")
        assert await bench.status("one") == "PENDING"
        await bench.until(lambda: bench.runtime.dispatcher._memory.entered == 2)  # its owner has heard of both
        item = await bench.connect(Worker()).turn()
        assert kinds(iter_events(item.new_events)) == ["orchestratorStarted", "executionStarted", "executionSuspended"]
        await bench.answer(item)
        assert await bench.status("one") == "SUSPENDED"

    on_bench(database_url, test)


def test_a_history_keeps_what_was_asked_for_with_its_inputs(database_url):
    async def test(bench):
        worker = bench.connect(Worker())
        await bench.start("flow", "one", input="mine")
        await bench.answer(await worker.turn(), *schedule("act", text="for act"),
                           child("below", number=1, input={"value": "for below"}), send(2, "below", "event", "for event"))
        started, task, made, sent = (await read(bench, "one"))[1:]
        assert started.executionStarted.input.value == "mine"
        assert task.taskScheduled.input.value == "for act"
        assert (made.subOrchestrationInstanceCreated.instanceId, made.subOrchestrationInstanceCreated.input.value) == (
            "below", "for below")
        assert (sent.eventSent.instanceId, sent.eventSent.input.value) == ("below", "for event")

    on_bench(database_url, test)
