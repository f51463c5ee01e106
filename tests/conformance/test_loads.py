"""What a load finds, and how much of it enters memory. Every store has to pass."""

from __future__ import annotations

import itertools

import pytest

from conformance.world import World, in_world


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
