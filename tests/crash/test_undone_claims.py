"""PostgreSQL crashes and undoes claims and parkings, which need not be durable: the owner hears of it and starts afresh.

What hides the crash is a connection that is opened anew without a word, so that the next transaction works. Whether the
crash really undoes anything is the server's luck, so what it may undo is undone by hand.
"""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from cluster import nodes
from conformance.test_parking import held, park_of
from conformance.world import World, in_world
from dispatch.bench import Bench, Worker, on_bench, only
from dispatch.test_parking import MANY, SMALL, fill, run_all, until_parked
from durabletask_sql.errors import OutcomeUnknownError
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import ActivityRow


@pytest.fixture
def node():
    with nodes(1, wal_writer_delay="10000ms", autovacuum="off") as (found,):
        found.initialize()
        found.start()
        yield found


def crash(node, epochs):
    """Have the server crash; rows that were parked are held under the epoch again."""
    node.kill_backend()
    with psycopg.connect(node.url, autocommit=True) as connection:
        for partition, epoch in epochs.items():
            connection.execute("UPDATE control_queue SET held_epoch = %s WHERE held_epoch = -1 AND partition = %s",
                               (epoch, partition))


async def give_nothing_back(committer):
    """Use the committer's connection for something that has it opened anew without a word."""
    await committer.give_back(1, [ActivityRow(1, InstanceKey(0, "none"), "none", 1, "act", None, b"", 1)])


@pytest.mark.parametrize("use", ["load", "commit", "park", "unpark"])
def test_what_is_done_after_a_crash_says_so_although_its_connection_is_new(node, use):
    async def test(w: World):
        await held(w, "a", 1)
        row = await w.read("a")
        await w.committer.park(park_of(w, "a"))
        crash(node, w.epochs)
        await give_nothing_back(w.committer)
        uses = {"load": lambda: w.load(scan={w.key("a").partition: 9}), "commit": lambda: w.commit(w.turn(row)),
                "park": lambda: w.committer.park(park_of(w, "a")), "unpark": lambda: w.committer.unpark([w.key("a")])}
        with pytest.raises(OutcomeUnknownError, match="recovered from a crash"):
            await uses[use]()
        with suppress(OutcomeUnknownError):  # its connection was lost as well
            await w.leases.raise_epochs(w.host.host_id, w.epochs)
        w.epochs = dict(await w.leases.raise_epochs(w.host.host_id, w.epochs))
        assert len((await w.load(scan={w.key("a").partition: 9})).claimed) == 2
        assert not (await w.committer.poll(w.host.host_id, 0)).undone

    in_world(node.url, test)


def test_an_owner_that_does_nothing_hears_of_a_crash_from_the_poll(node):
    async def test(w: World):
        await w.load()
        assert not (await w.committer.poll(w.host.host_id, 0)).undone
        crash(node, w.epochs)
        assert (await w.committer.poll(w.host.host_id, 0)).undone
        assert not (await w.committer.poll(w.host.host_id, 0)).undone
        with pytest.raises(OutcomeUnknownError):  # its connection was lost as well
            await w.load()
        await w.load()
        assert not (await w.committer.poll(w.host.host_id, 0)).undone

    in_world(node.url, test)


def test_a_connection_that_is_lost_alone_is_no_crash(node):
    async def test(w: World):
        await w.load()
        with psycopg.connect(node.url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                               "AND application_name = 'durabletask-sql'")
        await give_nothing_back(w.committer)
        await w.load()
        assert not (await w.committer.poll(w.host.host_id, 0)).undone

    in_world(node.url, test)


def test_what_was_parked_before_a_crash_runs_when_a_worker_comes(node):
    async def test(bench: Bench):
        dispatcher = bench.runtime.dispatcher
        await fill(bench)
        await until_parked(bench, MANY - SMALL.partition_messages)
        crash(node, dict(dispatcher._memory.epochs))
        await give_nothing_back(dispatcher._committer)
        worker = bench.connect(Worker(only(["other"])))
        assert len(set(await run_all(bench, worker, MANY))) == MANY

    on_bench(node.url, test, SMALL)
