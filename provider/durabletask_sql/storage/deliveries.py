"""Failed deliveries, and what careful hosts have out, in SQL: implements `ports.deliveries.DeliveryStore` for one hub."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Table, and_, delete, select, update
from sqlalchemy.sql.selectable import CTE, FromClause

from durabletask_sql.model.deliveries import Mark, Out, RowKey
from durabletask_sql.model.quarantine import Source
from durabletask_sql.partitions.suspects import lost_with_host
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.dialect import (
    BIGINT,
    INTEGER,
    SMALLINT,
    Executable,
    Row,
    Statement,
    by_columns,
    hub_of,
    insert_new,
    locked,
    rows_of,
    unindexed,
)
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.tables import activity_queue, control_queue, dispatches, timers
from durabletask_sql.storage.transactions import transact

_DISPATCH: sql.Types = {"host_id": BIGINT, "source": SMALLINT, "seq": BIGINT, "partition": INTEGER}
_MARKED: sql.Types = {**sql.SEQS, "failed": INTEGER}
_QUEUES = {Source.TASK: activity_queue, Source.MESSAGE: control_queue, Source.TIMER: timers}  # in the lock order


def _this_row(table: FromClause, v: FromClause) -> ColumnElement[bool]:
    """Return the condition that a queue's row is that of the source, by key."""
    plain: Callable[[ColumnElement[int]], ColumnElement[int]] = unindexed if isinstance(v, CTE) else lambda col: col
    return and_(plain(table.c.hub_id) == hub_of(v), plain(table.c.partition) == v.c.partition, table.c.seq == v.c.seq)


def _present(table: Table, v: FromClause, *columns: str) -> FromClause:
    """Return the rows of the source that are there and that no other session holds.

    Who holds one consumes it, or takes it up: neither is waited for, since a group holds many (I7). Such a row has one
    failed delivery less, which does no harm.
    """
    found = table.alias("found")
    return locked(v, lambda: (
        select(*rows_of(found), *(v.c[name] for name in columns)).select_from(v.join(found, _this_row(found, v)))
        .order_by(found.c.partition, found.c.seq).with_for_update(key_share=True, skip_locked=True, of=found)))


def _mark(table: Table, *also: str) -> Callable[[FromClause], Executable]:
    def build(v: FromClause) -> Executable:
        rows = _present(table, v, "failed", *also)
        return (update(table).where(_this_row(table, rows), *(table.c[name] == rows.c[name] for name in also))
                .values(failed_deliveries=rows.c.failed))
    return build


def _fail(table: Table) -> Callable[[FromClause], Executable]:
    return lambda v: (update(table).where(_this_row(table, _present(table, v)))
                      .values(failed_deliveries=table.c.failed_deliveries + 1))


# What another host has claimed meanwhile is not marked by this one.
MARK_TASKS = Statement("activity_queue", _mark(activity_queue, "token"), {**_MARKED, "token": BIGINT})
MARK = {Source.MESSAGE: Statement("control_queue", _mark(control_queue), _MARKED),
        Source.TIMER: Statement("timers", _mark(timers), _MARKED)}
FAIL = {source: Statement(table.name, _fail(table), sql.SEQS) for source, table in _QUEUES.items()}

RECORD = Statement("dispatches", lambda v: sql.insert_rows(
    dispatches, v, {**_DISPATCH, "suspect": SMALLINT}, insert_new(dispatches, v)), {**_DISPATCH, "suspect": SMALLINT})
STRIKE_OUT = Statement("dispatches", lambda v: (
    delete(dispatches).where(by_columns(dispatches, v, *_DISPATCH))), _DISPATCH)
FORGET_DISPATCHES = Statement("dispatches", lambda v: (
    delete(dispatches).where(by_columns(dispatches, v, "host_id"))), {"host_id": BIGINT})


class SqlDeliveries:
    """What one hub keeps of deliveries."""

    def __init__(self, database: Database, hub: TaskHub) -> None:
        """Take the clients' lane of this database: never the committer's."""
        self._database = database
        self._hub = hub.hub_id

    async def mark(self, host_id: int, epochs: Mapping[int, int], marks: Sequence[Mark]) -> None:
        """Keep how many deliveries have failed, of rows that are still this host's."""
        def work(session: Session) -> None:
            held = session.ask(sql.LOCK_PARTITIONS, [(partition,) for partition in sorted(epochs)], hub=self._hub)
            ours = {partition for partition, owner, epoch in held if owner == host_id and epoch == epochs[partition]}
            tasks = [(*mark.row[1:], mark.failed, mark.token) for mark in marks if mark.row.source is Source.TASK]
            self._send(session, MARK_TASKS, tasks)
            for source, statement in MARK.items():
                self._send(session, statement, [(*mark.row[1:], mark.failed) for mark in marks
                                                if mark.row.source is source and mark.row.partition in ours])

        await transact(self._database, work)

    async def record(self, host_id: int, out: Sequence[Out], back: Sequence[RowKey]) -> None:
        """Write down what a host is about to hand out, and strike out what has come back."""
        def work(session: Session) -> None:
            self._send(session, STRIKE_OUT, {_key(host_id, row) for row in back})
            self._send(session, RECORD, {(*_key(host_id, one.row), int(one.is_suspect)) for one in out})

        await transact(self._database, work)

    async def forget(self, host_id: int) -> None:
        """Strike out everything that a host has out."""
        await transact(self._database, lambda session: self._send(session, FORGET_DISPATCHES, [(host_id,)]))

    def _send(self, session: Session, statement: Statement, rows: Iterable[Row]) -> None:
        listed = sorted(rows)
        if listed:
            session.send(statement, listed, hub=self._hub)


def _key(host_id: int, row: RowKey) -> Row:
    return host_id, int(row.source), row.seq, row.partition


def mark_lost(session: Session, hub_id: int, dispatched: Iterable[Row]) -> None:
    """Give what lost hosts had out one failed delivery more, in the transaction that buries them.

    `dispatched` are rows of `dispatches`: host, source, partition, seq, suspect.
    """
    hosts: dict[int, list[Out]] = {}
    for host_id, source, partition, seq, suspect in dispatched:
        hosts.setdefault(host_id, []).append(Out(RowKey(Source(source), partition, seq), bool(suspect)))
    failed = [one.row for out in hosts.values() for one in lost_with_host(out)]
    for source, statement in FAIL.items():
        rows = sorted(row[1:] for row in failed if row.source is source)
        if rows:
            session.send(statement, rows, hub=hub_id)
