"""The lease statements: who may take, ask, hand over and claim, on both databases (2.6, I2, I5)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from conformance.world import World, claim, in_world, judged, open_world, room
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.errors import PartitionLostError
from durabletask_sql.ports.leases import NOBODY, HostIdentity, Lease, OwnedPartition
from tables import rows


async def second_host(w: World, lease: float = 12, **changes) -> HostIdentity:
    """Register another host of this process."""
    made = replace(w.host, **{"host_id": w.host.host_id + 1, **changes})
    await w.leases.register(made, lease)
    return made


async def lease_of(w: World, partition: int = 0) -> Lease:
    return (await w.leases.look(w.host)).leases[partition]


def test_a_look_tells_who_lives_who_is_dead_and_who_is_gone(database_url):
    async def test(w: World):
        late = await second_host(w, -1)
        gone = await second_host(w, host_id=w.host.host_id + 2, pid=2**22 + 1, started_at="never")
        elsewhere = await second_host(w, host_id=w.host.host_id + 3, machine="other", pid=2**22 + 1, started_at="never")
        view = await w.leases.look(w.host)
        assert 0 <= view.now - view.hosts[w.host.host_id].at < 10_000_000
        assert {host for host, beat in view.hosts.items() if beat.gone} == {gone.host_id}
        found = judged(w.host, view)
        assert set(found.live) == {w.host.host_id, elsewhere.host_id}
        left = view.hosts[elsewhere.host_id].expires_at - view.now
        assert 0 < left <= 12 * MICROSECONDS
        assert found.live[elsewhere.host_id] == left / MICROSECONDS
        assert found.dead == {dead.host_id: view.hosts[dead.host_id].at for dead in (late, gone)}
        assert [lease.owner for lease in view.leases] == [w.host.host_id] * w.hub.partition_count

    in_world(database_url, test)


def test_a_partition_of_a_host_that_lives_is_not_taken_whatever_was_seen(database_url):
    async def test(w: World):
        second = await second_host(w)
        view = await w.leases.look(second)
        assert await w.leases.acquire(second, view.leases, {}) == {}
        await w.leases.heartbeat(w.host.host_id, 12)  # its row is still there

    in_world(database_url, test)


@pytest.mark.parametrize("lease", [12, -1], ids=["silent", "run out"])
def test_what_was_seen_dead_and_has_renewed_its_lease_since_is_not_taken(database_url, lease):
    """Nor is anything else of it: not its row, its tasks or its marks."""
    async def test(w: World):
        row = await w.created("one")
        await w.commit(w.turn(row, activities=(w.activity(row),)), activity_room=room(1))
        second = await second_host(w)
        await w.leases.heartbeat(w.host.host_id, lease)
        view = await w.leases.look(second)
        dead = {w.host.host_id: view.hosts[w.host.host_id].at}
        await w.leases.heartbeat(w.host.host_id, lease)
        assert await w.leases.acquire(second, view.leases, dead) == {}
        await w.leases.heartbeat(w.host.host_id, 12)
        assert rows(w.url, "SELECT count(*) FROM activity_queue WHERE host = 0") == [(0,)]

    in_world(database_url, test)


def test_what_was_seen_dead_and_has_stood_still_since_is_taken_whatever_the_databases_clock_says(database_url):
    async def test(w: World):
        row = await w.created("one")
        await w.commit(w.turn(row, activities=(w.activity(row),)), activity_room=room(1))
        second = await second_host(w)
        await w.leases.heartbeat(w.host.host_id, 3600)
        view = await w.leases.look(second)
        taken = await w.leases.acquire(second, view.leases, {w.host.host_id: view.hosts[w.host.host_id].at})
        assert taken == {at: OwnedPartition(epoch + 1, after_loss=True) for at, epoch in w.epochs.items()}
        with pytest.raises(PartitionLostError):
            await w.leases.heartbeat(w.host.host_id, 12)
        assert [outcome.kind.value for outcome in (await w.commit(w.turn(row))).outcomes] == ["lost"]
        assert rows(w.url, "SELECT count(*) FROM activity_queue WHERE host = 0") == [(1,)]

    in_world(database_url, test)


def test_a_host_that_was_taken_over_is_removed_only_when_it_owns_nothing_more(database_url):
    async def test(w: World):
        second = await second_host(w)
        await w.leases.heartbeat(w.host.host_id, -1)
        view = await w.leases.look(second)
        taken = await w.leases.acquire(second, view.leases[:1], judged(second, view).dead)
        assert taken == {0: OwnedPartition(w.epochs[0] + 1, after_loss=True)}
        await w.leases.heartbeat(w.host.host_id, 12)  # it comes back, and still has the others
        assert (await w.leases.look(second)).leases[1].owner == w.host.host_id
        await w.leases.heartbeat(w.host.host_id, -1)
        view = await w.leases.look(second)
        await w.leases.acquire(second, view.leases[1:], judged(second, view).dead)
        with pytest.raises(PartitionLostError):
            await w.leases.heartbeat(w.host.host_id, 12)

    in_world(database_url, test)


def test_the_first_who_asks_is_promised_the_partition(database_url):
    async def test(w: World):
        second = await second_host(w)
        third = await second_host(w, host_id=w.host.host_id + 2)
        seen = await lease_of(w)
        await w.leases.ask(second.host_id, [seen])
        await w.leases.ask(third.host_id, [seen])
        assert await lease_of(w) == replace(seen, next_owner=second.host_id)

    in_world(database_url, test)


def test_a_partition_that_was_handed_over_goes_to_its_heir_under_a_new_epoch_and_is_no_loss(database_url):
    async def test(w: World):
        second = await second_host(w)
        row = await w.created("one")
        at = row.partition
        await w.leases.hand_over(w.host.host_id, {at: w.epochs[at]}, {at: second.host_id})
        released = await lease_of(w, at)
        assert released == Lease(at, NOBODY, w.epochs[at] + 1, second.host_id)
        assert [outcome.kind.value for outcome in (await w.commit(w.turn(row))).outcomes] == ["lost"]
        taken = await w.leases.acquire(second, [released], {})
        assert taken == {at: OwnedPartition(w.epochs[at] + 2, after_loss=False)}
        assert await lease_of(w, at) == Lease(at, second.host_id, w.epochs[at] + 2)

    in_world(database_url, test)


def test_only_what_is_still_ours_is_handed_over(database_url):
    async def test(w: World):
        raised = await w.leases.raise_epochs(w.host.host_id, {0: w.epochs[0]})
        await w.leases.hand_over(w.host.host_id, {0: w.epochs[0], 1: w.epochs[1]}, {0: 5, 1: 5})
        assert await lease_of(w) == Lease(0, w.host.host_id, raised[0])
        assert (await lease_of(w, 1)).owner == NOBODY

    in_world(database_url, test)


def test_a_host_whose_row_is_gone_claims_no_task(database_url):
    async def test(w: World):
        row = await w.created("one")
        await w.commit(w.turn(row, activities=(w.activity(row),)), activity_room=room(0))
        removed = w.host
        await w.leases.release(removed.host_id)
        w.epochs = {}
        assert (await w.load(activities=claim(5), claim_token=9)).activities == ()
        w.host = await second_host(w)
        assert len((await w.load(activities=claim(5), claim_token=9)).activities) == 1

    in_world(database_url, test)


def test_the_tasks_of_a_dead_host_are_released_by_one_that_takes_nothing(database_url):
    async def test(w: World):
        row = await w.created("one")
        await w.commit(w.turn(row, activities=(w.activity(row),)), activity_room=room(0))
        doomed = await second_host(w)
        owner, epochs = w.host, w.epochs
        w.host, w.epochs = doomed, {}
        assert len((await w.load(activities=claim(5), claim_token=9)).activities) == 1
        await w.leases.heartbeat(doomed.host_id, -1)
        view = await w.leases.look(owner)
        assert await w.leases.acquire(owner, [], judged(owner, view).dead) == {}
        w.host, w.epochs = owner, epochs
        assert len((await w.load(activities=claim(5), claim_token=10)).activities) == 1

    in_world(database_url, test)


def test_ten_hosts_that_each_claim_one_of_ten_tasks_at_once_get_ten(database_url):
    async def test(w: World):
        row = await w.created("one")
        await w.commit(w.turn(row, activities=tuple(w.activity(row, number) for number in range(10))),
                       activity_room=room(0))
        others = [await open_world(w.url) for _ in range(10)]
        try:
            for number, other in enumerate(others):
                other.host = await second_host(other, host_id=w.host.host_id + 1 + number)
                other.epochs = {}
            found = await asyncio.gather(*(other.load(activities=claim(1, "act" if number % 2 else None), claim_token=number + 1)
                                           for number, other in enumerate(others)))
        finally:
            for other in others:
                await other.store.close()
        assert [len(loaded.activities) for loaded in found] == [1] * 10
        assert len({loaded.activities[0].seq for loaded in found}) == 10

    in_world(database_url, test)


def test_each_owner_finds_its_ready_instance_while_all_look_at_once(database_url):
    async def test(w: World):
        ids = {}
        for number in range(1000):
            ids.setdefault(w.key(f"i{number}").partition, f"i{number}")
        for instance_id in ids.values():
            await w.create(instance_id)
        others = [await open_world(w.url) for _ in ids]
        try:
            for at, other in enumerate(others):
                other.host = await second_host(other, host_id=w.host.host_id + 1 + at)
                await w.leases.hand_over(w.host.host_id, {at: w.epochs[at]}, {at: other.host.host_id})
                taken = await other.take(other.host)
                other.epochs = {at: taken[at].epoch}
            found = await asyncio.gather(*(other.load(scan={at: 10}) for at, other in enumerate(others)))
        finally:
            for other in others:
                await other.store.close()
        assert [[fresh.key.instance_id for fresh in loaded.fresh] for loaded in found] == [[ids[at]] for at in sorted(ids)]

    in_world(database_url, test)


def test_two_hosts_that_take_the_same_at_once_share_it_out_and_nothing_twice(database_url):
    async def test(w: World):
        other = await open_world(w.url)
        try:
            second = await second_host(w)
            await w.leases.release(w.host.host_id)
            await w.leases.register(w.host, 12)
            view = await w.leases.look(w.host)
            taken = await asyncio.gather(w.leases.acquire(w.host, view.leases, {}),
                                         other.leases.acquire(second, view.leases, {}))
        finally:
            await other.store.close()
        assert sorted((*taken[0], *taken[1])) == sorted(w.epochs)
        owners = dict(rows(w.url, "SELECT partition, owner FROM partitions"))
        assert all(owners[partition] == host.host_id
                   for host, found in zip((w.host, second), taken, strict=True) for partition in found)

    in_world(database_url, test)
