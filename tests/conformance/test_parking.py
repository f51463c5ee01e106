"""Parking in the store: which rows leave, that claims take them all the same, and that a lost epoch parks nothing."""

from __future__ import annotations

import psycopg
import pytest

from conformance.plans import plan_of
from conformance.world import NOW, World, in_world
from durabletask_sql.model.messages import MessageKind, NewTimer
from durabletask_sql.model.status import Status
from durabletask_sql.ports.parking import Park, ParkedPlace
from durabletask_sql.storage import parking
from durabletask_sql.storage.dialect import SIZES


def park_of(w: World, *names, timers=(), limit=100, **changes):
    return Park(changes.get("epochs", dict(w.epochs)), changes.get("host_id", w.host.host_id),
                tuple(w.key(name) for name in names), tuple(timers), limit)


async def held(w: World, name, count):
    """An instance with its start row and so many messages, all in memory."""
    await w.create(name)
    for _ in range(count):
        await w.instances.send(w.message(name))
    return await w.queue(name)


async def parked(w: World, name, *, timers=False):
    return [row for row in await w.committer.parked(ParkedPlace(w.key(name).partition, timers), 100)
            if row.key.instance_id == name]


def test_all_rows_of_an_instance_are_parked_held_or_not_and_a_claim_takes_them(database_url):
    async def test(w: World):
        rows = await held(w, "a", 2)
        await w.instances.send(w.message("a"))
        done = await w.committer.park(park_of(w, "a"))
        assert len(done.messages) == 4
        assert {(row.key.partition, row.seq) for row in rows} < done.messages
        assert [row.seq for row in await parked(w, "a")] == sorted(seq for _, seq in done.messages)
        assert (await w.load(scan={w.key("a").partition: 100})).claimed == ()
        assert len(await w.queue("a")) == 4
        assert await parked(w, "a") == []

    in_world(database_url, test)


def test_only_the_oldest_rows_up_to_the_limit_are_parked(database_url):
    async def test(w: World):
        rows = await held(w, "a", 4)
        done = await w.committer.park(park_of(w, "a", limit=2))
        assert sorted(seq for _, seq in done.messages) == [row.seq for row in rows[:2]]
        assert len((await w.committer.park(park_of(w, "a", limit=9))).messages) == 3

    in_world(database_url, test)


def test_parking_is_refused_after_the_partition_was_retaken(database_url):
    async def test(w: World):
        await held(w, "a", 1)
        partition = w.key("a").partition
        for changes in ({"host_id": 7}, {"epochs": {**w.epochs, partition: w.epochs[partition] + 1}}):
            done = await w.committer.park(park_of(w, "a", **changes))
            assert (done.messages, done.lost_partitions) == (frozenset(), frozenset({partition}))
        assert await parked(w, "a") == []

    in_world(database_url, test)


def test_parked_rows_are_read_with_the_name_of_their_instance(database_url):
    async def test(w: World):
        await held(w, "a", 1)
        await w.create("early", scheduled_at=9 * NOW, version="2")
        await w.instances.send(w.message("early"))
        await w.committer.park(park_of(w, "a", "early"))
        assert {(row.name, row.version, row.starts_at) for row in await parked(w, "a")} == {("flow", None, None)}
        assert {(row.name, row.version, row.starts_at) for row in await parked(w, "early")} == {("flow", "2", 9 * NOW)}
        place = ParkedPlace(w.key("a").partition, after=(await parked(w, "a"))[0].seq)
        assert [row.seq for row in await w.committer.parked(place, 1)] == [(await parked(w, "a"))[1].seq]

    in_world(database_url, test)


def test_un_parked_rows_are_nobodys_and_the_scan_finds_them(database_url):
    async def test(w: World):
        await held(w, "a", 2)
        await held(w, "b", 1)
        await w.committer.park(park_of(w, "a", "b"))
        done = await w.committer.unpark([w.key("a")])
        assert len(done.messages) == 3
        assert await parked(w, "a") == []
        assert len(await parked(w, "b")) == 2
        loaded = await w.load(scan={w.key("a").partition: 100})
        assert {row.key.instance_id for row in loaded.claimed} == {"a"}
        assert (await w.committer.unpark([w.key("a")])).messages == frozenset()

    in_world(database_url, test)


def test_timers_are_parked_by_key_and_passed_by_until_they_are_un_parked(database_url):
    async def test(w: World):
        row = await w.created("a")
        timers = tuple(NewTimer(row.key, row.execution_id, MessageKind.EVENT, NOW, b"\x1a\x00") for _ in range(2))
        first, second = (await w.commit(w.turn(row, timers=timers))).timers
        done = await w.committer.park(park_of(w, "a", timers=[(row.partition, first.seq)]))
        assert done.timers == {(row.partition, first.seq)}
        assert [one.seq for one in await parked(w, "a", timers=True)] == [first.seq]
        assert (await w.load(timer_horizon=2 * NOW, timer_limit=9)).timers == ()
        await w.committer.unpark([row.key])
        assert [one.seq for one in (await w.load(timer_horizon=2 * NOW, timer_limit=9)).timers] == [first.seq]
        done = await w.committer.park(park_of(w, "a", timers=[(row.partition, first.seq), (row.partition, second.seq)]))
        place = ParkedPlace(row.partition, timers=True, after_at=NOW, after=first.seq)
        assert [one.seq for one in await w.committer.parked(place, 9)] == [second.seq]

    in_world(database_url, test)


def test_an_instance_that_ends_takes_its_parked_rows_along(database_url):
    async def test(w: World):
        await held(w, "a", 2)
        await w.committer.park(park_of(w, "a"))
        row = await w.read("a")
        await w.commit(w.turn(row, ended=True, output="x"))
        assert await parked(w, "a") == []
        assert (await w.read("a")).status is Status.RUNNING  # as this turn made it

    in_world(database_url, test)


def test_a_row_that_another_session_has_locked_is_left(postgres_url):
    async def test(w: World):
        rows = await held(w, "a", 1)
        with psycopg.connect(postgres_url) as other:
            other.execute("SELECT 1 FROM control_queue WHERE seq = %s FOR UPDATE", (rows[0].seq,))
            done = await w.committer.park(park_of(w, "a"))
            assert done.messages == {(rows[1].key.partition, rows[1].seq)}

    in_world(postgres_url, test)


def test_more_instances_than_a_statement_takes_are_parked(database_url):
    async def test(w: World):
        names = [f"i{number}" for number in range(SIZES[-1] + 5)]
        for name in names:
            await w.create(name)
        await w.load(scan=dict.fromkeys(w.epochs, 1000))
        assert len((await w.committer.park(park_of(w, *names))).messages) == len(names)
        assert len((await w.committer.unpark([w.key(name) for name in names])).messages) == len(names)

    in_world(database_url, test)


@pytest.mark.parametrize(("statement", "rows", "index"), [
    (parking.READ_MESSAGES, (), "ix_control_queue_held"), (parking.READ_TIMERS, (), "ix_timers_due"),
    (parking.PARK_MESSAGES, ((0, "a", 1),), "ix_control_queue_instance"),
    (parking.UNPARK_MESSAGES, ((0, "a"),), "ix_control_queue_instance"),
    (parking.UNPARK_TIMERS, ((0, "a"),), "ix_timers_instance")])
def test_parked_rows_are_found_by_an_index(database_url, statement, rows, index):
    async def test(w: World):
        scalars = {"partition": 0, "after_at": 0, "after": 0, "room": 10, "limit": 10}
        plan = await plan_of(w, statement, rows, **scalars)
        assert index in plan, plan
        assert "SCAN control_queue" not in plan, plan

    in_world(database_url, test)
