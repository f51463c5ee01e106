"""A host whose lease ran out while another went on with its work: whatever its workers still answer changes nothing."""

from __future__ import annotations

import pytest

from checker import check_hub
from dispatch.bench import Worker, finish, kinds, schedule
from dispatch.entity_acts import operations, signal, state
from dispatch.hosts import CUT_LEASE, Cluster, on_hosts
from semantics.acts import again
from tables import rows

TABLES = ("instances", "history", "payloads", "control_queue", "activity_queue", "timers", "entities", "quarantine")


def stored(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Everything that the work consists of."""
    return {table: sorted(rows(url, f"SELECT * FROM {table}"), key=repr) for table in TABLES}


def stale(first, turn, task, batch, late):
    """What the first host's workers do with what they have: they complete it, or give it back."""
    if late == "completes":
        return [lambda: first.answer(turn, again("stale")), lambda: first.result(task, "stale"),
                lambda: first.ran(batch, state="stale")]
    return [lambda: first.board.abandon_turn(turn.token), lambda: first.board.abandon_activity(task.token),
            lambda: first.board.abandon_entity(batch.token)]


@pytest.mark.parametrize("late", ["completes", "abandons"])
def test_a_turn_a_task_and_a_batch_that_another_host_has_completed_stay_as_it_left_them(database_url, late):
    """The turn continues as new, and so has no history that a second one could clash with."""
    async def test(cluster: Cluster):
        worker, heir = Worker(), Worker()
        first = await cluster.join(worker)
        await cluster.until(cluster.balanced)
        await first.start("flow", "one")
        turn = await worker.turn()
        await first.start("flow", "two")
        await first.answer(await worker.turn(), *schedule("step"))
        task = await worker.activity()
        await signal(first, "@counter@a")
        batch = await worker.batch()
        first.store.cut = True
        await cluster.until(lambda: not first.partitions)
        second = await cluster.join(heir)
        found = await heir.turn()
        assert found.key == turn.key
        await second.answer(found, again("new"))
        following = await heir.turn()
        assert (following.key, following.execution_id != turn.execution_id) == (turn.key, True)
        await second.result(await heir.activity())
        told = await heir.turn()
        assert kinds(told.new_events)[-1] == "taskCompleted"
        found = await heir.batch()
        assert operations(found) == ["add"]
        await second.ran(found, state="new")
        before = stored(database_url)
        for act in stale(first, turn, task, batch, late):
            await act()
        if late == "completes":  # a token of an activity is good at any host, as long as its claim is
            await second.result(task, "stale")
        assert stored(database_url) == before
        await second.answer(following, finish())
        await second.answer(told, finish())
        first.store.cut = False  # it renews its lease and gets its share, but nothing of this comes back
        await cluster.until(cluster.balanced)
        assert [await first.status(name) for name in ("one", "two")] == ["COMPLETED", "COMPLETED"]
        assert await state(first, "@counter@a") == "new"
        assert (worker.turns.empty(), worker.activities.empty(), worker.batches.empty()) == (True, True, True)
        assert check_hub(database_url) == []

    on_hosts(database_url, test, lease=CUT_LEASE)
