"""Statements that wait for rows of the queues take them in the order of their keys (I7), whatever their plan is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from threading import Thread

import psycopg
import pytest

from conformance.world import World, in_world
from durabletask_sql.model.quarantine import Source
from durabletask_sql.storage import aside, deliveries, lease_statements, statements, task_claims, writes
from durabletask_sql.storage.dialect import Row, Statement
from durabletask_sql.storage.session import written

COUNT = 40
TABLES = {"control_queue": "instance_id, kind, held_epoch, events",
          "timers": "instance_id, execution_id, kind, fire_at, held_epoch, events",
          "activity_queue": "instance_id, execution_id, task_id, name, host, token, event"}
VALUES = {"control_queue": "'i' || n, 1, 0, ''", "timers": "'i' || n, 'e', 1, 1, 0, ''",
          "activity_queue": "'i' || n, 'e', n, 'act', host, n, ''"}
Rows = Callable[[Sequence[int]], Sequence[Row]]


def keys(seqs: Sequence[int]) -> list[Row]:
    return [(0, seq) for seq in seqs]


def instances(seqs: Sequence[int]) -> list[Row]:
    return [(0, f"i{number}") for number in range(len(seqs))]


def claims(seqs: Sequence[int]) -> list[Row]:
    return [(0, seq, number) for number, seq in enumerate(seqs)]


def copies(seqs: Sequence[int]) -> list[Row]:
    return [(0, seq, 1, 1) for seq in seqs]


# Each statement, the host that the tasks belong to, the rows that it is given, and its scalars.
WAITING: list[tuple[Statement, int, Rows, dict[str, int]]] = [
    (statements.SWEEP_MESSAGES, 0, instances, {}), (statements.SWEEP_TIMERS, 0, instances, {}),
    (statements.SWEEP_UNCLAIMED, 0, instances, {}), (writes.DELETE_TASKS_OF, 7, instances, {}),
    (statements.DROP_MESSAGES, 0, keys, {}), (statements.DROP_TIMERS, 0, keys, {}),
    (task_claims.GIVE_BACK, 7, claims, {"owner": 7}),
    (task_claims.RELEASE_CLAIMS, 7, lambda seqs: [(number,) for number, _ in enumerate(seqs)], {"owner": 7}),
    (lease_statements.RELEASE_TASKS, 7, lambda _: [(7, 0)], {}),
    *((aside.COPY[source], 7, copies, {}) for source in Source),
]
PASSING: list[tuple[Statement, Rows]] = [
    *((deliveries.FAIL[source], keys) for source in Source),
    *((deliveries.MARK[source], lambda seqs: [(0, seq, 3) for seq in seqs]) for source in deliveries.MARK),
    (deliveries.MARK_TASKS, lambda seqs: [(0, seq, 3, number) for number, seq in enumerate(seqs)])]


def fill(w: World, table: str, host: int) -> list[int]:
    """Fill a queue with rows of so many instances; their order in the table is not that of their keys."""
    numbers = random.Random(1).sample(range(COUNT), COUNT)
    with psycopg.connect(w.url, autocommit=True) as connection:
        for number in numbers:
            connection.execute(f"INSERT INTO {table} (hub_id, partition, seq, {TABLES[table]}) OVERRIDING SYSTEM VALUE "
                               f"SELECT {w.hub.hub_id}, 0, n + 1000, {VALUES[table]} FROM "
                               f"(SELECT {number} AS n, {host} AS host) AS one")
        connection.execute(f"ANALYZE {table}")
    return [number + 1000 for number in range(COUNT)]


async def while_locked(w: World, statement: Statement, rows: Sequence[Row], scalars: dict[str, int], seq: int) -> list[int]:
    """Run a statement while another session has this row; return what is free at the moment that it waits."""
    def run() -> None:
        session = w.store._database.committer._open()
        session.begin(lock_timeout_ms=20_000)
        session.send(statement, rows, hub=w.hub.hub_id, **scalars)
        session.flush()
        session.rollback()
        session.close()

    with psycopg.connect(w.url) as holder, psycopg.connect(w.url, autocommit=True) as looker:
        holder.execute(f"SELECT 1 FROM {statement.table} WHERE seq = %s FOR UPDATE", (seq,))
        thread = Thread(target=run)
        thread.start()
        while thread.is_alive() and not looker.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").fetchone():
            thread.join(0.005)
        waits = thread.is_alive()
        free = [row[0] for row in looker.execute(
            f"SELECT seq FROM {statement.table} ORDER BY seq FOR UPDATE SKIP LOCKED").fetchall()]
        holder.rollback()
        thread.join()
    assert waits, "it did not wait"
    return free


@pytest.mark.parametrize(("statement", "host", "rows", "scalars"), WAITING)
def test_rows_are_locked_in_the_order_of_their_keys(postgres_url, statement, host, rows, scalars):
    async def test(w: World):
        seqs = fill(w, statement.table, host)
        free = await while_locked(w, statement, rows(seqs), scalars, seqs[COUNT // 2])
        assert free == seqs[COUNT // 2 + 1:]  # those before it are locked, those behind it not yet

    in_world(postgres_url, test)


@pytest.mark.parametrize(("statement", "rows"), PASSING)
def test_a_mark_waits_for_nobody(postgres_url, statement, rows):
    async def test(w: World):
        seqs = fill(w, statement.table, 7)
        with psycopg.connect(w.url) as holder:
            holder.execute(f"SELECT 1 FROM {statement.table} WHERE seq = %s FOR UPDATE", (seqs[3],))
            await w.store._database.clients.run(lambda session: written(session, statement, rows(seqs), hub=w.hub.hub_id))
            marked = holder.execute(f"SELECT seq FROM {statement.table} WHERE failed_deliveries > 0 ORDER BY seq").fetchall()
        assert [row[0] for row in marked] == seqs[:3] + seqs[4:]

    in_world(postgres_url, test)
