"""The quarantine in SQL, as operators see it: implements `ports.quarantine.QuarantineStore` for one hub.

Transactions lock instances first, and items last: by their counted deletion, so that of two that take the same item one
is repeated and finds it gone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, func, select, tuple_
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.errors import InvalidArgumentError
from durabletask_sql.ids import is_entity
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.model.quarantine import AsideId, AsideItem, AsideKind, AsideOutcome, AsidePage, AsideRow, Source
from durabletask_sql.model.status import Status
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import decode_instance
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.dialect import BIGINT, SMALLINT, TEXT, Row, Statement, by_columns, hub_of
from durabletask_sql.storage.session import Session, repeated
from durabletask_sql.storage.tables import instances, quarantine, quarantine_rows
from durabletask_sql.storage.termination import Ending, end
from durabletask_sql.storage.transactions import transact
from durabletask_sql.storage.writes import LOCK_INSTANCES, message_row
from durabletask_sql.turn.failing import failed_operations, failed_task, failure_of
from durabletask_sql.turn.termination import failed

_IDS: sql.Types = {"source": SMALLINT, "seq": BIGINT}
_ROW = tuple(quarantine_rows.c[name] for name in (
    "item_source", "item_seq", "source", "seq", "execution_id", "kind", "fire_at", "task_id", "name", "version", "content"))


def _of_item(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column computed over the rows of an item."""
    return select(column).where(
        quarantine_rows.c.hub_id == quarantine.c.hub_id, quarantine_rows.c.item_source == quarantine.c.source,
        quarantine_rows.c.item_seq == quarantine.c.seq).correlate(quarantine).scalar_subquery()


_ITEM = (
    *(quarantine.c[name] for name in ("source", "seq", "partition", "instance_id", "execution_id")),
    func.coalesce(quarantine.c.name, _of_item(func.max(quarantine_rows.c.name))),
    func.coalesce(quarantine.c.version, _of_item(func.max(quarantine_rows.c.version))),
    *(quarantine.c[name] for name in ("cause", "worker", "attempts", "set_aside_at")),
    _of_item(func.count()), _of_item(func.sum(func.length(quarantine_rows.c.content))), instances.c.status)
_ITS_INSTANCE = and_(
    instances.c.hub_id == quarantine.c.hub_id, instances.c.partition == quarantine.c.partition,
    instances.c.instance_id == quarantine.c.instance_id)


def _by_id(v: FromClause) -> ColumnElement[bool]:
    return and_(quarantine.c.hub_id == hub_of(v), quarantine.c.source == v.c.source, quarantine.c.seq == v.c.seq)


READ_ITEMS = Statement("quarantine", lambda v: (
    select(*_ITEM).select_from(v.join(quarantine, _by_id(v)).outerjoin(instances, _ITS_INSTANCE))), _IDS)

READ_ROWS = Statement("quarantine_rows", lambda v: (
    select(*_ROW).select_from(v.join(quarantine_rows, and_(
        quarantine_rows.c.hub_id == hub_of(v), quarantine_rows.c.item_source == v.c.source,
        quarantine_rows.c.item_seq == v.c.seq)))
    .order_by(quarantine_rows.c.source, quarantine_rows.c.seq)), _IDS)

DELETE_ITEMS = Statement("quarantine", lambda v: (
    delete(quarantine).where(by_columns(quarantine, v, "source", "seq"))), _IDS, counted=True)

DELETE_ROWS = Statement("quarantine_rows", lambda v: (
    delete(quarantine_rows).where(by_columns(quarantine_rows, v, "item_source", "item_seq"))),
    {"item_source": SMALLINT, "item_seq": BIGINT})

Found = Mapping[AsideId, tuple[AsideItem, list[AsideRow]]]


class SqlQuarantine:
    """The set-aside items of one hub."""

    def __init__(self, database: Database, hub: TaskHub) -> None:
        """Take the client and reader lanes of this database."""
        self._database = database
        self._hub = hub

    async def page(self, *, instance_id: str | None, after: str | None, limit: int) -> AsidePage:
        """Return one page, of one instance or of all, longest set aside first."""
        query, given = page_statement(instance_id, after, limit), {"hub": self._hub.hub_id, "instance_id": instance_id}
        rows = await self._database.readers.run(lambda session: repeated(
            session, lambda: session.execute(query, given).rows))
        items = tuple(map(_item, rows[:limit]))
        return AsidePage(items, _token(items[-1]) if len(rows) > limit else None)

    async def get(self, item_id: AsideId) -> tuple[AsideItem, tuple[AsideRow, ...]] | None:
        """Return an item with its rows, by source and sequence."""
        found = await self._database.readers.run(lambda session: repeated(
            session, lambda: _read(session, self._hub.hub_id, [item_id])))
        if item_id not in found:
            return None
        item, rows = found[item_id]
        return item, tuple(rows)

    async def redrive(self, item_ids: Sequence[AsideId]) -> Mapping[AsideId, AsideOutcome]:
        """Put items back where they were taken from, in the order in which they once came."""
        return await transact(self._database, lambda session: _Leaving(session, self._hub, item_ids).redrive())

    async def fail(self, item_ids: Sequence[AsideId], now: int) -> Mapping[AsideId, AsideOutcome]:
        """Give items up, and tell those who wait for them."""
        return await transact(self._database, lambda session: _Leaving(session, self._hub, item_ids).fail(now))


class _Leaving:
    """Items on their way out of the quarantine, in one transaction. Leaves it to be committed."""

    def __init__(self, session: Session, hub: TaskHub, item_ids: Sequence[AsideId]) -> None:
        self._session = session
        self._hub = hub
        self._found = _read(session, hub.hub_id, sorted(set(item_ids)))
        self._outcomes = dict.fromkeys(item_ids, AsideOutcome.GONE)
        keys = sorted({item.key for item, _ in self._found.values() if not is_entity(item.key.instance_id)})
        rows = session.ask(LOCK_INSTANCES, keys, hub=hub.hub_id) if keys else []
        self._live = {row.key: row for row in map(decode_instance, rows) if not row.status.is_terminal}

    def redrive(self) -> Mapping[AsideId, AsideOutcome]:
        back: list[tuple[AsideItem, AsideRow]] = []
        for item_id, (item, rows) in self._found.items():
            kept = [row for row in rows if self._is_taken(item, row)]
            self._outcomes[item_id] = AsideOutcome.DONE if kept else AsideOutcome.ENDED
            back += [(item, row) for row in kept]
        back.sort(key=_place)
        self._send(sql.INSERT_TASKS, [
            (*item.key, row.execution_id, row.task_id, row.name, row.version, 0, 0, row.content)
            for item, row in back if row.source is Source.TASK])
        self._send(sql.INSERT_MESSAGES, [(*item.key, row.execution_id, int(row.kind), 0, row.content)
                                         for item, row in back if row.source is Source.MESSAGE])
        self._send(sql.INSERT_TIMERS, [(*item.key, row.execution_id, int(row.kind), row.fire_at, 0, row.content)
                                       for item, row in back if row.source is Source.TIMER])
        return self._leave()

    def _is_taken(self, item: AsideItem, row: AsideRow) -> bool:
        """Tell whether a row, put back, would be taken: what an execution asked for runs even when that has ended."""
        if item.kind is not AsideKind.TURN:
            return True
        live = self._live.get(item.key)
        return live is not None and live.is_addressed_by(row.execution_id)

    def fail(self, now: int) -> Mapping[AsideId, AsideOutcome]:
        messages: list[NewMessage] = []
        endings: dict[InstanceKey, Ending] = {}
        for item_id, (item, rows) in self._found.items():
            self._outcomes[item_id] = AsideOutcome.DONE
            row = self._live.get(item.key)
            match item.kind:
                case AsideKind.ACTIVITY if row is not None and rows[0].execution_id == row.execution_id:
                    messages.append(failed_task(item, rows[0], now))
                case AsideKind.ENTITY:
                    told = failed_operations(item, rows, now, self._hub.partition_count)
                    if told is None:
                        self._outcomes[item_id] = AsideOutcome.UNFAILABLE
                    messages += told or []
                case AsideKind.TURN if row is not None and item.execution_id in (None, row.execution_id):
                    endings.setdefault(item.key, (row, *failed(row, failure_of(item), _start(rows), now)))
                case _:
                    pass  # nobody waits for it any more
        end(self._session, self._hub, [endings[key] for key in sorted(endings)], None, now)
        self._send(sql.INSERT_MESSAGES, [message_row(message) for message in messages if message.key not in endings])
        return self._leave()

    def _leave(self) -> Mapping[AsideId, AsideOutcome]:
        gone = sorted(item_id for item_id, outcome in self._outcomes.items() if outcome is AsideOutcome.DONE)
        self._send(DELETE_ITEMS, gone)
        self._send(DELETE_ROWS, gone)
        return self._outcomes

    def _send(self, statement: Statement, rows: Sequence[Row]) -> None:
        if rows:
            self._session.send(statement, rows, hub=self._hub.hub_id)


def page_statement(instance_id: str | None, after: str | None, limit: int) -> Select[Any]:
    """Build the statement of a page: one row more than asked, to tell whether there is a next one."""
    order = (quarantine.c.set_aside_at, quarantine.c.source, quarantine.c.seq)
    conditions: list[ColumnElement[bool]] = [quarantine.c.hub_id == sql.HUB]
    if instance_id is not None:
        conditions.append(quarantine.c.instance_id == bindparam("instance_id", type_=TEXT))
    if after is not None:
        conditions.append(tuple_(*order) > tuple_(*_position(after)))
    return (select(*_ITEM).select_from(quarantine.outerjoin(instances, _ITS_INSTANCE)).where(*conditions)
            .order_by(*order).limit(limit + 1))


def _token(item: AsideItem) -> str:
    return f"{item.set_aside_at}:{int(item.id.source)}:{item.id.seq}"


def _position(token: str) -> tuple[int, ...]:
    parts = token.split(":")
    if len(parts) != len(("time", "source", "seq")) or not all(part.isascii() and part.isdigit() for part in parts):
        message = f"{token!r} is not where a page of the quarantine ended: use the `next` of the page before"
        raise InvalidArgumentError(message)
    return tuple(map(int, parts))


def _read(session: Session, hub_id: int, item_ids: Sequence[AsideId]) -> Found:
    if not item_ids:
        return {}
    found: dict[AsideId, tuple[AsideItem, list[AsideRow]]] = {
        (item := _item(row)).id: (item, []) for row in session.ask(READ_ITEMS, item_ids, hub=hub_id)}
    for item_source, item_seq, *values in session.ask(READ_ROWS, item_ids, hub=hub_id):
        if (entry := found.get(AsideId(Source(item_source), item_seq))) is not None:
            source, seq, execution_id, kind, *rest = values
            entry[1].append(AsideRow(Source(source), seq, execution_id, MessageKind(kind), *rest))
    # One without rows was there for the first statement alone: somebody else has taken it out.
    return {item_id: entry for item_id, entry in found.items() if entry[1]}


def _item(values: Sequence[Any]) -> AsideItem:
    (source, seq, partition, instance_id, execution_id, name, version, cause, worker, attempts, set_aside_at, rows, size,
     status) = values
    return AsideItem(AsideId(Source(source), seq), InstanceKey(partition, instance_id), execution_id, name, version,
                     cause.decode(), worker, attempts, set_aside_at, rows, int(size or 0),
                     None if status is None else Status(status))


def _start(rows: Sequence[AsideRow]) -> bytes:
    """Return what the start message among an item's rows holds."""
    return b"".join(row.content for row in rows if row.kind is MessageKind.START)


def _place(entry: tuple[AsideItem, AsideRow]) -> tuple[int, int]:
    return entry[1].source, entry[1].seq
