"""Hosts that join, leave, die and stall share the partitions of a hub, and no instance is lost or run by two (2.6, I2)."""

from __future__ import annotations

import asyncio
from itertools import islice

import pytest

from checker import check_hub
from dispatch.bench import Worker, finish, kinds, only, schedule
from dispatch.hosts import CUT_LEASE, PARTITIONS, Cluster, Player, on_hosts, watch_commits
from durabletask_sql.dispatch import ownership, upkeep
from durabletask_sql.ids import partition_of
from tables import rows


def ids_in(partitions, count=1):
    """Instance ids whose partition is one of these."""
    found = (f"i{number}" for number in range(10_000))
    return list(islice((one for one in found if partition_of(one, PARTITIONS) in partitions), count))


def completed(url):
    return rows(url, "SELECT count(*) FROM instances WHERE status = 1")[0][0]


def test_partitions_are_shared_within_one_of_each_other(database_url):
    async def test(cluster: Cluster):
        first = await cluster.join()
        assert cluster.balanced()
        assert first.partitions == set(range(PARTITIONS))
        second = await cluster.join()
        await cluster.until(cluster.balanced)
        await cluster.join()
        await cluster.until(cluster.balanced)
        await cluster.leave(second)
        await cluster.until(cluster.balanced)
        await cluster.leave(first)
        await cluster.until(cluster.balanced)

    on_hosts(database_url, test)


def test_a_turn_that_is_out_is_waited_for_before_its_partition_moves(database_url, monkeypatch):
    monkeypatch.setattr(ownership, "_LONGEST_DRAIN_SECONDS", 15.0)

    async def test(cluster: Cluster):
        worker, heir = Worker(turn_slots=PARTITIONS), Worker()
        first = await cluster.join(worker)
        await asyncio.gather(*(first.start("flow", ids_in({number})[0]) for number in range(PARTITIONS)))
        out = {item.key.partition: item for item in [await worker.turn() for _ in range(PARTITIONS)]}
        second = await cluster.join(heir)
        await cluster.until(lambda: len(first.dispatcher._memory.draining.partitions) == PARTITIONS // 2)
        at = min(first.dispatcher._memory.draining.partitions)
        await first.start("flow", ids_in({at}, 2)[1])
        await first.answer(out[at], *schedule("step"))
        await cluster.until(lambda: at in second.partitions)
        assert first.partitions == set(range(PARTITIONS)) - {at}  # the turns of the others are still out
        assert (await heir.turn()).key.instance_id == ids_in({at}, 2)[1]  # was not begun where it drained
        assert worker.turns.empty()
        await first.result(await worker.activity())
        await second.answer(await heir.turn(), finish())
        assert await second.status(out[at].key.instance_id) == "COMPLETED"

    on_hosts(database_url, test)


def test_what_is_not_answered_in_time_runs_elsewhere_and_its_answer_changes_nothing(database_url):
    async def test(cluster: Cluster):
        worker, heir = Worker(), Worker()
        first, second = await cluster.join(worker), await cluster.join(heir)
        await cluster.until(cluster.balanced)
        one = ids_in(first.partitions)[0]
        await first.start("flow", one)
        out = await worker.turn()
        leaving = asyncio.create_task(cluster.leave(first))
        again = await heir.turn()
        assert again.key == out.key
        await second.answer(again, *schedule("step"))
        await first.answer(out, finish())
        await leaving
        await second.result(await heir.activity())
        await second.answer(await heir.turn(), finish())
        assert await second.status(one) == "COMPLETED"
        assert check_hub(database_url) == []

    on_hosts(database_url, test)


def test_no_two_hosts_commit_in_one_epoch_while_hosts_come_and_go(database_url, monkeypatch):
    seen = watch_commits(monkeypatch)

    async def test(cluster: Cluster):
        count = 120
        first = await cluster.join(Player())
        await asyncio.gather(*(first.start("flow", f"i{number}") for number in range(count)))
        second = await cluster.join(Player())
        third = await cluster.join(Player())
        await cluster.until(cluster.balanced)
        await cluster.leave(first)
        await asyncio.gather(*(second.start("flow", f"j{number}") for number in range(count)))
        await cluster.join(Player())
        await cluster.kill(second, left=1.0)
        await asyncio.gather(*(third.start("flow", f"k{number}") for number in range(count)))
        await cluster.until(lambda: completed(database_url) == 3 * count)
        await cluster.until(cluster.balanced)

    on_hosts(database_url, test)
    assert check_hub(database_url) == []
    assert {partition for partition, _ in seen} == set(range(PARTITIONS))
    assert all(len(hosts) == 1 for hosts in seen.values())
    assert len({host for hosts in seen.values() for host in hosts}) >= 3


def test_a_dead_hosts_partitions_and_tasks_are_taken_over(database_url):
    async def test(cluster: Cluster):
        worker, heir = Worker(), Worker()
        first = await cluster.join(worker)
        await first.start("flow", "a")
        await first.answer(await worker.turn(), *schedule("step"))
        await worker.activity()
        second = await cluster.join(heir)
        await cluster.kill(first, left=1.0)
        await cluster.until(cluster.balanced)
        await second.result(await heir.activity())
        await second.answer(await heir.turn(), finish())
        assert await second.status("a") == "COMPLETED"
        assert check_hub(database_url) == []

    on_hosts(database_url, test)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another"])
def test_a_host_without_heartbeats_for_a_lease_offers_nothing_and_recovers(database_url, alone):
    async def test(cluster: Cluster):
        worker = Worker()
        first = await cluster.join(worker)
        if not alone:
            await cluster.join()
            await cluster.until(cluster.balanced)
        one, two = ids_in(first.partitions, 2)
        await first.start("flow", one)
        out = await worker.turn()
        first.store.cut = True
        await cluster.until(lambda: not first.partitions)
        await first.answer(out, *schedule("step"))  # answered, and changes nothing
        await first.start("flow", two)
        assert not first.dispatcher._ownership.is_alive
        assert worker.turns.empty()
        first.store.cut = False
        await cluster.until(cluster.balanced)
        if alone:
            assert {(await worker.turn()).key.instance_id for _ in range(2)} == {one, two}
        assert (await first.service.get(one, payloads=False)).row.history_count == 0

    on_hosts(database_url, test, lease=CUT_LEASE)


def test_a_hosts_tasks_run_at_any_host_with_a_worker_for_them(database_url):
    async def test(cluster: Cluster):
        flows = Worker(only(["flow"]))
        steps = [Worker(only([], ["step"]), activity_slots=1) for _ in range(2)]
        first = await cluster.join(flows)
        others = [await cluster.join(worker) for worker in steps]
        await cluster.until(cluster.balanced)
        one = ids_in(first.partitions)[0]
        await first.start("flow", one)
        await first.answer(await flows.turn(), *schedule("step", "step"))
        tasks = [await worker.activity() for worker in steps]  # each claims as much as it has room for
        for member, task in zip(others, tasks, strict=True):
            await member.result(task)
        for _ in range(2):
            turn = await flows.turn()
            await first.answer(turn, *([finish()] if kinds_of(turn).count("taskCompleted") == 2 else []))
            if await first.status(one) == "COMPLETED":
                break
        assert await first.status(one) == "COMPLETED"

    on_hosts(database_url, test)


def kinds_of(turn):
    return [kind for part in (*turn.past, turn.new_events) for kind in kinds(part)]


def test_a_host_without_partitions_runs_activities_and_buries_the_dead(database_url):
    async def test(cluster: Cluster):
        flows, steps, dead = Worker(only(["flow"])), Worker(only([], ["step"])), Worker(only([], ["step"]))
        first = await cluster.join(flows)
        doomed = await cluster.join(dead)
        await first.start("flow", "a")
        owner = next(member for member in (first, doomed) if partition_of("a", 1) in member.partitions)
        assert owner is first
        await first.answer(await flows.turn(), *schedule("step"))
        await dead.activity()
        last = await cluster.join(steps)
        await cluster.kill(doomed, left=1.0)
        await last.result(await steps.activity())
        await first.answer(await flows.turn(), finish())
        assert last.partitions == set()
        assert await first.status("a") == "COMPLETED"

    on_hosts(database_url, test, partitions=1)


def test_a_full_host_gives_back_what_waits_while_others_could_run_it(database_url):
    async def test(cluster: Cluster):
        worker, idle = Worker(activity_slots=1), Worker(only([], ["step"]))
        first = await cluster.join(worker)
        await cluster.join()
        await cluster.until(cluster.balanced)
        one = ids_in(first.partitions)[0]
        await first.start("flow", one)
        await first.answer(await worker.turn(), *schedule(*["step"] * 6))
        await worker.activity()
        await first.upkeep.look()
        await first.upkeep.look()
        second = await cluster.join(idle)
        for _ in range(5):
            await second.result(await idle.activity())

    on_hosts(database_url, test)


def test_tasks_of_other_hosts_are_not_starved_by_new_local_ones(database_url, monkeypatch):
    monkeypatch.setattr(upkeep, "_SECONDS", 3600.0)  # what was taken in beside the one that runs is not given back

    async def test(cluster: Cluster):
        worker, flows = Worker(activity_slots=1), Worker(only(["flow"]))
        first, second = await cluster.join(worker), await cluster.join(flows)
        await cluster.until(cluster.balanced)
        one, two = ids_in(first.partitions, 2)
        await first.start("flow", one)
        await first.answer(await worker.turn(), *schedule("step"))
        busy = await worker.activity()
        await first.upkeep.look()
        away = ids_in(second.partitions)[0]
        await second.start("flow", away)
        await second.answer(await flows.turn(), *schedule("step"))
        await cluster.until(lambda: bool(first.board._activities._waiting))  # taken in beside the one that runs
        await first.start("flow", two)
        await first.answer(await worker.turn(), *schedule(*["step"] * 3))
        await first.result(busy)
        order = []
        for _ in range(4):
            task = await worker.activity()
            order.append(task.row.key.instance_id)
            await first.result(task)
        assert order == [away, two, two, two]

    on_hosts(database_url, test)


def test_a_host_that_stops_leaves_its_partitions_and_waiting_tasks_before_its_activities_end(database_url):
    async def test(cluster: Cluster):
        worker, heir = Worker(activity_slots=1), Worker()
        first, second = await cluster.join(worker), await cluster.join(heir)
        await cluster.until(cluster.balanced)
        one = ids_in(first.partitions)[0]
        await first.start("flow", one)
        await first.answer(await worker.turn(), *schedule("step", "step"))
        long = await worker.activity()
        leaving = asyncio.create_task(cluster.leave(first))
        await second.result(await heir.activity())  # the one that waited
        await second.answer(await heir.turn())
        assert not leaving.done()
        await first.result(long)
        await leaving
        await second.answer(await heir.turn(), finish())
        assert await second.status(one) == "COMPLETED"
        assert check_hub(database_url) == []

    on_hosts(database_url, test)


def test_a_host_that_was_removed_registers_anew_although_that_ends_in_doubt(database_url):
    async def test(cluster: Cluster):
        worker = Worker()
        first = await cluster.join(worker)
        first.store.doubtful = "register"
        await first.store._store.leases(first.runtime.hub).release(first.host_id)
        await cluster.until(lambda: first.store.doubtful is None)
        await cluster.until(cluster.balanced)
        await first.start("flow", "a")
        await first.answer(await worker.turn(), finish())
        assert await first.status("a") == "COMPLETED"

    on_hosts(database_url, test)


@pytest.mark.parametrize("operation", ["ask", "hand_over", "acquire", "raise_epochs", "heartbeat"])
def test_a_move_whose_outcome_nobody_hears_of_comes_to_its_end(database_url, operation):
    async def test(cluster: Cluster):
        players = Player(), Player()
        first = await cluster.join(players[0])
        await asyncio.gather(*(first.start("flow", f"i{number}") for number in range(40)))
        first.store.doubtful = operation
        second = await cluster.join(players[1])
        second.store.doubtful = operation
        await cluster.until(cluster.balanced)
        await cluster.until(lambda: completed(database_url) == 40)
        assert check_hub(database_url) == []

    on_hosts(database_url, test)
