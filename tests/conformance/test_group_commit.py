"""The group commit: fences, entering, ceilings, children, sweeps. Every store has to pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.world import NOW, World, claim, in_world, room
from durabletask_sql.model.checkpoints import (
    ActivityCompletion,
    Discard,
    NewChild,
    OrchestrationStart,
    OutcomeKind,
    Quarantine,
)
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer
from durabletask_sql.model.status import Status

COMMITTED, LOST, REFUSED = OutcomeKind.COMMITTED, OutcomeKind.LOST, OutcomeKind.REFUSED


def kinds(committed):
    return [outcome.kind for outcome in committed.outcomes]


def test_a_turn_is_refused_after_its_instance_changed_and_the_others_commit(database_url):
    async def test(w: World):
        one, two = await w.created("one"), await w.created("two")
        await w.commit(w.turn(one))
        assert kinds(await w.commit(w.turn(one), w.turn(two))) == [LOST, COMMITTED]
        assert ((await w.read("one")).row_version, (await w.read("two")).row_version) == (2, 2)

    in_world(database_url, test)


def test_a_turn_is_refused_after_its_partition_was_retaken(database_url):
    async def test(w: World):
        row = await w.created("one")
        old = w.group(w.turn(row))
        w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, w.epochs))
        lost = await w.committer.commit(old)
        assert kinds(lost) == [LOST]
        assert lost.lost_partitions == {row.partition}
        assert kinds(await w.commit(w.turn(row))) == [COMMITTED]

    in_world(database_url, test)


def test_an_activity_result_counts_once(database_url):
    async def test(w: World):
        row = await w.created("one")
        task = (await w.commit(w.turn(row, activities=(w.activity(row),)))).activities[0]
        done = ActivityCompletion(task.key, task.seq, task.token, w.message("one"))
        stranger = replace(done, token=task.token + 1)
        assert kinds(await w.commit(stranger)) == [LOST]
        assert kinds(await w.commit(done)) == [COMMITTED]
        assert kinds(await w.commit(done)) == [LOST]
        assert len(await w.queue("one")) == 2  # the start and one result

    in_world(database_url, test)


def test_activities_beyond_the_room_are_born_unclaimed_and_claimed_oldest_first(database_url):
    async def test(w: World):
        row = await w.created("one")
        tasks = tuple(w.activity(row, number) for number in range(5))
        committed = await w.commit(w.turn(row, activities=tasks), activity_room=room(2))
        assert [task.task_id for task in committed.activities] == [0, 1]
        assert committed.unclaimed_activities
        loaded = await w.load(activities=claim(2), claim_token=5)
        assert [task.task_id for task in loaded.activities] == [2, 3]
        assert loaded.activities_full
        await w.committer.release_claims(w.host.host_id, [5])
        assert [task.task_id for task in (await w.load(activities=claim(9), claim_token=6)).activities] == [2, 3, 4]

    in_world(database_url, test)


def test_entering_rows_are_held_in_list_order_and_others_are_reported_unheld(database_url):
    async def test(w: World):
        row = await w.created("sender")
        for name in ("warm", "cold"):
            await w.created(name)
        texts = [b"\x1a\x02\x08%c" % number for number in range(5)]
        messages = tuple(w.message("warm", text) for text in texts) + (w.message("cold"),)
        committed = await w.commit(w.turn(row, messages=messages), entering=frozenset({w.key("warm")}))
        assert [one.events for one in committed.entered] == texts
        assert [one.seq for one in committed.entered] == sorted(one.seq for one in committed.entered)
        assert committed.unheld == {w.key("cold")}
        found = await w.load(scan={w.key("cold").partition: 10, w.key("warm").partition: 10})
        assert {one.key.instance_id for one in found.claimed} >= {"cold"}
        assert not set(texts) & {one.events for one in found.claimed if one.key.instance_id == "cold"}

    in_world(database_url, test)


def test_a_group_tells_of_what_others_wrote_before_it(database_url):
    async def test(w: World):
        await w.created("target")
        await w.queue("target")
        sender = await w.created("sender")
        await w.instances.send(w.message("target", b"\x1a\x02\x08\x01"))
        committed = await w.commit(w.turn(sender, messages=(w.message("target", b"\x1a\x02\x08\x02"),)),
                                   entering=frozenset({w.key("target")}), looks=(w.key("target"),))
        ceiling = committed.ceilings[w.key("target")]
        assert ceiling < committed.entered[0].seq
        loaded = await w.load(claims=(w.key("target"),))
        assert [(one.seq, one.events) for one in loaded.claimed] == [(ceiling, b"\x1a\x02\x08\x01")]
        again = await w.commit(w.turn(await w.read("sender"), messages=(w.message("target", b"\x1a\x02\x08\x03"),)),
                               entering=frozenset({w.key("target")}), looks=(w.key("target"),))
        assert again.ceilings == {w.key("target"): None}

    in_world(database_url, test)


def test_a_claim_takes_the_oldest_rows_up_to_the_share_and_gives_the_ceiling(database_url):
    async def test(w: World):
        await w.created("target")
        for number in range(6):
            await w.instances.send(w.message("target", b"\x1a\x02\x08%c" % number))
        first = await w.load(fresh=(w.key("target"),), share=3)
        assert first.claimed[0].kind is MessageKind.START
        assert [one.events[-1] for one in first.claimed[1:]] == [0, 1]
        ceiling = first.ceilings[w.key("target")]
        second = await w.load(claims=(w.key("target"),), share=10)
        assert [one.events[-1] for one in second.claimed] == [2, 3, 4, 5]
        assert second.claimed[0].seq == ceiling
        assert second.ceilings == {w.key("target"): None}

    in_world(database_url, test)


def test_a_fresh_read_brings_rows_that_are_held_already(database_url):
    async def test(w: World):
        await w.created("target")
        once, again = await w.queue("target"), await w.queue("target")
        assert once == again
        assert len(once) == 1

    in_world(database_url, test)


def test_a_fresh_read_brings_timers_that_are_held_already(database_url):
    """Those that were due and taken up before the instance had to be read again would never fire otherwise."""
    async def test(w: World):
        row, other = await w.created("target"), await w.created("other")
        timers = [NewTimer(one.key, one.execution_id, MessageKind.EVENT, NOW + 1, b"\x1a\x00") for one in (row, other)]
        held = (await w.commit(w.turn(row, timers=(timers[0],)), w.turn(other, timers=(timers[1],)))).timers
        assert (await w.load(fresh=(row.key,))).timers == (held[0],)
        assert {timer.seq for timer in (await w.load(fresh=(row.key, other.key))).timers} == {one.seq for one in held}
        assert (await w.load(claims=(row.key,))).timers == ()

    in_world(database_url, test)


def test_a_new_epoch_unholds_everything(database_url):
    async def test(w: World):
        await w.created("target")
        await w.queue("target")
        partition = w.key("target").partition
        assert (await w.load(scan={partition: 10})).claimed == ()
        w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, w.epochs))
        assert len((await w.load(scan={partition: 10})).claimed) == 1

    in_world(database_url, test)


def test_a_free_child_is_created_and_starts_in_memory(database_url):
    async def test(w: World):
        parent = await w.created("parent")
        committed = await w.commit(w.turn(parent, children=(w.child(parent, "child"),)))
        assert [row.instance_id for row in committed.children] == ["child"]
        assert [row.key.instance_id for row in committed.entered] == ["child"]
        state = await w.instances.get(w.key("child"), payloads=True)
        assert (state.row.status, state.input) == (Status.PENDING, "in")

    in_world(database_url, test)


def start(w: World, instance_id: str) -> OrchestrationStart:
    row = w.row(instance_id)
    message = NewMessage(row.key, row.execution_id, MessageKind.START, b"\x1a\x00")
    return OrchestrationStart(NewChild(row, "in", message, refusal=None))


def test_an_orchestration_that_a_client_starts_is_in_memory_as_it_was_committed(database_url):
    async def test(w: World):
        committed = await w.commit(start(w, "one"))
        assert kinds(committed) == [COMMITTED]
        assert list(committed.children) == [await w.read("one")]
        assert [row.key.instance_id for row in committed.entered] == ["one"]
        assert (await w.instances.get(w.key("one"), payloads=True)).input == "in"
        assert (await w.load(scan={row.partition: 10 for row in committed.children})).claimed == ()  # held already

    in_world(database_url, test)


def test_a_start_whose_id_is_taken_is_lost_and_the_others_commit(database_url):
    async def test(w: World):
        old = await w.created("old")
        first, second = start(w, "new"), start(w, "new")
        assert kinds(await w.commit(first, start(w, "old"), second, w.turn(old))) == [COMMITTED, LOST, LOST, COMMITTED]
        assert (await w.read("new")).execution_id == first.child.row.execution_id
        assert (await w.read("old")).execution_id == old.execution_id

    in_world(database_url, test)


def test_a_start_that_took_effect_unknown_to_its_host_may_go_again(database_url):
    async def test(w: World):
        once = start(w, "one")
        await w.commit(once)
        again = await w.commit(once)
        assert kinds(again) == [COMMITTED]
        assert again.entered == again.children == ()
        assert len(await w.queue("one")) == 1

    in_world(database_url, test)


def test_an_ended_child_is_replaced_with_all_that_it_left(database_url):
    async def test(w: World):
        parent, old = await w.created("parent"), await w.created("child")
        ended = replace(w.turn(old, ended=True, output="old"), row=replace(
            old, row_version=2, status=Status.COMPLETED, history_count=1))
        assert kinds(await w.commit(ended)) == [COMMITTED]
        await w.commit(w.turn(parent, children=(w.child(parent, "child"),)))
        fresh = (await w.load(fresh=(w.key("child"),))).fresh[0]
        assert (fresh.row.row_version, fresh.row.status, fresh.history) == (3, Status.PENDING, ())
        assert (await w.instances.get(w.key("child"), payloads=True)).output is None

    in_world(database_url, test)


def test_a_live_child_is_left_alone_and_its_parent_told(database_url):
    async def test(w: World):
        parent, live = await w.created("parent"), await w.created("child")
        await w.queue("parent")
        committed = await w.commit(w.turn(parent, children=(w.child(parent, "child"),)),
                                   entering=frozenset({parent.key}))
        assert kinds(committed) == [COMMITTED]
        assert committed.children == ()
        assert await w.read("child") == live
        refusals = [row for row in await w.queue("parent") if row.kind is MessageKind.EVENT]
        assert [row.events for row in refusals] == [b"\x1a\x02\x08\x07"]

    in_world(database_url, test)


def test_of_two_turns_that_create_one_child_the_first_gets_it(database_url):
    async def test(w: World):
        one, two = await w.created("one"), await w.created("two")
        committed = await w.commit(w.turn(one, children=(w.child(one, "child"),)),
                                   w.turn(two, children=(w.child(two, "child"),)))
        assert kinds(committed) == [COMMITTED, COMMITTED]
        assert len(committed.children) == 1
        assert [len(await w.queue(name)) for name in ("one", "two")] == [1, 2]

    in_world(database_url, test)


def test_a_short_delete_loses_its_turn_and_the_others_commit(database_url):
    async def test(w: World):
        one, two = await w.created("one"), await w.created("two")
        seq = (await w.queue("two"))[0].seq
        committed = await w.commit(w.turn(one, consumed=(10**9,)), w.turn(two, consumed=(seq,)))
        assert kinds(committed) == [LOST, COMMITTED]
        assert (await w.read("one")).row_version == 1

    in_world(database_url, test)


def test_an_end_sweeps_messages_and_timers_and_keeps_the_output(database_url):
    async def test(w: World):
        row = await w.created("one")
        timer = NewTimer(row.key, row.execution_id, MessageKind.EVENT, NOW + 1, b"\x1a\x00")
        await w.commit(w.turn(row, timers=(timer,)))
        await w.instances.send(w.message("one"))
        row = await w.read("one")
        end = replace(w.turn(row, ended=True, output="out", messages=(w.message("one"),)), row=replace(
            row, row_version=row.row_version + 1, status=Status.COMPLETED, history_count=row.history_count + 1))
        await w.commit(end)
        loaded = await w.load(fresh=(row.key,), timer_horizon=10 * NOW, timer_limit=9)
        assert (loaded.claimed, loaded.timers) == ((), ())
        assert (await w.instances.get(row.key, payloads=True)).output == "out"

    in_world(database_url, test)


def test_continue_as_new_drops_the_old_history_and_starts_in_memory(database_url):
    async def test(w: World):
        row = await w.created("one")
        await w.commit(w.turn(row))
        row = await w.read("one")
        after = replace(row, row_version=row.row_version + 1, execution_id="e2", history_count=0)
        start = NewMessage(row.key, "e2", MessageKind.START, b"\x1a\x00")
        again = replace(w.turn(row, continued_from=row.execution_id, new_input="next", messages=(start,), history=None),
                        row=after)
        committed = await w.commit(again)
        assert [one.execution_id for one in committed.entered] == ["e2"]
        assert (await w.load(fresh=(row.key,))).fresh[0].history == ()
        state = await w.instances.get(row.key, payloads=True)
        assert (state.row.execution_id, state.input) == ("e2", "next")
        assert [page async for page in w.instances.history(row.key, row.execution_id)] == []

    in_world(database_url, test)


def test_quarantine_keeps_the_rows_with_their_cause(database_url):
    async def test(w: World):
        row = await w.created("one")
        seq = (await w.queue("one"))[0].seq
        assert kinds(await w.commit(Quarantine(row.key, "it is bad", seqs=(seq,)))) == [COMMITTED]
        assert await w.queue("one") == ()

    in_world(database_url, test)


def test_discarded_rows_may_be_gone(database_url):
    async def test(w: World):
        row = await w.created("one")
        assert kinds(await w.commit(Discard(row.key, (10**9,)))) == [COMMITTED]

    in_world(database_url, test)


def test_a_value_that_the_database_refuses_leaves_the_group_alone(database_url):
    async def test(w: World):
        rows = [await w.created(f"i{number}") for number in range(7)]
        # PostgreSQL's text refuses U+0000, SQLite's integers end at 64 bits: each refuses one of the two.
        bad = w.turn(rows[3], activities=(w.activity(rows[3], 1 << 70, "a\0b"),))
        items = [bad if number == 3 else w.turn(row) for number, row in enumerate(rows)]
        committed = await w.commit(*items)
        assert kinds(committed) == [COMMITTED] * 3 + [REFUSED] + [COMMITTED] * 3
        assert committed.outcomes[3].cause
        assert (await w.read("i3")).row_version == 1

    in_world(database_url, test)


@pytest.mark.parametrize("bad_at", [0, 1])
def test_a_group_tells_of_what_others_wrote_although_the_database_refuses_an_item(database_url, bad_at):
    async def test(w: World):
        await w.created("target")
        await w.queue("target")
        rows = [await w.created(f"i{number}") for number in range(2)]
        await w.instances.send(w.message("target", b"\x1a\x02\x08\x01"))
        items = [w.turn(row, messages=(w.message("target", b"\x1a\x02\x08\x02"),)) for row in rows]
        items[bad_at] = w.turn(rows[bad_at], activities=(w.activity(rows[bad_at], 1 << 70, "a\0b"),))
        committed = await w.commit(*items, entering=frozenset({w.key("target")}), looks=(w.key("target"),))
        assert kinds(committed) == [REFUSED if number == bad_at else COMMITTED for number in range(2)]
        assert [one.events for one in committed.entered] == [b"\x1a\x02\x08\x02"]
        loaded = await w.load(claims=(w.key("target"),))
        assert [one.events for one in loaded.claimed] == [b"\x1a\x02\x08\x01"]
        assert committed.ceilings == {w.key("target"): loaded.claimed[0].seq}

    in_world(database_url, test)


@pytest.mark.parametrize("size", [8 * 1024 * 1024])
def test_an_item_larger_than_a_group_commits_and_so_do_the_others(database_url, size):
    async def test(w: World):
        rows = [await w.created(f"i{number}") for number in range(3)]
        large = w.message("i1", b"\x1a" + b"\x00" * size)
        committed = await w.commit(w.turn(rows[0]), w.turn(rows[1], messages=(large,)), w.turn(rows[2]))
        assert kinds(committed) == [COMMITTED] * 3

    in_world(database_url, test)
