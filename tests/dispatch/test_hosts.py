"""Hosts that join, leave, die and stall share the partitions of a hub, and no instance is lost or run by two (2.6, I2)."""

from __future__ import annotations

import asyncio
from itertools import islice

import pytest

from checker import check_hub
from dispatch.bench import Worker, finish, schedule
from dispatch.hosts import LEASE, PARTITIONS, Cluster, Player, on_hosts, watch_commits
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
        await cluster.until(cluster.balanced, 10)
        await cluster.join()
        await cluster.until(cluster.balanced, 10)
        await cluster.leave(second)
        await cluster.until(cluster.balanced, 2)
        await cluster.leave(first)
        await cluster.until(cluster.balanced, 2)

    on_hosts(database_url, test)


def test_a_turn_that_is_out_is_waited_for_before_its_partition_moves(database_url):
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

    on_hosts(database_url, test, lease=12.0)


def test_what_is_not_answered_in_time_runs_elsewhere_and_its_answer_changes_nothing(database_url):
    async def test(cluster: Cluster):
        worker, heir = Worker(), Worker()
        first, second = await cluster.join(worker), await cluster.join(heir)
        await cluster.until(cluster.balanced, 10)
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
        await cluster.until(cluster.balanced, 10)
        await cluster.leave(first)
        await asyncio.gather(*(second.start("flow", f"j{number}") for number in range(count)))
        await cluster.join(Player())
        await cluster.kill(second)
        await asyncio.gather(*(third.start("flow", f"k{number}") for number in range(count)))
        await cluster.until(lambda: completed(database_url) == 3 * count, 30)
        await cluster.until(cluster.balanced, 10)

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
        await cluster.kill(first)
        await cluster.until(cluster.balanced, LEASE + 2)
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
            await cluster.until(cluster.balanced, 10)
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
        await cluster.until(cluster.balanced, 10)
        if alone:
            assert {(await worker.turn()).key.instance_id for _ in range(2)} == {one, two}
        assert (await first.service.get(one, payloads=False)).row.history_count == 0

    on_hosts(database_url, test)
