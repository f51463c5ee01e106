"""What is kept of deliveries: marks of rows that are still the host's, and what a careful host has out when it is lost."""

from __future__ import annotations

from dataclasses import replace

from conformance.world import NOW, World, in_world
from durabletask_sql.host import identify
from durabletask_sql.model.deliveries import Mark, Out, RowKey
from durabletask_sql.model.messages import MessageKind, NewTimer
from durabletask_sql.model.quarantine import Source
from tables import rows


def store(w: World):
    return w.store.deliveries(w.hub)


def failed(w: World) -> dict[str, list[int]]:
    tables = ("control_queue", "timers", "activity_queue")
    return {table: [row[0] for row in rows(w.url, f"SELECT failed_deliveries FROM {table} ORDER BY seq")] for table in tables}


async def one_of_each(w: World):
    """A message, a timer and an activity task of one instance; their rows and the task's claim."""
    row = await w.created("one")
    timer = NewTimer(row.key, row.execution_id, MessageKind.EVENT, NOW + 5, b"\x1a\x00")
    committed = await w.commit(w.turn(row, activities=(w.activity(row),), timers=(timer,)))
    (message,), (task,) = await w.queue("one"), committed.activities
    partition = row.partition
    found = [RowKey(Source.MESSAGE, partition, message.seq), RowKey(Source.TIMER, partition, committed.timers[0].seq),
             RowKey(Source.TASK, partition, task.seq)]
    return row.key, found, task.token


def test_marks_are_kept_and_come_back_with_their_rows(database_url):
    async def test(w: World):
        key, (message, timer, task), token = await one_of_each(w)
        await store(w).mark(w.host.host_id, w.epochs, [Mark(message, 2), Mark(timer, 3), Mark(task, 4, token)])
        assert failed(w) == {"control_queue": [2], "timers": [3], "activity_queue": [4]}
        loaded = await w.load(fresh=(key,))
        assert [row.failed for row in loaded.claimed] == [2]
        assert [row.failed for row in loaded.timers] == [3]
        assert (await w.committer.activity(task.partition, task.seq, token)).failed == 4

    in_world(database_url, test)


def test_rows_that_are_not_the_hosts_any_more_are_not_marked(database_url):
    async def test(w: World):
        _, (message, timer, task), token = await one_of_each(w)
        gone = RowKey(Source.MESSAGE, message.partition, message.seq + 1000)
        stale = {**w.epochs, message.partition: w.epochs[message.partition] - 1}
        marks = [Mark(message, 2), Mark(timer, 2), Mark(task, 2, token + 1), Mark(gone, 2)]
        await store(w).mark(w.host.host_id, stale, marks)
        await store(w).mark(w.host.host_id + 1, w.epochs, marks)
        assert failed(w) == {"control_queue": [0], "timers": [0], "activity_queue": [0]}

    in_world(database_url, test)


async def succeed(w: World) -> None:
    """Another host takes over from this one, whose lease has run out."""
    heir = replace(identify(), pid=0)
    await w.leases.register(heir, 12)
    await w.leases.heartbeat(w.host.host_id, -1.0)
    await w.take(heir)


def test_what_a_lost_host_had_out_fails_once_more(database_url):
    async def test(w: World):
        _, (message, timer, task), _ = await one_of_each(w)
        host = w.host.host_id
        await store(w).record(host, [Out(row, is_suspect=False) for row in (message, timer, task)], [])
        await store(w).record(host, [], [timer])
        await succeed(w)
        assert failed(w) == {"control_queue": [1], "timers": [0], "activity_queue": [1]}
        assert rows(w.url, "SELECT * FROM dispatches") == []

    in_world(database_url, test)


def test_of_what_a_lost_host_had_out_the_suspect_alone_fails_once_more(database_url):
    async def test(w: World):
        _, (message, timer, task), _ = await one_of_each(w)
        suspects = [Out(message, is_suspect=False), Out(timer, is_suspect=True), Out(task, is_suspect=False)]
        await store(w).record(w.host.host_id, suspects, [])
        await succeed(w)
        assert failed(w) == {"control_queue": [0], "timers": [1], "activity_queue": [0]}

    in_world(database_url, test)


def test_a_host_that_wrote_nothing_down_or_stopped_leaves_no_mark(database_url):
    async def test(w: World):
        _, (message, timer, task), _ = await one_of_each(w)
        out = [Out(row, is_suspect=False) for row in (message, timer, task)]
        await store(w).record(w.host.host_id, out, [])
        await store(w).forget(w.host.host_id)
        await store(w).record(w.host.host_id, out, [])
        await w.leases.release(w.host.host_id)
        heir = identify()
        await w.leases.register(heir, 12)
        await w.take(heir)
        assert failed(w) == {"control_queue": [0], "timers": [0], "activity_queue": [0]}

    in_world(database_url, test)
