"""Entities in the store: steps with their fences, queues that are read in shares, signals, queries, clean-up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.world import NOW, World, in_world
from durabletask_sql.model.checkpoints import EntityCheckpoint, NewChild, OutcomeKind
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.entities import EntityQuery, EntityRow, LockOwner
from durabletask_sql.model.instances import CriticalSection
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer
from durabletask_sql.model.status import Status
from durabletask_sql.turn.entity.messages import LockRequest, Release, read, write_lock_request
from entity_rows import signal_event

COMMITTED, LOST = OutcomeKind.COMMITTED, OutcomeKind.LOST
A, B = "@counter@a", "@counter@b"


def row(w: World, entity_id: str = A, version: int = 1, state: str | None = "1", lock: LockOwner | None = None) -> EntityRow:
    return EntityRow(*w.key(entity_id), version, state, NOW, lock)


def step(w: World, after: EntityRow | None, *, expected: int = 0, entity_id: str = A, **parts: object) -> EntityCheckpoint:
    return EntityCheckpoint(w.key(entity_id), expected, after, **parts)


def kinds(committed):
    return [outcome.kind for outcome in committed.outcomes]


def signal(w: World, entity_id: str = A, number: int = 1) -> NewMessage:
    return NewMessage(w.key(entity_id), None, MessageKind.EVENT, signal_event(number))


async def fresh(w: World, entity_id: str = A, **parts: object):
    """Read an entity afresh: what is known of it, its rows, and its ceiling."""
    loaded = await w.load(fresh=(w.key(entity_id),), **parts)
    return loaded.fresh[0], loaded.claimed, loaded.ceilings[w.key(entity_id)]


def test_a_first_step_makes_the_row_and_an_empty_one_takes_it_away(database_url):
    async def test(w: World):
        assert kinds(await w.commit(step(w, row(w)))) == [COMMITTED]
        assert (await w.entities.get(w.key(A))).row == row(w)
        assert kinds(await w.commit(step(w, row(w, version=2, state="2"), expected=1))) == [COMMITTED]
        assert (await fresh(w))[0].row.state == "2"
        assert kinds(await w.commit(step(w, None, expected=2))) == [COMMITTED]
        assert await w.entities.get(w.key(A)) is None
        assert (await fresh(w))[0].row is None

    in_world(database_url, test)


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_step_whose_version_is_old_is_lost_and_its_group_commits(database_url, expected):
    async def test(w: World):
        await w.commit(step(w, row(w)))
        await w.commit(step(w, row(w, version=2), expected=1))
        committed = await w.commit(step(w, row(w, version=9, state="bad"), expected=expected, messages=(signal(w, B),)),
                                   step(w, row(w, B), entity_id=B))
        assert kinds(committed) == [LOST, COMMITTED]
        assert (await w.entities.get(w.key(A))).row.state == "1"
        assert (await w.entities.get(w.key(B))).backlog == 0

    in_world(database_url, test)


def test_a_step_that_expects_what_is_gone_is_lost(database_url):
    async def test(w: World):
        assert kinds(await w.commit(step(w, row(w, version=2), expected=1))) == [LOST]
        assert await w.entities.get(w.key(A)) is None

    in_world(database_url, test)


def test_a_step_is_refused_after_its_partition_was_retaken(database_url):
    async def test(w: World):
        await w.commit(step(w, row(w)))
        old = dict(w.epochs)
        w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, w.epochs))
        committed = await w.commit(step(w, row(w, version=2), expected=1), epochs=old)
        assert kinds(committed) == [LOST]
        assert (await w.entities.get(w.key(A))).row.row_version == 1

    in_world(database_url, test)


def test_a_step_consumes_what_it_took_exactly_once(database_url):
    async def test(w: World):
        await w.entities.signal(signal(w))
        _, claimed, _ = await fresh(w)
        seqs = tuple(one.seq for one in claimed)
        assert kinds(await w.commit(step(w, row(w), consumed=seqs))) == [COMMITTED]
        assert kinds(await w.commit(step(w, row(w, version=2), expected=1, consumed=seqs))) == [LOST]
        assert (await w.entities.get(w.key(A))).backlog == 0

    in_world(database_url, test)


def test_a_step_starts_orchestrations_and_leaves_running_ones_alone(database_url):
    async def test(w: World):
        live = await w.created("live")
        children = tuple(replace(w.child(live, name), refusal=None) for name in ("live", "new"))
        later = w.row("later", scheduled_at=NOW + 5)
        start = NewMessage(later.key, later.execution_id, MessageKind.START, b"\x1a\x00")
        committed = await w.commit(step(w, row(w), children=(*children, NewChild(later, "in", start, None))))
        assert kinds(committed) == [COMMITTED]
        assert await w.read("live") == live
        assert [child.instance_id for child in committed.children] == ["new"]
        assert (await w.instances.get(w.key("later"), payloads=True)).input == "in"
        assert [(timer.key, timer.fire_at) for timer in committed.timers] == [(w.key("later"), NOW + 5)]
        assert [message.kind for message in await w.queue("live")] == [MessageKind.START]

    in_world(database_url, test)


def test_delayed_signals_are_timers_of_their_own(database_url):
    async def test(w: World):
        await w.entities.signal(NewTimer(w.key(A), "", MessageKind.EVENT, NOW + 5, signal_event(1)))
        assert await w.entities.get(w.key(A)) is None
        loaded = await w.load(timer_horizon=10 * NOW, timer_limit=9)
        assert [(timer.key, timer.fire_at) for timer in loaded.timers] == [(w.key(A), NOW + 5)]
        done = step(w, row(w), consumed_timers=(loaded.timers[0].seq,))
        assert kinds(await w.commit(done)) == [COMMITTED]
        assert kinds(await w.commit(replace(done, expected_version=1, row=row(w, version=2)))) == [LOST]

    in_world(database_url, test)


def test_what_does_not_wait_behind_a_lock_is_read_first(database_url):
    async def test(w: World):
        for number in range(4):
            await w.entities.signal(signal(w, number=number))
        ahead = NewMessage(w.key(A), "x", MessageKind.AHEAD, b"\x1a\x02\x08\x07")
        await w.entities.signal(ahead)
        found, claimed, ceiling = await fresh(w, share=2)
        assert [one.kind for one in claimed] == [MessageKind.EVENT, MessageKind.AHEAD]
        assert (found.hidden, ceiling is not None) == (None, True)
        assert ceiling > claimed[0].seq

    in_world(database_url, test)


def test_a_long_queue_comes_in_shares_and_says_what_is_missing(database_url):
    async def test(w: World):
        for number in range(5):
            await w.entities.signal(signal(w, number=number))
        _, every, ceiling = await fresh(w, share=10)
        assert (len(every), ceiling) == (5, None)
        found, some, ceiling = await fresh(w, share=2)
        assert [one.seq for one in some] == [one.seq for one in every[:2]]
        assert (found.hidden, ceiling) == (every[2].seq, None)
        await w.commit(step(w, row(w), consumed=tuple(one.seq for one in some)))
        assert [one.seq for one in (await fresh(w, share=9))[1]] == [one.seq for one in every[2:]]

    in_world(database_url, test)


def test_an_entity_read_afresh_gets_no_row_beyond_a_gap(database_url):
    """What is claimed anew lies behind what is held: it must not come along when the rows between do not."""
    async def test(w: World):
        for number in range(4):
            await w.entities.signal(signal(w, number=number))
        _, held, _ = await fresh(w, share=9)
        await w.entities.signal(signal(w, number=9))
        found, some, _ = await fresh(w, share=2)
        assert [one.seq for one in some] == [one.seq for one in held[:2]]
        assert found.hidden == held[2].seq

    in_world(database_url, test)


def test_a_scan_finds_entities(database_url):
    async def test(w: World):
        await w.entities.signal(signal(w))
        loaded = await w.load(scan={w.key(A).partition: 10})
        assert [(found.key, found.row) for found in loaded.fresh] == [(w.key(A), None)]
        assert len(loaded.claimed) == 1

    in_world(database_url, test)


OWNER = LockOwner("ann", "ann-1", "section")


def test_queries_page_by_id_without_repeating_or_skipping(database_url):
    async def test(w: World):
        names = ["@a@1", "@a@2", "@a@%", "@a@_", "@ab@1", "@b@1"]
        for number, name in enumerate(names):
            await w.commit(step(w, replace(row(w, name), modified_at=NOW + number), entity_id=name))
        await w.commit(step(w, row(w, "@a@locked", state=None, lock=OWNER), entity_id="@a@locked"))

        async def ask(**parts: object) -> list[str]:
            found, query = [], EntityQuery(page_size=2, states=True, **parts)
            while True:
                page = await w.entities.query(query)
                found += [one.row.instance_id for one in page.entities]
                if page.next is None:
                    return found
                assert len(page.entities) == 2
                query = replace(query, after=page.next)

        assert await ask() == sorted(names)
        assert await ask(transient=True) == sorted([*names, "@a@locked"])
        assert await ask(prefix="@a@") == sorted(names[:4])
        assert await ask(prefix="@a@%") == ["@a@%"]
        assert await ask(prefix="@a") == sorted(names[:5])
        assert await ask(modified_from=NOW + 1, modified_to=NOW + 3) == sorted(names[1:3])
        assert (await w.entities.query(EntityQuery(page_size=1))).entities[0].row.state is None

    in_world(database_url, test)


def test_backlog_counts_what_waits(database_url):
    async def test(w: World):
        await w.commit(step(w, row(w)))
        await w.entities.signal(signal(w))
        await w.entities.signal(signal(w, number=2))
        await w.entities.signal(signal(w, B))
        assert (await w.entities.get(w.key(A))).backlog == 2
        assert [one.backlog for one in (await w.entities.query(EntityQuery())).entities] == [2]

    in_world(database_url, test)


def test_a_purge_takes_the_state_and_fences_the_batch_that_is_out(database_url):
    async def test(w: World):
        assert not await w.entities.purge(w.key(A))
        await w.commit(step(w, row(w)))
        assert await w.entities.purge(w.key(A))
        assert await w.entities.get(w.key(A)) is None
        assert kinds(await w.commit(step(w, row(w, version=2), expected=1))) == [LOST]

    in_world(database_url, test)


def test_a_purge_leaves_a_lock_where_it_is(database_url):
    async def test(w: World):
        await w.commit(step(w, row(w, lock=OWNER)))
        assert await w.entities.purge(w.key(A))
        found = (await w.entities.get(w.key(A))).row
        assert (found.state, found.lock, found.row_version) == (None, OWNER, 2)

    in_world(database_url, test)


async def lock_for(w: World, entity_id: str, owner: LockOwner) -> None:
    await w.commit(step(w, row(w, entity_id, lock=owner), entity_id=entity_id))


async def releases_of(w: World, entity_id: str) -> list[Release]:
    return [read(one) for one in await w.queue(entity_id)]


def test_orphaned_locks_are_released_and_living_ones_stay(database_url):
    async def test(w: World):
        pending, ended = await w.created("pending"), await w.created("ended")
        end = replace(w.turn(ended, ended=True), row=replace(ended, row_version=2, status=Status.FAILED, history_count=1))
        await w.commit(end)
        owners = {"@x@gone": LockOwner("gone", "e", "s"), "@x@ended": LockOwner("ended", ended.execution_id, "s"),
                  "@x@older": LockOwner("pending", "another execution", "s"),
                  "@x@lives": LockOwner("pending", pending.execution_id, "s")}
        for entity_id, owner in owners.items():
            await lock_for(w, entity_id, owner)
        first = await w.entities.release_orphans(NOW, None, 2)
        assert (len(first.released), first.next) == (2, "@x@gone")
        second = await w.entities.release_orphans(NOW, first.next, 2)
        assert (second.released, second.next) == (frozenset({w.key("@x@older")}), None)
        assert await releases_of(w, "@x@gone") == [Release(owners["@x@gone"])]
        assert await releases_of(w, "@x@lives") == []
        # A release that is on its way already is not sent again.
        assert (await w.entities.release_orphans(NOW, None, 9)).released == frozenset()

    in_world(database_url, test)


def test_a_recreation_frees_what_the_old_execution_held_in_its_transaction(database_url):
    async def test(w: World):
        old = await w.created("owner")
        held = (CriticalSection("s1", (A, B), granted=True), CriticalSection("s2", ("@counter@c",)))
        await w.commit(replace(w.turn(old), row=replace(old, row_version=2, history_count=1, sections=held)))
        assert (await w.read("owner")).sections == held
        created = await w.create("owner", CreationPolicy(dedupe=frozenset()))
        assert created.woken == {w.key(one) for one in ("owner", A, B, "@counter@c")}
        owner = LockOwner("owner", old.execution_id, "s1")
        assert [await releases_of(w, one) for one in (A, B)] == [[Release(owner)], [Release(owner)]]
        assert await releases_of(w, "@counter@c") == [Release(owner._replace(section_id="s2"), ("@counter@c",), 0)]
        assert (await w.read("owner")).sections == ()

    in_world(database_url, test)


def test_a_lock_request_survives_the_store(database_url):
    async def test(w: World):
        request = LockRequest(OWNER, (A, B), 1)
        message = NewMessage(w.key(A), OWNER.execution_id, MessageKind.EVENT, write_lock_request(request, NOW))
        await w.commit(step(w, row(w, B), entity_id=B, messages=(message,)))
        assert [read(one) for one in await w.queue(A)] == [request]

    in_world(database_url, test)
