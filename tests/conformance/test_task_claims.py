"""Activity tasks are claimed by the names that somebody takes, and only those."""

from __future__ import annotations

import pytest

from conformance.plans import plan_of
from conformance.world import World, claim, in_world
from durabletask_sql.model.messages import NewActivity
from durabletask_sql.ports.claims import ActivityClaim, ActivityRoom
from durabletask_sql.storage import task_claims


def tasks(row, *named):
    """Activities in order of task id: each (name, folded version) or (name, version, size)."""
    return tuple(NewActivity(row.key, row.execution_id, number, one[0], one[1], b"e" * (one[2] if len(one) > 2 else 5))
                 for number, one in enumerate(named))


async def queued(w: World, *named):
    """Write tasks that nobody claims."""
    await w.commit(w.turn(await w.created("a"), activities=tasks(await w.read("a"), *named)),
                   activity_room=ActivityRoom())


async def ids(w: World, *claims, token=5):
    loaded = await w.load(activities=claims, claim_token=token)
    return [task.task_id for task in loaded.activities]


def test_new_tasks_are_born_claimed_by_lane_as_far_as_there_is_room(database_url):
    async def test(w: World):
        row = await w.created("a")
        made = tasks(row, ("x", "1"), ("y", ""), ("x", "2"), ("z", "1"), ("y", ""), ("x", "1"))
        room = ActivityRoom({("x", "1"): 0, ("x", "2"): 0, ("y", ""): 1}, (2, 1))
        committed = await w.commit(w.turn(row, activities=made), activity_room=room)
        assert [task.task_id for task in committed.activities] == [0, 1, 2]
        assert committed.unclaimed_activities
        assert await ids(w, *claim(9)) == [3, 4, 5]

    in_world(database_url, test)


def test_tasks_are_claimed_by_name_and_version_oldest_first(database_url):
    async def test(w: World):
        await queued(w, ("x", "1"), ("y", ""), ("x", "2"), ("z", "1"), ("x", "1"), ("x", ""))
        assert await ids(w, *claim(9, "nobody"), *claim(9, "x", "3")) == []
        assert await ids(w, *claim(9, "x", "1")) == [0, 4]
        assert await ids(w, *claim(1, "x")) == [2]
        assert await ids(w, *claim(9, "z", "1"), *claim(9, "x")) == [3, 5]
        assert await ids(w, *claim(9)) == [1]

    in_world(database_url, test)


def test_names_share_the_room_of_their_claim(database_url):
    async def test(w: World):
        await queued(w, *[("x", ""), ("y", "")] * 10)
        claims = [*claim(10, "x"), *claim(10, "y"), *(ActivityClaim(10, 1000, f"unused-{n}") for n in range(700))]
        loaded = await w.load(activities=tuple(claims), claim_token=5)
        assert len(loaded.activities) == 10
        assert {task.name for task in loaded.activities} == {"x", "y"}
        assert loaded.activities_full

    in_world(database_url, test)


def test_a_task_larger_than_the_claim_takes_is_left(database_url):
    async def test(w: World):
        await queued(w, ("x", "", 500), ("x", "", 100), ("x", "", 101))
        assert await ids(w, *claim(9, "x", size=100)) == [1]
        assert await ids(w, *claim(9, size=101)) == [2]
        assert await ids(w, *claim(9, "x")) == [0]

    in_world(database_url, test)


def test_tasks_that_are_given_back_are_there_for_others_and_a_lost_claim_is_passed_over(database_url):
    async def test(w: World):
        await queued(w, ("x", ""), ("x", ""), ("x", ""))
        loaded = await w.load(activities=claim(2), claim_token=5)
        await w.committer.give_back(w.host.host_id + 1, loaded.activities)
        assert await ids(w, *claim(2), token=6) == [2]
        await w.committer.give_back(w.host.host_id, loaded.activities[:1])
        again = await w.load(activities=claim(9), claim_token=7)
        assert [task.task_id for task in again.activities] == [0]
        await w.committer.give_back(w.host.host_id, loaded.activities)  # the first of them is under another claim now
        assert await ids(w, *claim(9), token=8) == [1]

    in_world(database_url, test)


def test_unclaimed_tasks_are_counted_by_name_and_version(database_url):
    async def test(w: World):
        await queued(w, ("x", "1"), ("y", ""), ("x", "1"), ("x", "2"), ("late", ""))
        assert sorted(await w.committer.count_unclaimed(4)) == [("x", "1", 2), ("x", "2", 1), ("y", "", 1)]
        await w.load(activities=claim(9, "x"), claim_token=5)
        assert sorted(await w.committer.count_unclaimed(10)) == [("late", "", 1), ("y", "", 1)]

    in_world(database_url, test)


@pytest.mark.parametrize(("named", "index"), [
    ({}, "ix_activity_queue_unclaimed"), ({"name": "x"}, "ix_activity_queue_name"),
    ({"name": "x", "version": "1"}, "ix_activity_queue_version")])
def test_a_backlog_that_is_not_claimed_is_not_read(database_url, named, index):
    statement = {0: task_claims.CLAIM_ANY, 1: task_claims.CLAIM_NAME, 2: task_claims.CLAIM_VERSION}[len(named)]

    async def test(w: World):
        await queued(w, *[("other", "1")] * 2000, ("x", "1"))
        plan = await plan_of(w, statement, room=10, bytes=100, owner=7, claim=1, **named)
        assert index in plan, plan
        assert "Sort" not in plan, plan

    in_world(database_url, test)
