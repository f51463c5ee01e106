"""A connection that is lost at any statement of a group, a load, a change of ownership or a client's write, and around
COMMIT (I2): what was under way took effect whole or not at all, and done again it takes effect once.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.world import NOW, World, in_world
from durabletask_sql.errors import OutcomeUnknownError, UnavailableError
from durabletask_sql.model.checkpoints import ActivityCompletion, EntityCheckpoint, Item, OutcomeKind
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.entities import EntityRow
from durabletask_sql.model.messages import MessageKind, NewTimer
from durabletask_sql.model.status import Status
from durabletask_sql.ports.instances import Termination
from faults.cutting import Cutter
from tables import rows

TABLES = ("instances", "history", "control_queue", "timers", "activity_queue", "payloads", "entities", "quarantine")
AFTER = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])

Counts = tuple[int, ...]


def counts(url: str) -> Counts:
    """How many rows each table has, and how many messages are held."""
    selects = [f"SELECT {number}, count(*) FROM {table}" for number, table in enumerate(TABLES)]
    return tuple(count for _, count in sorted(rows(url, " UNION ALL ".join(selects))))


def grown(before: Counts, after: Counts) -> Counts:
    return tuple(new - old for old, new in zip(before, after, strict=True))


async def items(w: World, name: str, *, with_entity: bool) -> tuple[Item, ...]:
    """A group that writes to every table: a turn with everything that a turn can do, an end, a result, an entity."""
    work, end = await w.created(f"{name}-work"), await w.created(f"{name}-end")
    first = (await w.commit(w.turn(work, activities=(w.activity(work),)))).activities[0]
    work = await w.read(work.instance_id)
    timer = NewTimer(work.key, work.execution_id, MessageKind.EVENT, 5 * NOW, b"\x1a\x00")
    (start,) = await w.queue(end.instance_id)
    ended = replace(end, row_version=end.row_version + 1, status=Status.COMPLETED, completed_at=NOW, history_count=1)
    found: tuple[Item, ...] = (
        w.turn(work, activities=(w.activity(work, 2),), messages=(w.message(work.instance_id),), timers=(timer,),
               children=(w.child(work, f"{name}-child"),)),
        replace(w.turn(end, consumed=(start.seq,), ended=True, output="done"), row=ended),
        ActivityCompletion(first.key, first.seq, first.token, w.message(work.instance_id)),
    )
    key = w.key(f"@counter@{name}")
    entity = EntityCheckpoint(key, 0, EntityRow(*key, 1, "1", NOW))
    return (*found, entity) if with_entity else found


async def recover(w: World) -> None:
    w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, w.epochs))


async def cut_everywhere(url: str, cutter: Cutter, prepare: Callable[[str], Awaitable[Any]],
                         work: Callable[[Any], Awaitable[object]], again: Callable[[Any], Awaitable[object]]) -> list[str]:
    """Do some work with a cut at its first step, its second, and so on, and then once more; return where it was cut.

    `work` may fail; `again` follows it and must not. What both together did is what the work does without a cut.
    """
    async def once(name: str, at: int) -> Counts:
        prepared = await prepare(name)
        before = counts(url)
        cutter.arm(at)
        partly = None
        try:
            await work(prepared)
        except (OutcomeUnknownError, UnavailableError):
            partly = grown(before, counts(url))
        cutter.disarm()
        if partly is not None:
            assert partly in ((0,) * len(TABLES), whole), (cutter.struck, partly)
            await again(prepared)
        return grown(before, counts(url))

    whole: Counts = ()
    whole = await once("whole", 0)
    struck = []
    for at in itertools.count(1):
        assert await once(f"cut-{at}", at) == whole, cutter.struck
        if not cutter.struck:
            return struck
        struck.append(cutter.struck)
    raise AssertionError


@AFTER
@pytest.mark.parametrize("with_entity", [False, True], ids=["trusting", "reading"])
def test_a_group_takes_effect_whole_or_not_at_all(database_url, with_entity, after):
    async def test(w: World):
        cutter = Cutter(w.store._database.committer, after=after)

        async def again(group: tuple[Item, ...]) -> None:
            await recover(w)
            kinds = {outcome.kind for outcome in (await w.commit(*group)).outcomes}
            assert kinds in ({OutcomeKind.COMMITTED}, {OutcomeKind.LOST})

        struck = await cut_everywhere(database_url, cutter, lambda name: items(w, name, with_entity=with_entity),
                                      lambda group: w.commit(*group), again)
        assert len(struck) > 10
        assert struck.count("commit") == 1
        assert {"send instances", "send control_queue", "send history", "send timers", "send activity_queue"} <= set(struck)

    in_world(database_url, test)


@AFTER
def test_a_load_that_was_cut_is_done_again_under_a_new_epoch_and_brings_everything(database_url, after):
    async def test(w: World):
        cutter = Cutter(w.store._database.committer, after=after)

        async def prepare(name: str) -> str:
            await w.create(name)
            await w.instances.send(w.message(name, b"\x1a\x02\x08\x01"))
            return name

        async def load(name: str) -> None:
            loaded = await w.load(fresh=(w.key(name),), scan=dict.fromkeys(w.epochs, 10), timer_horizon=9 * NOW, timer_limit=10)
            assert len([row for row in loaded.claimed if row.key == w.key(name)]) == 2

        async def again(name: str) -> None:
            await recover(w)
            await load(name)

        struck = await cut_everywhere(database_url, cutter, prepare, load, again)
        assert struck.count("commit") == 1
        assert "send control_queue" in struck

    in_world(database_url, test)


@AFTER
@pytest.mark.parametrize("how", ["create", "replace", "event", "terminate", "purge"])
def test_a_clients_write_is_settled_and_takes_effect_once(database_url, how, after):
    """On PostgreSQL the caller does not even hear of it; on SQLite, where the disk has failed, it may simply call again."""
    async def test(w: World):
        cutter = Cutter(w.store._database.clients, after=after)

        async def prepare(name: str) -> str:
            if how != "create":
                await w.create(name)
            if how == "purge":
                await w.queue(name)
                await w.end_all([name])
            return name

        async def write(name: str) -> object:
            match how:
                case "create" | "replace":
                    return await w.create(name, CreationPolicy(frozenset()))
                case "event":
                    return await w.instances.send(w.message(name))
                case "terminate":
                    return await w.instances.terminate(Termination(w.key(name), "enough", w.message(name), NOW))
            return await w.instances.purge({w.key(name): None})

        async def again(name: str) -> None:
            assert database_url.startswith("sqlite"), "PostgreSQL's outcome was not settled"
            await write(name)

        struck = await cut_everywhere(database_url, cutter, prepare, write, again)
        assert struck.count("commit") == 1

    in_world(database_url, test)


@AFTER
@pytest.mark.parametrize("how", ["raise", "hand over and take"])
def test_a_change_of_ownership_leaves_one_owner_whose_epoch_is_new(database_url, how, after):
    """Whatever was cut: what the owner commits under the epoch before it is lost, under the new one it takes effect."""
    async def test(w: World):
        cutter = Cutter(w.store._database.leases, after=after)

        async def prepare(name: str) -> Any:
            return w.turn(await w.created(name)), dict(w.epochs)

        async def move(_: object) -> None:
            host = w.host.host_id
            if how == "raise":
                await w.leases.raise_epochs(host, w.epochs)
                return
            await w.leases.hand_over(host, w.epochs, dict.fromkeys(w.epochs, 0))
            view = await w.leases.look(w.host)
            await w.leases.acquire(w.host, view.leases, {})

        async def check(prepared: Any) -> None:
            turn, old = prepared
            cutter.disarm()
            view = await w.leases.look(w.host)
            free = [lease for lease in view.leases if lease.owner != w.host.host_id]
            await w.leases.acquire(w.host, free, {})
            owned = {lease.partition: lease.epoch for lease in (await w.leases.look(w.host)).leases
                     if lease.owner == w.host.host_id}
            assert owned.keys() == old.keys()
            w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, owned))
            assert all(epoch > old[partition] for partition, epoch in w.epochs.items())
            late = await w.committer.commit(replace(w.group(turn), epochs=old))
            assert late.outcomes[0].kind is OutcomeKind.LOST
            assert (await w.commit(turn)).outcomes[0].kind is OutcomeKind.COMMITTED

        async def work(prepared: Any) -> None:
            try:
                await move(prepared)
            except (OutcomeUnknownError, UnavailableError):
                pass
            await check(prepared)

        struck = await cut_everywhere(database_url, cutter, prepare, work, check)
        assert "commit" in struck
        assert "send partitions" in struck

    in_world(database_url, test)
