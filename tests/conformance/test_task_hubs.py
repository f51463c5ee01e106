"""Emptying a task hub: all of its rows and no others, in one transaction, whoever writes meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from conformance.world import NOW, World, in_world, open_world, room
from durabletask_sql.model.checkpoints import EntityCheckpoint, Quarantine
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.entities import EntityRow
from durabletask_sql.model.messages import MessageKind, NewTimer
from durabletask_sql.model.status import Status
from durabletask_sql.storage.hubs import EMPTY
from durabletask_sql.storage.tables import metadata

KEPT = {"task_hubs", "partitions", "hosts", "dispatches"}  # the hub itself, who serves it, and what those have out


def test_every_table_with_rows_of_a_hub_is_emptied_or_is_the_hub_itself():
    assert set(EMPTY) | {"instances"} | KEPT == {name for name, table in metadata.tables.items() if "hub_id" in table.c}


async def fill(w: World) -> None:
    """Put a row into every table."""
    for name in ("running", "ended", "aside"):
        row = await w.created(name)
        timer = NewTimer(row.key, row.execution_id, MessageKind.EVENT, NOW, b"\x1a\x00")
        await w.commit(w.turn(row, timers=(timer,), activities=(w.activity(row), w.activity(row, 2))), activity_room=room(1))
        await w.instances.send(w.message(name))
    row = await w.read("ended")
    after = replace(row, row_version=row.row_version + 1, status=Status.COMPLETED, history_count=row.history_count + 1)
    await w.commit(replace(w.turn(row, ended=True, output="out"), row=after))
    rows = await w.queue("aside")
    await w.commit(Quarantine(w.key("aside"), "bad", tuple(one.seq for one in rows)))
    entity = w.key("@counter@one")
    await w.commit(EntityCheckpoint(entity, 0, EntityRow(*entity, 1, "1", NOW, None)))


async def contents(w: World) -> dict[str, set[str]]:
    return {name: await w.names_in(name) for name in ("instances", *EMPTY)}


def test_emptying_a_hub_deletes_all_of_its_rows_and_none_of_another_hub(database_url):
    async def test(w: World):
        other = await open_world(database_url, "other")
        await fill(w)
        await fill(other)
        before = await contents(other)
        assert all(before.values()), before
        await w.store.empty_hub(w.hub)
        assert not any((await contents(w)).values())
        assert await contents(other) == before
        await other.store.close()

    in_world(database_url, test)


def test_emptying_a_hub_fences_its_owner_which_keeps_the_partitions(database_url):
    async def test(w: World):
        row = await w.created("one")
        await w.queue("one")
        await w.store.empty_hub(w.hub)
        committed = await w.commit(w.turn(row))
        assert committed.outcomes[0].kind.value == "lost"
        assert committed.lost_partitions == {row.partition}
        epochs = await w.leases.raise_epochs(w.host.host_id, w.epochs)
        assert epochs == {partition: epoch + 1 for partition, epoch in w.epochs.items()}
        w.epochs = dict(epochs)
        again = await w.created("one")
        assert (again.row_version, again.generation) == (1, 0)
        assert [one.execution_id for one in await w.queue("one")] == [again.execution_id]

    in_world(database_url, test)


def test_an_old_turn_does_not_pass_for_one_of_an_instance_made_afterwards(database_url):
    """Row versions begin again, and the epoch may be the new one by then: what the turn consumed is gone."""
    async def test(w: World):
        row = await w.created("one")
        seq = (await w.queue("one"))[0].seq
        await w.store.empty_hub(w.hub)
        w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, w.epochs))
        again = await w.created("one")
        assert again.row_version == row.row_version
        assert (await w.commit(w.turn(row, consumed=(seq,)))).outcomes[0].kind.value == "lost"
        assert await w.read("one") == again

    in_world(database_url, test)


def test_whatever_is_created_while_a_hub_is_emptied_is_there_whole_or_not_at_all(database_url):
    async def test(w: World):
        names = [f"i{number}" for number in range(150)]

        async def create(name: str) -> None:
            for _ in range(3):
                await w.create(name, CreationPolicy(frozenset()))

        creating = [asyncio.create_task(create(name)) for name in names]
        for _ in range(5):
            await w.store.empty_hub(w.hub)
            await asyncio.sleep(0)
        await asyncio.gather(*creating)
        found = await contents(w)
        assert found["instances"] == found["control_queue"] == found["payloads"]
        w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, w.epochs))
        for name in found["instances"]:
            row = await w.read(name)
            assert [one.execution_id for one in await w.queue(name)] == [row.execution_id]

    in_world(database_url, test)
