"""Rewinds in the database: one transaction, checked against what they were made from, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from conformance.world import NOW, World, in_world
from durabletask_sql.clock import FakeClock
from durabletask_sql.errors import FailedPreconditionError, NotFoundError, UnavailableError
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.messages import MessageKind, NewTimer
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame_all, iter_events
from durabletask_sql.service.rewinds import Rewinds
from durabletask_sql.turn.children import link, new_child

DETAILS = pb.TaskFailureDetails(errorType="E", errorMessage="m")


def rewinds(w: World, before_commit=None) -> Rewinds:
    """Rewinds, with something else done between reading and writing."""
    if before_commit is None:
        return Rewinds(w.hub, w.instances, FakeClock())

    class Disturbed(type(w.instances)):
        async def rewind(self, plan):
            await before_commit()
            return await super().rewind(plan)

    return Rewinds(w.hub, Disturbed(w.store._database, w.hub), FakeClock())


def body(instance_id: str, text: str | None = None) -> pb.SubOrchestrationInstanceCreatedEvent:
    made = pb.SubOrchestrationInstanceCreatedEvent(instanceId=instance_id, name="flow", tags={"k": "v"})
    if text is not None:
        made.input.value = text
    return made


async def run(w: World, instance_id: str, *middle: pb.HistoryEvent, status: Status, children=(), **parts: object) -> None:
    """One turn that consumes the start, records these events and leaves the instance in this status."""
    row = await w.read(instance_id)
    rows = await w.queue(instance_id)
    started = events.execution_started(NOW, events.Start("flow", instance_id, row.execution_id, input="in"))
    made = [new_child(row, number, one, f"{one.instanceId}-execution", NOW, w.hub.partition_count)
            for number, one in children]
    recorded = [events.orchestrator_started(NOW), started, *middle,
                *(events.child_created(NOW, number, one) for number, one in children)]
    ended = status.is_terminal
    if ended:
        recorded.append(events.execution_completed(NOW, 9, status, None, DETAILS if status is Status.FAILED else None))
    after = replace(row, row_version=row.row_version + 1, status=status, history_count=len(recorded),
                    completed_at=NOW if ended else None,
                    failure=DETAILS.SerializeToString() if status is Status.FAILED else None)
    turn = w.turn(row, consumed=tuple(one.seq for one in rows), children=tuple(made), ended=ended, **parts)
    history = replace(turn.history, first_sequence=0, count=len(recorded), events=frame_all(recorded))
    outcome = await w.commit(replace(turn, row=after, history=history))
    assert outcome.outcomes[0].kind.value == "committed"


async def end(w: World, instance_id: str, status: Status, output: str | None = None,
              middle: Sequence[pb.HistoryEvent] = ()) -> None:
    """End an instance that has run, with its failures of tasks and children in its history."""
    row = await w.read(instance_id)
    gained = [events.orchestrator_started(NOW + 5), *middle, events.execution_completed(NOW + 5, 9, status, output, None)]
    after = replace(row, row_version=row.row_version + 1, status=status, completed_at=NOW,
                    history_count=row.history_count + len(gained))
    turn = w.turn(row, ended=True, output=output)
    await w.commit(replace(turn, row=after, history=replace(turn.history, count=len(gained), events=frame_all(gained))))


async def kinds(w: World, instance_id: str) -> list[str | None]:
    row = await w.read(instance_id)
    pages = [page async for page in w.instances.history(row.key, row.execution_id)]
    return [event.WhichOneof("eventType") for page in pages for event in iter_events(page)]


async def messages(w: World, instance_id: str) -> list[tuple[MessageKind, str | None, list[str | None]]]:
    return [(row.kind, row.execution_id, [event.WhichOneof("eventType") for event in iter_events(row.events)])
            for row in await w.queue(instance_id)]


async def failed(w: World, instance_id: str, *middle: pb.HistoryEvent, **parts: object) -> None:
    await w.create(instance_id)
    await run(w, instance_id, *middle, status=Status.FAILED, **parts)


def test_a_failed_instance_runs_again_with_its_input_and_without_its_failure(database_url):
    async def test(w: World):
        await failed(w, "one", events.task_scheduled(NOW, 1, pb.ScheduleTaskAction(name="a")),
                     events.task_failed(NOW, 1, DETAILS), output="out")
        before = await w.read("one")
        sent = await rewinds(w).rewind(before.key, "why")
        assert (sent.woken, sent.ended) == ({before.key}, {before.key})
        state = await w.instances.get(before.key, payloads=True)
        assert (state.row.status, state.row.failure, state.row.completed_at) == (Status.RUNNING, None, None)
        assert (state.input, state.output) == ("in", None)
        assert state.row.execution_id != before.execution_id
        assert (state.row.row_version, state.row.rewinds) == (before.row_version + 1, 1)
        assert await kinds(w, "one") == ["orchestratorStarted", "executionStarted", "executionRewound"]
        assert [page async for page in w.instances.history(before.key, before.execution_id)] == []
        assert await messages(w, "one") == [(MessageKind.START, state.row.execution_id, [])]
        assert await w.names_in("payloads") == {"one"}

    in_world(database_url, test)


def test_a_rewind_fences_the_old_execution_and_drops_its_tasks_timers_and_messages(database_url):
    async def test(w: World):
        await w.create("one")
        row = await w.read("one")
        await w.queue("one")
        timer = NewTimer(row.key, row.execution_id, MessageKind.EVENT, NOW, b"\x1a\x00")
        committed = await w.commit(w.turn(row, timers=(timer,), activities=(w.activity(row), w.activity(row, 2)), history=None))
        task = committed.activities[0]
        await run(w, "one", events.timer_created(NOW, 4, events.timestamp(9 * NOW)), status=Status.FAILED)
        before = await w.read("one")
        await rewinds(w).rewind(before.key, None)
        assert (await w.commit(w.turn(before))).outcomes[0].kind.value == "lost"
        assert await w.committer.activity(task.key.partition, task.seq, task.token) is None
        assert await w.names_in("activity_queue") == set()
        loaded = await w.load(fresh=(before.key,), timer_horizon=10 * NOW, timer_limit=9)
        assert [(one.fire_at, one.execution_id) for one in loaded.timers] == [
            (9 * NOW, (await w.read("one")).execution_id)]

    in_world(database_url, test)


@pytest.mark.parametrize("status", [Status.RUNNING, Status.COMPLETED, Status.TERMINATED])
def test_only_a_failed_instance_can_be_rewound(database_url, status):
    async def test(w: World):
        await w.create("one")
        with pytest.raises(FailedPreconditionError, match="pending, which does not allow"):
            await rewinds(w).rewind(w.key("one"), None)
        await run(w, "one", status=status)
        before = await w.read("one")
        with pytest.raises(FailedPreconditionError, match=status.name.lower()):
            await rewinds(w).rewind(w.key("one"), None)
        assert await w.read("one") == before
        with pytest.raises(NotFoundError, match="nobody"):
            await rewinds(w).rewind(w.key("nobody"), None)

    in_world(database_url, test)


async def family(w: World, *names: str) -> None:
    """A parent that failed while its children, which have started, went on."""
    await w.create("parent")
    await run(w, "parent", status=Status.RUNNING, children=[(number, body(name, f"for {name}"))
                                                            for number, name in enumerate(names)])


def test_failed_children_are_rewound_all_the_way_down_and_linked_to_the_new_executions(database_url):
    async def test(w: World):
        await family(w, "child")
        await run(w, "child", status=Status.RUNNING, children=[(5, body("grandchild"))])
        await run(w, "grandchild", status=Status.FAILED)
        for name in ("child", "parent"):
            await end(w, name, Status.FAILED)
        sent = await rewinds(w).rewind(w.key("parent"), "why")
        rows = {name: await w.read(name) for name in ("parent", "child", "grandchild")}
        assert sent.woken == {row.key for row in rows.values()}
        assert {row.status for row in rows.values()} == {Status.RUNNING}
        assert rows["child"].parent == link(rows["parent"], 0)
        assert rows["grandchild"].parent == link(rows["child"], 5)
        assert await kinds(w, "grandchild") == ["orchestratorStarted", "executionStarted", "executionRewound"]

    in_world(database_url, test)


def test_a_live_child_is_linked_to_the_new_execution_and_its_owner_is_fenced(database_url):
    async def test(w: World):
        await family(w, "child", "pending")
        await run(w, "child", status=Status.RUNNING)
        await end(w, "parent", Status.FAILED)
        before = await w.read("child")
        sent = await rewinds(w).rewind(w.key("parent"), None)
        parent, child = await w.read("parent"), await w.read("child")
        assert child == replace(before, parent=link(parent, 0), row_version=before.row_version + 1)
        assert (await w.read("pending")).parent == link(parent, 1)
        assert sent.ended == {w.key(name) for name in ("parent", "child", "pending")}
        assert sent.woken == {parent.key}
        assert (await w.commit(w.turn(before))).outcomes[0].kind.value == "lost"

    in_world(database_url, test)


def test_a_child_that_ended_meanwhile_reports_again(database_url):
    async def test(w: World):
        await family(w, "good", "ended")
        for name in ("good", "ended"):
            await run(w, name, status=Status.RUNNING)
        await end(w, "parent", Status.FAILED)
        await end(w, "good", Status.COMPLETED, output="late")
        await end(w, "ended", Status.TERMINATED, output="why")
        await rewinds(w).rewind(w.key("parent"), None)
        row = await w.read("parent")
        told = await messages(w, "parent")
        assert told == [(MessageKind.START, row.execution_id, []),
                        (MessageKind.EVENT, row.execution_id, ["subOrchestrationInstanceCompleted"]),
                        (MessageKind.EVENT, row.execution_id, ["subOrchestrationInstanceFailed"])]

    in_world(database_url, test)


def test_a_purged_child_is_created_again_with_its_input_tags_and_parent(database_url):
    async def test(w: World):
        await family(w, "child")
        await run(w, "child", status=Status.FAILED)
        await end(w, "parent", Status.FAILED)
        await w.instances.purge({w.key("child"): None})
        sent = await rewinds(w).rewind(w.key("parent"), None)
        parent = await w.read("parent")
        state = await w.instances.get(w.key("child"), payloads=True)
        assert (state.row.status, state.input, state.row.tags) == (Status.PENDING, "for child", {"k": "v"})
        assert state.row.parent == link(parent, 0)
        assert sent.woken == {parent.key, state.row.key}
        assert await messages(w, "child") == [(MessageKind.START, state.row.execution_id, ["executionStarted"])]

    in_world(database_url, test)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.RUNNING])
def test_a_stranger_under_a_childs_id_is_replaced_when_it_has_ended_and_left_when_it_lives(database_url, status):
    async def test(w: World):
        await family(w, "child")
        await run(w, "child", status=Status.FAILED)
        await end(w, "parent", Status.FAILED)
        await w.create("child")
        await run(w, "child", status=status)
        stranger = await w.read("child")
        await rewinds(w).rewind(w.key("parent"), None)
        parent, child = await w.read("parent"), await w.read("child")
        told = [kinds for kind, _, kinds in await messages(w, "parent") if kind is MessageKind.EVENT]
        if status is Status.RUNNING:
            assert (child, told) == (stranger, [["subOrchestrationInstanceFailed"]])
        else:
            assert (child.parent, child.row_version, told) == (link(parent, 0), stranger.row_version + 1, [])
            assert [page async for page in w.instances.history(child.key, stranger.execution_id)] == []
            assert await messages(w, "child") == [(MessageKind.START, child.execution_id, ["executionStarted"])]

    in_world(database_url, test)


def told(found: list[tuple[MessageKind, str | None, list[str | None]]]) -> list[list[str | None]]:
    return [names for kind, _, names in found if kind is MessageKind.EVENT]


def test_a_child_that_ended_reports_although_its_id_was_asked_for_again_in_vain(database_url):
    async def test(w: World):
        await family(w, "child")
        await run(w, "child", status=Status.RUNNING)
        refused = [events.child_created(NOW, 1, body("child", "again")), events.child_failed(NOW, 1, DETAILS)]
        await end(w, "parent", Status.FAILED, middle=refused)
        await end(w, "child", Status.COMPLETED, output="late")
        await rewinds(w).rewind(w.key("parent"), None)
        parent, child = await w.read("parent"), await w.instances.get(w.key("child"), payloads=True)
        assert told(await messages(w, "parent")) == [["subOrchestrationInstanceCompleted"]]
        assert (child.row.status, child.row.parent, child.input) == (Status.PENDING, link(parent, 1), "again")

    in_world(database_url, test)


@pytest.mark.parametrize(("status", "report"), [(Status.FAILED, "subOrchestrationInstanceFailed"),
                                                (Status.COMPLETED, "subOrchestrationInstanceCompleted")])
def test_of_two_that_ask_for_one_child_the_first_gets_it(database_url, status, report):
    async def test(w: World):
        await family(w, "one", "other")
        for name in ("one", "other"):
            await run(w, name, status=Status.RUNNING, children=[(5, body("child"))])
            await run(w, "child", status=Status.RUNNING)
            await end(w, "child", status if name == "other" else Status.FAILED)
        for name in ("one", "other", "parent"):
            await end(w, name, Status.FAILED)
        await rewinds(w).rewind(w.key("parent"), None)
        assert (await w.read("child")).parent == link(await w.read("one"), 5)
        assert (await w.read("child")).status is Status.PENDING
        assert told(await messages(w, "one")) == []
        assert told(await messages(w, "other")) == [[report]]

    in_world(database_url, test)


def test_rewinding_twice_works(database_url):
    async def test(w: World):
        await family(w, "child")
        await run(w, "child", status=Status.FAILED)
        await end(w, "parent", Status.FAILED)
        for times in (1, 2):
            await rewinds(w).rewind(w.key("parent"), str(times))
            parent, child = await w.read("parent"), await w.read("child")
            assert (parent.rewinds, child.rewinds) == (times, times)
            assert child.parent == link(parent, 0)
            for name in ("child", "parent"):
                await end(w, name, Status.FAILED)

    in_world(database_url, test)


def test_a_rewind_that_something_came_before_is_made_anew(database_url):
    async def test(w: World):
        await family(w, "child")
        await run(w, "child", status=Status.RUNNING)
        await end(w, "parent", Status.FAILED)
        done = []

        async def end_child():
            if not done:
                done.append(True)
                await end(w, "child", Status.COMPLETED, output="late")

        await rewinds(w, end_child).rewind(w.key("parent"), None)
        told = [kinds for kind, _, kinds in await messages(w, "parent") if kind is MessageKind.EVENT]
        assert told == [["subOrchestrationInstanceCompleted"]]
        assert (await w.read("parent")).rewinds == 1

    in_world(database_url, test)


def test_a_rewind_that_never_fits_changes_nothing_and_says_so(database_url):
    async def test(w: World):
        await failed(w, "one")

        async def fail_again():
            await w.create("one", CreationPolicy(frozenset()))
            await run(w, "one", status=Status.FAILED)

        with pytest.raises(UnavailableError, match="changed each time"):
            await rewinds(w, fail_again).rewind(w.key("one"), None)
        assert (await w.read("one")).rewinds == 0

    in_world(database_url, test)


def test_large_texts_survive_a_rewind(database_url):
    async def test(w: World):
        big = "x" * 200_000
        action = pb.ScheduleTaskAction(name="a")
        action.input.value = big
        await failed(w, "one", events.task_scheduled(NOW, 1, action), events.task_completed(NOW, 1, big[::-1] + "!"))
        await rewinds(w).rewind(w.key("one"), None)
        row = await w.read("one")
        pages = [page async for page in w.instances.history(row.key, row.execution_id)]
        found = [event for page in pages for event in iter_events(page)]
        assert found[1].executionStarted.input.value == "in"
        assert found[2].taskScheduled.input.value == big
        assert found[3].taskCompleted.result.value == big[::-1] + "!"

    in_world(database_url, test)
