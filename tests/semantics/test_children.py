"""Sub-orchestrations: what they know of their parent, and what it hears of them (S-098 to S-103, S-187)."""

from __future__ import annotations

import pytest

from dispatch.bench import Worker, on_bench
from durabletask_sql.protocol import taskhub_pb2 as pb
from semantics.acts import COMPLETED, FAILED, TERMINATED, child, end, kinds, new, start_of

DETAILS = pb.TaskFailureDetails(errorType="E", errorMessage="m", stackTrace={"value": "s"}, isNonRetriable=True)


async def begin(bench, *actions, **fields):
    """A parent that has begun, and its worker."""
    worker = bench.connect(Worker())
    await bench.start("flow", "parent", **fields)
    item = await worker.turn()
    await bench.answer(item, *actions)
    return worker, item


def test_a_child_knows_its_parent_and_is_found_under_it(database_url):
    async def test(bench):
        worker, parent = await begin(bench, child("below", number=7), version="1.5")
        info = start_of(await worker.turn()).parentInstance
        assert (info.taskScheduledId, info.name.value, info.version.value) == (7, "flow", "1.5")
        assert info.orchestrationInstance.instanceId == "parent"
        assert info.orchestrationInstance.executionId.value == parent.execution_id
        row = (await bench.service.get("below", payloads=False)).row
        assert (row.parent.instance_id, row.parent.execution_id) == ("parent", parent.execution_id)

    on_bench(database_url, test)


def test_a_child_without_an_id_gets_its_parents_with_the_number_of_its_action(database_url):
    async def test(bench):
        worker, _ = await begin(bench, child("", number=26))
        item = await worker.turn()
        assert item.key.instance_id == "parent:001a"
        assert len(item.execution_id) == 32

    on_bench(database_url, test)


def test_tags_are_inherited_the_childs_own_win_and_fire_and_forget_is_not(database_url):
    async def test(bench):
        worker, _ = await begin(bench, child("below", tags={"b": "own"}), tags={"a": "1", "b": "2", "FireAndForget": "true"})
        item = await worker.turn()
        assert dict(start_of(item).tags) == {"a": "1", "b": "own"}
        assert dict((await bench.service.get("below", payloads=False)).row.tags) == {"a": "1", "b": "own"}
        await bench.answer(item, end())
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "subOrchestrationInstanceCompleted"]

    on_bench(database_url, test)


def test_nobody_hears_of_a_child_that_was_only_fired(database_url):
    async def test(bench):
        worker, _ = await begin(bench, child("below", tags={"FireAndForget": "true"}))
        await bench.answer(await worker.turn(), end())
        await bench.service.raise_event("parent", "last", None)
        assert kinds(new(await worker.turn())) == ["orchestratorStarted", "eventRaised"]

    on_bench(database_url, test)


@pytest.mark.parametrize("version", [None, "", "2"])
def test_a_childs_version_is_the_actions_and_never_its_parents(database_url, version):
    async def test(bench):
        asked = {} if version is None else {"version": {"value": version}}
        worker, _ = await begin(bench, child("below", **asked), version="1")
        item = await worker.turn()
        assert start_of(item).HasField("version") is (version is not None)
        assert start_of(item).version.value == (version or "")
        assert (await bench.service.get("below", payloads=False)).row.version == version
        assert item.version == version

    on_bench(database_url, test)


@pytest.mark.parametrize("value", [None, "", "text"])
def test_a_childs_input_keeps_its_presence(database_url, value):
    async def test(bench):
        asked = {} if value is None else {"input": {"value": value}}
        worker, _ = await begin(bench, child("below", **asked))
        started = start_of(await worker.turn())
        assert (started.input.value if started.HasField("input") else None) == value

    on_bench(database_url, test)


@pytest.mark.parametrize(("status", "field"), [
    (COMPLETED, "subOrchestrationInstanceCompleted"), (FAILED, "subOrchestrationInstanceFailed"),
    (TERMINATED, "subOrchestrationInstanceFailed")])
def test_a_parent_hears_how_its_child_ended(database_url, status, field):
    async def test(bench):
        worker, _ = await begin(bench, child("below", number=3))
        await bench.answer(await worker.turn(), end(status, "out", failure=DETAILS if status == FAILED else None))
        told = new(await worker.turn())
        assert kinds(told) == ["orchestratorStarted", field]
        assert told[1].eventId == -1
        body = getattr(told[1], field)
        assert body.taskScheduledId == 3
        if status == COMPLETED:
            assert body.result.value == "out"
        elif status == FAILED:
            assert body.failureDetails == DETAILS
        else:
            assert "terminated: out" in body.failureDetails.errorMessage

    on_bench(database_url, test)


def test_a_parent_that_has_ended_hears_nothing(database_url):
    async def test(bench):
        worker, _ = await begin(bench, child("below"), end(result="done"))
        await bench.answer(await worker.turn(), end())
        await bench.start("flow", "next")
        assert (await worker.turn()).key.instance_id == "next"
        assert await bench.status("parent") == "COMPLETED"

    on_bench(database_url, test)
