"""Clients' writes: dedupe and generation (S-050, S-065, S-091, S-413), terminate, send, purge, hubs, leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from conformance.world import NOW, World, claim, in_world, open_world
from durabletask_sql.model.creation import CreationPolicy, Decision
from durabletask_sql.model.instances import ParentLink
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer
from durabletask_sql.model.queries import InstanceQuery
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.ports.instances import Termination
from durabletask_sql.ports.leases import HostIdentity, OwnedPartition
from durabletask_sql.protocol.framing import iter_events
from tables import rows

ALL = LIVE | TERMINAL


async def set_status(w: World, instance_id: str, status: Status) -> None:
    row = await w.read(instance_id)
    after = replace(row, row_version=row.row_version + 1, status=status, history_count=row.history_count + 1)
    ended = status.is_terminal
    await w.commit(replace(w.turn(row, ended=ended), row=after))


@pytest.mark.parametrize("status", sorted(ALL - {Status.PENDING, Status.CANCELED}))
@pytest.mark.parametrize("dedupe", [frozenset(), frozenset(LIVE), frozenset(ALL), frozenset({Status.RUNNING})])
def test_a_status_that_dedupes_refuses_and_any_other_is_replaced(database_url, status, dedupe):
    async def test(w: World):
        await w.created("one")
        await set_status(w, "one", status)
        assert rows(w.url, "SELECT status FROM instances") == [(status.value,)]
        before = await w.read("one")
        created = await w.create("one", CreationPolicy(dedupe))
        after = await w.read("one")
        if status in dedupe:
            assert (created.decision, created.existing, created.woken) == (Decision.REFUSE, status, frozenset())
            assert after == before
        else:
            assert created.decision is Decision.REPLACE
            assert (after.generation, after.row_version) == (before.generation + 1, before.row_version + 1)
            assert (after.status, after.history_count) == (Status.PENDING, 0)
            assert after.execution_id != before.execution_id

    in_world(database_url, test)


def test_the_generation_counts_re_creations_only(database_url):
    async def test(w: World):
        generations = []
        for _ in range(3):
            await w.create("one", CreationPolicy(frozenset()))
            generations.append((await w.read("one")).generation)
        await set_status(w, "one", Status.RUNNING)
        assert [*generations, (await w.read("one")).generation] == [0, 1, 2, 2]

    in_world(database_url, test)


def test_of_many_creators_exactly_one_wins_and_its_execution_is_the_one(database_url):
    async def test(w: World):
        created = await asyncio.gather(*(w.create("one") for _ in range(24)))
        assert [one.decision for one in created].count(Decision.CREATE) == 1
        assert [one.decision for one in created].count(Decision.REFUSE) == 23
        rows = await w.queue("one")
        assert [row.execution_id for row in rows] == [(await w.read("one")).execution_id]

    in_world(database_url, test)


def test_a_re_creation_leaves_nothing_of_the_old_execution(database_url):
    async def test(w: World):
        row = await w.created("one")
        timer = NewTimer(row.key, row.execution_id, MessageKind.EVENT, NOW, b"\x1a\x00")
        task = (await w.commit(w.turn(row, timers=(timer,), activities=(w.activity(row),)))).activities[0]
        await w.instances.send(w.message("one"))
        await w.create("one", CreationPolicy(frozenset()))
        loaded = await w.load(fresh=(row.key,), timer_horizon=10 * NOW, timer_limit=9)
        assert [one.kind for one in loaded.claimed] == [MessageKind.START]
        assert (loaded.timers, loaded.fresh[0].history) == ((), ())
        assert await w.committer.activity(row.partition, task.seq, task.token) is None
        assert (await w.commit(w.turn(await_row(row)))).outcomes[0].kind.value == "lost"

    def await_row(row):
        return replace(row, row_version=2)

    in_world(database_url, test)


def test_a_live_sub_orchestration_that_is_replaced_fails_for_its_parent(database_url):
    async def test(w: World):
        parent = await w.created("parent")
        await w.queue("parent")
        child = w.child(parent, "child")
        link = ParentLink("parent", parent.execution_id, 5, "flow", None)
        await w.commit(w.turn(parent, children=(replace(child, row=replace(child.row, parent=link)),)))
        created = await w.create("child", CreationPolicy(frozenset()))
        assert created.woken == {w.key("parent"), w.key("child")}
        told = [row for row in await w.queue("parent") if row.kind is MessageKind.EVENT]
        event = next(iter_events(told[0].events))
        assert event.subOrchestrationInstanceFailed.taskScheduledId == 5

    in_world(database_url, test)


def terminate(w: World, instance_id: str) -> Termination:
    key = w.key(instance_id)
    return Termination(key, "why", NewMessage(key, None, MessageKind.EVENT, b"\x1a\x00"), NOW)


def test_terminating_a_pending_instance_ends_it_at_once_and_tells_its_parent(database_url):
    async def test(w: World):
        parent = await w.created("parent")
        await w.queue("parent")
        child = w.child(parent, "child")
        link = ParentLink("parent", parent.execution_id, 7, "flow", None)
        await w.commit(w.turn(parent, children=(replace(child, row=replace(child.row, parent=link)),)))
        sent = await w.instances.terminate(terminate(w, "child"))
        assert sent.ended == {w.key("child")}
        state = await w.instances.get(w.key("child"), payloads=True)
        assert (state.row.status, state.row.row_version, state.output) == (Status.TERMINATED, 2, "why")
        assert await w.queue("child") == ()
        told = [next(iter_events(row.events)) for row in await w.queue("parent") if row.kind is MessageKind.EVENT]
        assert "terminated" in told[0].subOrchestrationInstanceFailed.failureDetails.errorMessage

    in_world(database_url, test)


def test_terminating_a_scheduled_instance_removes_its_start(database_url):
    async def test(w: World):
        await w.create("one", scheduled_at=2 * NOW)
        await w.instances.terminate(terminate(w, "one"))
        loaded = await w.load(fresh=(w.key("one"),), timer_horizon=10 * NOW, timer_limit=9)
        assert (loaded.timers, loaded.claimed) == ((), ())

    in_world(database_url, test)


def test_terminating_a_started_instance_queues_it_and_an_ended_or_unknown_one_stays(database_url):
    async def test(w: World):
        await w.created("one")
        await set_status(w, "one", Status.RUNNING)
        await w.queue("one")
        assert (await w.instances.terminate(terminate(w, "one"))).woken == {w.key("one")}
        assert (await w.read("one")).status is Status.RUNNING
        await set_status(w, "one", Status.COMPLETED)
        for name in ("one", "nobody"):
            sent = await w.instances.terminate(terminate(w, name))
            assert (sent.woken, sent.ended) == (frozenset(), frozenset())

    in_world(database_url, test)


def test_messages_for_ended_or_unknown_instances_are_dropped(database_url):
    async def test(w: World):
        await w.created("one")
        assert (await w.instances.send(w.message("one"))).woken == {w.key("one")}
        await set_status(w, "one", Status.FAILED)
        for name in ("one", "nobody"):
            assert (await w.instances.send(w.message(name))).woken == frozenset()
        assert await w.queue("one") == ()

    in_world(database_url, test)


def test_pages_neither_skip_nor_repeat_under_inserts(database_url):
    async def test(w: World):
        for number in range(10):
            await w.create(f"b{number}", created_at=NOW + number)
        seen, after = [], None
        while True:
            page = await w.instances.query(InstanceQuery(page_size=3, after=after))
            seen += [state.row.instance_id for state in page.states]
            await w.create(f"a{len(seen)}", created_at=NOW + len(seen) - 2)
            after = page.next
            if after is None or len(seen) > 30:
                break
        assert [name for name in seen if name.startswith("b")] == [f"b{number}" for number in range(10)]
        assert len(seen) == len(set(seen))

    in_world(database_url, test)


def test_hubs_in_one_database_see_nothing_of_each_other(database_url):
    async def test(w: World):
        other = await open_world(database_url, "other")
        await w.created("one")
        assert await other.instances.get(other.key("one"), payloads=False) is None
        assert (await other.instances.query(InstanceQuery())).states == ()
        assert (await other.load(scan=dict.fromkeys(other.epochs, 10))).claimed == ()
        assert (await other.instances.send(other.message("one"))).woken == frozenset()
        await other.store.close()

    in_world(database_url, test)


def test_a_hub_keeps_the_partition_count_that_it_was_created_with(database_url):
    async def test(w: World):
        made = await w.store.open_hub("small", 2)
        assert (await w.store.open_hub("small", 8)) == made
        assert [lease.partition for lease in (await w.store.leases(made).look(w.host)).leases] == [0, 1]

    in_world(database_url, test)


def test_a_lease_is_taken_over_from_the_dead_and_from_nobody_else(database_url):
    async def test(w: World):
        task_row = await w.created("one")
        await w.commit(w.turn(task_row, activities=(w.activity(task_row),)))
        second = replace(w.host, host_id=w.host.host_id + 1)
        await w.leases.register(second, 12)
        assert await w.take(second) == {}
        dead = HostIdentity(w.host.host_id + 2, "dead", w.host.machine, 2**22 + 1, "never")
        await w.leases.release(w.host.host_id)
        await w.leases.register(dead, 12)
        owned = await w.take(dead)
        assert owned == {partition: OwnedPartition(epoch + 2, after_loss=False) for partition, epoch in w.epochs.items()}
        taken = await w.take(second)
        assert taken == {partition: OwnedPartition(found.epoch + 1, after_loss=True) for partition, found in owned.items()}
        w.host, w.epochs = second, {partition: found.epoch for partition, found in taken.items()}
        assert len((await w.load(activities=claim(5), claim_token=9)).activities) == 1

    in_world(database_url, test)
