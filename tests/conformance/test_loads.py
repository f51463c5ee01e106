"""What a load finds, and how much of it enters memory. Every store has to pass."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from conformance.world import World, in_world
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.partitions.shares import FEW


def neighbours(w: World, instance_id: str):
    """Yield ids of other instances of the same partition."""
    partition = w.key(instance_id).partition
    return (one for one in (f"other-{number}" for number in itertools.count()) if w.key(one).partition == partition)


@pytest.mark.parametrize("others", [0, 2_000], ids=["one full instance", "thousands"])
def test_a_scan_finds_what_is_behind_the_rows_of_instances_at_their_share(database_url, others):
    async def test(w: World):
        await w.created("full")
        for _ in range(6):
            await w.instances.send(w.message("full"))
        key = w.key("full")
        assert (await w.load(fresh=(key,), share=2)).ceilings[key] is not None
        names = neighbours(w, "full")
        late = w.key(next(names))
        await w.created(late.instance_id)
        full = frozenset({key, *(w.key(name) for name in itertools.islice(names, others))})
        found = await w.load(scan={key.partition: 3}, full=full)
        assert {row.key for row in found.claimed} == {late}
        assert not found.scan_full

    in_world(database_url, test)


def test_a_scan_that_met_its_limit_beside_full_instances_says_so(database_url):
    async def test(w: World):
        await w.created("full")
        names = list(itertools.islice(neighbours(w, "full"), 3))
        for name in names:
            await w.created(name)
        key = w.key("full")
        found = await w.load(scan={key.partition: 2}, full=frozenset({key}))
        assert {row.key.instance_id for row in found.claimed} == set(names[:2])
        assert found.scan_full == {key.partition}
        rest = await w.load(scan={key.partition: 2}, full=frozenset({key}))
        assert {row.key.instance_id for row in rest.claimed} == {names[2]}
        assert not rest.scan_full

    in_world(database_url, test)


async def sent(w: World, instance_id: str, count: int) -> None:
    """An instance that is in nobody's memory, with so many messages behind its start."""
    await w.created(instance_id)
    for number in range(count):
        await w.instances.send(w.message(instance_id, b"\x1a\x02\x08%c" % number))


def test_a_claim_brings_what_the_share_leaves_oldest_first_and_the_start_on_top(database_url):
    async def test(w: World):
        await sent(w, "one", 6)
        key = w.key("one")
        first = await w.load(fresh=(key,), share=4, left={key: 0})
        assert [row.kind for row in first.claimed] == [MessageKind.START]
        second = await w.load(claims=(key,), share=4, left={key: 2})
        assert [row.events[-1] for row in second.claimed] == [0, 1]
        assert second.ceilings[key] is not None
        third = await w.load(claims=(key,), share=4, left={key: 3})
        assert [row.events[-1] for row in third.claimed] == [2, 3, 4]
        rest = await w.load(claims=(key,), share=4)
        assert [row.events[-1] for row in rest.claimed] == [5]
        assert rest.ceilings == {key: None}

    in_world(database_url, test)


def test_what_a_scan_finds_shares_the_room_of_its_partition(database_url):
    async def test(w: World):
        partition = w.key("other-0").partition
        names = ["other-0", *itertools.islice(neighbours(w, "other-0"), 1, 3)]
        for name in names:
            await sent(w, name, 20)
        found = await w.load(scan={partition: 50}, free={partition: 36})
        counts = Counter(row.key.instance_id for row in found.claimed if row.kind is MessageKind.EVENT)
        assert set(counts) == set(names)
        assert max(counts.values()) <= 12
        few = await w.load(claims=(w.key(names[0]),), free={partition: 0})
        assert 0 < len(few.claimed) <= FEW

    in_world(database_url, test)
