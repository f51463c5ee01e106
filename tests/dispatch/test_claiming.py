"""A host claims the activity tasks that its workers take, and leaves the others to others."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dispatch.bench import Worker, on_bench, only, schedule
from durabletask_sql.clock import FakeClock
from durabletask_sql.dispatch import upkeep
from durabletask_sql.dispatch.claiming import ACTIVITY_BATCH, ACTIVITY_BUFFER, buffer_for, claims_for, room_for
from durabletask_sql.dispatch.executors import Seats
from durabletask_sql.dispatch.unserved import WorkClass
from durabletask_sql.model.filters import WorkFilters, name_filter
from durabletask_sql.partitions.suspects import Standing, Suspicion
from durabletask_sql.ports.claims import ActivityClaim
from durabletask_sql.ports.work import Profile, WorkKind
from durabletask_sql.protocol.assembly import HEAD_BYTES

ANY = (1 << 31) - 1


@pytest.fixture(autouse=True)
def slow_upkeep(monkeypatch):
    """Upkeep looks when a test says so."""
    monkeypatch.setattr(upkeep, "_SECONDS", 3600.0)


async def unclaimed(bench):
    return sorted(await bench.runtime.dispatcher._committer.count_unclaimed(1000))


def test_tasks_are_born_claimed_only_when_somebody_takes_them(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"], ["step", ("versioned", ["2"])])))
        await bench.start("flow", "a", version="1")
        await bench.answer(await worker.turn(), *schedule("step", "other", "versioned"))
        await worker.activity()
        assert await unclaimed(bench) == [("other", "1", 1), ("versioned", "1", 1)]

    on_bench(database_url, test)


def test_tasks_go_back_when_their_last_worker_has_been_gone_for_a_while(database_url):
    async def test(bench):
        flows = bench.connect(Worker(only(["flow"])))
        steps = bench.connect(Worker(only([], ["step"]), activity_slots=2))
        await bench.start("flow", "a")
        await bench.answer(await flows.turn(), *schedule("step", "step", "step"))
        first, second = await steps.activity(), await steps.activity()
        bench.board.disconnect(steps)
        await bench.upkeep.look()
        assert await unclaimed(bench) == []
        await bench.result(first)  # it goes on for a while after its stream has ended, and what it finishes counts
        await flows.turn()
        await bench.upkeep.look()
        assert await unclaimed(bench) == [("step", "", 2)]
        await bench.result(second)  # too late: somebody else may have it by now
        heir = bench.connect(Worker(only([], ["step"])))
        assert {(await heir.activity()).row.task_id for _ in range(2)} == {1, 2}

    on_bench(database_url, test)


def test_a_worker_that_comes_back_soon_finds_its_tasks_claimed(database_url):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"], ["step"])))
        await bench.start("flow", "a")
        await bench.answer(await worker.turn(), *schedule("step"))
        token = (await worker.activity()).row.token
        bench.board.disconnect(worker)
        await bench.upkeep.look()
        again = bench.connect(Worker(only(["flow"], ["step"])))
        await bench.upkeep.look()
        assert (await again.activity()).row.token == token

    on_bench(database_url, test)


def test_what_nobody_takes_is_told_once_a_minute_and_counted(database_url, caplog):
    async def test(bench):
        worker = bench.connect(Worker(only(["flow"], ["step"])))
        await bench.start("flow", "a")
        await bench.start("unknown", "b", version="7")
        await bench.start("unknown", "c", version="7")
        await bench.answer(await worker.turn(), *schedule("other"))
        known = bench.upkeep.unserved
        expected = {WorkClass(WorkKind.ORCHESTRATION, "unknown", "7"): 2, WorkClass(WorkKind.ACTIVITY, "other", ""): 1}
        async with asyncio.timeout(10):
            while known.waiting != expected:
                bench.clock.moved += 61
                await bench.upkeep.look()
        caplog.clear()
        for moved in (61, 1, 1, 61):
            bench.clock.moved += moved
            await bench.upkeep.look()
        said = sorted(record.getMessage() for record in caplog.records)
        assert len(said) == 4
        assert said[0].startswith("activity 'other': at least 1 wait")
        assert said[2].startswith("orchestration 'unknown' version '7': at least 2 wait")
        bench.connect(Worker())
        caplog.clear()
        bench.clock.moved += 61
        await bench.upkeep.look()
        assert known.waiting == {}
        assert not caplog.records

    with caplog.at_level(logging.WARNING, "durabletask_sql"):
        on_bench(database_url, test)


def seats_of(*profiles, slots=10):
    seats = Seats(WorkKind.ACTIVITY, Suspicion(FakeClock()))
    for number, profile in enumerate(profiles):
        seats.add(Worker(profile, name=str(number)), slots, Standing("kind"))
    return seats


STEPS = Profile(WorkFilters(activities=name_filter([("step", []), ("other", ["1", "2"])])), message_bytes=100_000)


def test_room_is_by_lane_so_that_a_full_one_does_not_keep_tasks_from_another():
    seats = seats_of(Profile(WorkFilters(activities=name_filter([("a", []), ("b", [])]))),
                     Profile(WorkFilters(activities=name_filter([("c", [])]))))
    room = room_for(seats, {seats.takers("a", ""): ACTIVITY_BUFFER + 10}, [("a", ""), ("b", ""), ("c", ""), ("d", "")])
    assert room.lanes == {("a", ""): 0, ("b", ""): 0, ("c", ""): 1}
    assert room.rooms == (0, ACTIVITY_BUFFER + 10)


def test_a_profile_claims_its_names_and_sizes_when_it_has_run_low():
    size = STEPS.message_bytes - HEAD_BYTES
    seats = seats_of(STEPS)
    assert set(claims_for(seats, {})) == {
        ActivityClaim(ACTIVITY_BATCH, size, "step"), ActivityClaim(ACTIVITY_BATCH, size, "other", "1"),
        ActivityClaim(ACTIVITY_BATCH, size, "other", "2")}
    assert claims_for(seats, {seats.takers("step", ""): 10}) != ()
    assert claims_for(seats, {seats.takers("step", ""): 11}) == ()
    assert claims_for(seats_of(), {}) == ()


def test_a_worker_without_filters_claims_anything_and_the_larger_limit_counts():
    unlimited = Profile(STEPS.filters)
    assert claims_for(seats_of(Profile()), {}) == (ActivityClaim(ACTIVITY_BATCH, ANY),)
    assert {claim.event_bytes for claim in claims_for(seats_of(STEPS, unlimited), {})} == {ANY}


def test_beside_other_hosts_no_more_is_kept_ready_than_ran_lately():
    assert buffer_for(0, peers=0) == buffer_for(10_000, peers=2) == ACTIVITY_BUFFER
    assert [buffer_for(ran, peers=1) for ran in (0, 7, 199)] == [0, 7, 199]


def test_without_a_buffer_exactly_the_free_slots_are_claimed():
    seats = Seats(WorkKind.ACTIVITY, Suspicion(FakeClock()))
    worker = Worker(only([], ["step"]), activity_slots=3)
    seats.add(worker, 3, Standing(worker.profile))
    takers = seats.takers("step", None)
    assert [claim.room for claim in claims_for(seats, {takers: 1}, 0)] == [2]
    assert claims_for(seats, {takers: 3}, 0) == ()
    assert room_for(seats, {takers: 1}, [("step", None)], 0).rooms == (2,)
