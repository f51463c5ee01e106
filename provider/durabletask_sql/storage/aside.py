"""How a group sets items aside: each becomes a row of `quarantine`, with copies of the rows that it consists of."""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import CTE, ColumnElement, Table, and_, insert, literal_column, select
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.model.checkpoints import Quarantine
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.model.quarantine import Source
from durabletask_sql.storage.dialect import BIGINT, BYTES, INTEGER, SMALLINT, TEXT, Executable, Row, Statement, hub_of
from durabletask_sql.storage.statements import SEQS, Types, insert_rows
from durabletask_sql.storage.tables import activity_queue, control_queue, quarantine, quarantine_rows, timers

_ITEM: Types = {"partition": INTEGER, "source": SMALLINT, "seq": BIGINT, "instance_id": TEXT, "execution_id": TEXT,
                "name": TEXT, "version": TEXT, "cause": BYTES, "worker": TEXT, "attempts": INTEGER,
                "set_aside_at": BIGINT}
_COPY: Types = {**SEQS, "item_source": SMALLINT, "item_seq": BIGINT}
_EVENT = literal_column(str(int(MessageKind.EVENT)), SMALLINT)

SET_ASIDE = Statement("quarantine", lambda v: insert_rows(quarantine, v, _ITEM), _ITEM)


def _copy(table: Table, source: Source, content: ColumnElement[bytes], **columns: ColumnElement[Any]
          ) -> Callable[[FromClause], Executable]:
    """Copy rows of a queue as they stand; `columns` are those that not every queue has."""
    def build(v: FromClause) -> Executable:
        copied: dict[str, ColumnElement[Any]] = {
            "hub_id": table.c.hub_id, "partition": table.c.partition, "item_source": v.c.item_source,
            "item_seq": v.c.item_seq, "source": literal_column(str(int(source)), SMALLINT), "seq": table.c.seq,
            "instance_id": table.c.instance_id, "execution_id": table.c.execution_id, "content": content, **columns}
        rows = select(*copied.values()).select_from(v.join(table, and_(
            table.c.hub_id == hub_of(v), table.c.partition == v.c.partition, table.c.seq == v.c.seq)))
        if not isinstance(v, CTE):  # what is deleted next, whose order is not certain (I7)
            rows = rows.order_by(table.c.partition, table.c.seq).with_for_update(of=table)
        return insert(quarantine_rows).from_select(list(copied), rows)
    return build


COPY = {
    Source.MESSAGE: Statement("control_queue", _copy(
        control_queue, Source.MESSAGE, control_queue.c.events, kind=control_queue.c.kind), _COPY),
    Source.TIMER: Statement("timers", _copy(
        timers, Source.TIMER, timers.c.events, kind=timers.c.kind, fire_at=timers.c.fire_at), _COPY),
    Source.TASK: Statement("activity_queue", _copy(
        activity_queue, Source.TASK, activity_queue.c.event, kind=_EVENT, task_id=activity_queue.c.task_id,
        name=activity_queue.c.name, version=activity_queue.c.version), _COPY),
}


def taken(item: Quarantine) -> dict[Source, tuple[int, ...]]:
    """Return the sequences of the rows that an item consists of."""
    found = {Source.MESSAGE: item.seqs, Source.TIMER: item.timers,
             Source.TASK: (item.activity[0],) if item.activity is not None else ()}
    return {source: seqs for source, seqs in found.items() if seqs}


def item_row(item: Quarantine, now: int) -> Row:
    """Return the row of `quarantine`: an item is known by its first row."""
    blame, (source, seqs) = item.blame, next(iter(taken(item).items()))
    return (item.key.partition, int(source), min(seqs), item.key.instance_id, blame.execution_id, blame.name, blame.version,
            item.cause.encode(), blame.worker, blame.attempts, now)


def copies(items: Iterable[Quarantine], source: Source) -> list[Row]:
    """Return what the rows of items in one queue are copied by."""
    found: list[Row] = []
    for item in items:
        _, item_source, item_seq, *_ = item_row(item, 0)
        found += [(item.key.partition, seq, item_source, item_seq) for seq in taken(item).get(source, ())]
    return sorted(found)
