"""What is set aside keeps all that putting it back needs, and leaves the quarantine in one transaction, once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from conformance.world import NOW, World, in_world
from durabletask_sql.model.checkpoints import ActivityCompletion, Blame, OutcomeKind, Quarantine
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer
from durabletask_sql.model.quarantine import AsideId, AsideKind, AsideOutcome, Source
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame, iter_events
from durabletask_sql.turn.failing import ERROR_TYPE

DONE, ENDED, GONE = AsideOutcome.DONE, AsideOutcome.ENDED, AsideOutcome.GONE


def store(w: World):
    return w.store.quarantine(w.hub)


async def ids(w: World) -> list[AsideId]:
    return [item.id for item in (await store(w).page(instance_id=None, after=None, limit=1000)).items]


def event(name: str) -> bytes:
    return frame(events.event_raised(NOW, name, "text"))


async def with_messages(w: World, *names: str, instance_id: str = "one"):
    """An instance that has run, with messages that are held."""
    row = await w.created(instance_id)
    (start,) = await w.queue(instance_id)
    await w.commit(w.turn(row, consumed=(start.seq,)))
    for name in names:
        await w.instances.send(w.message(instance_id, event(name)))
    return await w.read(instance_id), await w.queue(instance_id)


async def failed_event(w: World, instance_id: str):
    """The last message of an instance, and its failure."""
    last = list(iter_events((await w.queue(instance_id))[-1].events))[-1]
    return last, getattr(last, last.WhichOneof("eventType")).failureDetails


def test_a_turn_keeps_its_cause_its_messages_and_who_had_it(database_url):
    async def test(w: World):
        row, held = await with_messages(w, "a", "b", "c")
        blame = Blame(row.execution_id, "flow", "1", "worker 7", 5)
        await w.commit(Quarantine(row.key, "it is bad", (held[0].seq, held[1].seq), blame=blame))
        assert [one.seq for one in await w.queue("one")] == [held[2].seq]
        item, rows = await store(w).get(AsideId(Source.MESSAGE, held[0].seq))
        assert (item.kind, item.key, item.execution_id) == (AsideKind.TURN, row.key, row.execution_id)
        assert (item.name, item.version, item.worker, item.attempts, item.cause) == ("flow", "1", "worker 7", 5, "it is bad")
        assert (item.set_aside_at, item.status) == (NOW, Status.RUNNING)
        assert (item.rows, item.size) == (2, len(event("a")) + len(event("b")))
        assert [(one.seq, one.content) for one in rows] == [(one.seq, one.events) for one in held[:2]]

    in_world(database_url, test)


def test_redriven_messages_come_back_in_their_order_however_they_were_set_aside(database_url):
    async def test(w: World):
        row, held = await with_messages(w, "a", "b", "c", "d")
        await w.commit(Quarantine(row.key, "bad", (held[3].seq, held[1].seq)))
        await w.commit(Quarantine(row.key, "bad", (held[0].seq, held[2].seq)))
        outcomes = await store(w).redrive(await ids(w))
        assert set(outcomes.values()) == {DONE}
        assert [one.events for one in await w.queue("one")] == [event(name) for name in "abcd"]
        assert await ids(w) == []

    in_world(database_url, test)


def test_a_redriven_start_is_a_start(database_url):
    async def test(w: World):
        row = await w.created("one")
        (start,) = await w.queue("one")
        await w.commit(Quarantine(row.key, "bad", (start.seq,)))
        await store(w).redrive(await ids(w))
        (again,) = await w.queue("one")
        assert (again.kind, again.execution_id, again.events) == (MessageKind.START, row.execution_id, start.events)

    in_world(database_url, test)


def test_a_redriven_timer_is_due_when_it_was(database_url):
    async def test(w: World):
        row = await w.created("one")
        await w.commit(w.turn(row, timers=(NewTimer(row.key, row.execution_id, MessageKind.EVENT, NOW + 5, event("t")),)))
        (timer,) = (await w.load(fresh=(row.key,))).timers
        await w.commit(Quarantine(row.key, "bad", (), (timer.seq,)))
        assert await ids(w) == [AsideId(Source.TIMER, timer.seq)]
        await store(w).redrive(await ids(w))
        (again,) = (await w.load(timer_horizon=NOW + 10, timer_limit=5)).timers
        assert (again.fire_at, again.events, again.execution_id) == (NOW + 5, event("t"), row.execution_id)

    in_world(database_url, test)


def test_a_redriven_activity_is_a_task_that_anybody_may_claim(database_url):
    async def test(w: World):
        row = await w.created("one")
        (task,) = (await w.commit(w.turn(row, activities=(w.activity(row, 7),)))).activities
        await w.commit(Quarantine(row.key, "bad", activity=(task.seq, task.token), blame=Blame(row.execution_id)))
        item, _ = await store(w).get((await ids(w))[0])
        assert (item.kind, item.name) == (AsideKind.ACTIVITY, "act")
        await store(w).redrive([item.id])
        (again,) = await w.committer.count_unclaimed(10)
        assert again == ("act", None, 1)

    in_world(database_url, test)


def test_an_activity_that_is_given_up_fails_for_its_orchestration(database_url):
    async def test(w: World):
        row = await w.created("one")
        (task,) = (await w.commit(w.turn(row, activities=(w.activity(row, 7),)))).activities
        await w.commit(Quarantine(row.key, "it ate the host", activity=(task.seq, task.token), blame=Blame(attempts=8)))
        assert set((await store(w).fail(await ids(w), NOW)).values()) == {DONE}
        found, failure = await failed_event(w, "one")
        assert found.taskFailed.taskScheduledId == 7
        assert failure.errorType == ERROR_TYPE
        assert "'act' was set aside after 8 failed deliveries, and given up: it ate the host" in failure.errorMessage
        late = ActivityCompletion(row.key, task.seq, task.token, w.message("one"))
        assert (await w.commit(late)).outcomes[0].kind is OutcomeKind.LOST
        assert await ids(w) == []

    in_world(database_url, test)


def test_a_turn_that_is_given_up_fails_its_instance_and_tells_the_parent(database_url):
    async def test(w: World):
        parent = await w.created("parent")
        await w.commit(w.turn(parent, children=(w.child(parent, "one"),)))
        child = await w.read("one")
        await w.instances.send(w.message("one", event("a")))
        (start, other) = await w.queue("one")
        blame = Blame(child.execution_id, "flow")
        await w.commit(Quarantine(child.key, "it is bad", (start.seq,), blame=blame))
        await store(w).fail(await ids(w), NOW)
        ended = await w.read("one")
        assert ended.status is Status.FAILED
        failure = pb.TaskFailureDetails.FromString(ended.failure)
        assert (failure.errorType, "it is bad" in failure.errorMessage) == (ERROR_TYPE, True)
        assert other.seq not in [one.seq for one in await w.queue("one")]
        history = [one async for page in w.instances.history(ended.key, ended.execution_id) for one in iter_events(page)]
        assert history[-1].executionCompleted.failureDetails == failure
        assert ended.history_count == len(history)

    in_world(database_url, test)


def test_what_belongs_to_an_execution_that_is_over_cannot_be_put_back_and_fails_nobody(database_url):
    async def test(w: World):
        row = await w.created("one")
        (start,) = await w.queue("one")
        await w.commit(Quarantine(row.key, "bad", (start.seq,), blame=Blame(row.execution_id)))
        (item_id,) = await ids(w)
        after = replace(await w.read("one"), row_version=row.row_version + 1, execution_id="next", history_count=0)
        await w.commit(replace(w.turn(row, history=None, continued_from=row.execution_id, messages=(
            NewMessage(row.key, "next", MessageKind.START, b"\x1a\x00"),)), row=after))
        assert await store(w).redrive([item_id]) == {item_id: ENDED}
        assert await store(w).fail([item_id], NOW) == {item_id: DONE}
        assert (await w.read("one")).status is not Status.FAILED
        assert await store(w).redrive([item_id]) == {item_id: GONE}

    in_world(database_url, test)


def test_an_entitys_callers_are_told_that_their_calls_failed_and_signals_go(database_url):
    async def test(w: World):
        caller, entity = await w.created("caller"), w.key("@counter@a")
        called = events.entity_called(NOW, -1, pb.EntityOperationCalledEvent(
            requestId="r1", operation="add", parentInstanceId={"value": "caller"},
            parentExecutionId={"value": caller.execution_id}))
        signaled = events.entity_signaled(NOW, -1, pb.EntityOperationSignaledEvent(requestId="r2", operation="add"))
        for one in (called, signaled):
            await w.entities.signal(NewMessage(entity, None, MessageKind.EVENT, frame(one)))
        held = await w.queue("@counter@a")
        await w.commit(Quarantine(entity, "bad", tuple(one.seq for one in held), blame=Blame(name="counter")))
        (item_id,) = await ids(w)
        assert (await store(w).get(item_id))[0].kind is AsideKind.ENTITY
        assert await store(w).fail([item_id], NOW) == {item_id: DONE}
        found, failure = await failed_event(w, "caller")
        assert (found.entityOperationFailed.requestId, failure.errorType) == ("r1", ERROR_TYPE)
        assert await w.queue("@counter@a") == ()

    in_world(database_url, test)


def test_a_lock_request_cannot_be_given_up_but_put_back(database_url):
    async def test(w: World):
        entity = w.key("@counter@a")
        asked = events.entity_lock_requested(NOW, -1, pb.EntityLockRequestedEvent(
            criticalSectionId="s", lockSet=["@counter@a"], parentInstanceId={"value": "caller"}))
        await w.entities.signal(NewMessage(entity, "e", MessageKind.EVENT, frame(asked)))
        held = await w.queue("@counter@a")
        await w.commit(Quarantine(entity, "bad", (held[0].seq,)))
        (item_id,) = await ids(w)
        assert await store(w).fail([item_id], NOW) == {item_id: AsideOutcome.UNFAILABLE}
        assert await store(w).redrive([item_id]) == {item_id: DONE}
        assert [one.events for one in await w.queue("@counter@a")] == [held[0].events]

    in_world(database_url, test)


def test_of_many_that_redrive_the_same_items_one_puts_them_back(database_url):
    async def test(w: World):
        row, held = await with_messages(w, *map(str, range(20)))
        for one in held:
            await w.commit(Quarantine(row.key, "bad", (one.seq,)))
        items = await ids(w)
        found = await asyncio.gather(*(store(w).redrive(items) for _ in range(5)))
        assert [one.events for one in await w.queue("one")] == [one.events for one in held]
        assert sorted(outcome.value for outcomes in found for outcome in outcomes.values()) == ["done"] * 20 + ["gone"] * 80

    in_world(database_url, test)


def test_what_is_gone_is_not_set_aside(database_url):
    async def test(w: World):
        row, held = await with_messages(w, "a", "b")
        await w.commit(Quarantine(row.key, "bad", (held[0].seq,)))
        committed = await w.commit(Quarantine(row.key, "bad", (held[0].seq, held[1].seq)))
        assert committed.outcomes[0].kind is OutcomeKind.LOST
        assert [one.seq for one in await w.queue("one")] == [held[1].seq]
        assert len(await ids(w)) == 1

    in_world(database_url, test)


def test_pages_have_every_item_once_longest_set_aside_first(database_url):
    async def test(w: World):
        for name in ("one", "two"):
            row, held = await with_messages(w, *map(str, range(5)), instance_id=name)
            for place, one in enumerate(held):
                await w.commit(Quarantine(row.key, "bad", (one.seq,)), now=NOW + 10 * (5 - place))
        for instance_id, count in ((None, 10), ("two", 5), ("nobody", 0)):
            found, after = [], None
            while True:
                page = await store(w).page(instance_id=instance_id, after=after, limit=3)
                found += page.items
                after = page.next
                if after is None:
                    break
            assert len({item.id for item in found}) == count
            assert [item.set_aside_at for item in found] == sorted(item.set_aside_at for item in found)

    in_world(database_url, test)


def test_purging_an_instance_takes_along_what_was_set_aside_of_it(database_url):
    async def test(w: World):
        for name in ("one", "two"):
            row, held = await with_messages(w, "a", instance_id=name)
            await w.commit(Quarantine(row.key, "bad", (held[0].seq,)))
        await w.end_all(["one", "two"])
        await w.instances.purge({w.key("one"): None})
        assert [item.key for item in (await store(w).page(instance_id=None, after=None, limit=9)).items] == [w.key("two")]

    in_world(database_url, test)
