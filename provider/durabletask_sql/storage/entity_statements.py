"""The statements about entities, each written once. They name the hub and the partition in every predicate."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.model.entities import EntityRow, LockOwner
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import decode_text, encode_text
from durabletask_sql.storage.dialect import (
    BIGINT,
    BYTES,
    INTEGER,
    TEXT,
    Executable,
    Statement,
    by_columns,
    insert_new,
    unindexed,
)
from durabletask_sql.storage.tables import control_queue, entities

ROW: sql.Types = {"partition": INTEGER, "instance_id": TEXT, "row_version": BIGINT, "state": BYTES,
                  "modified_at": BIGINT, "lock_instance_id": TEXT, "lock_execution_id": TEXT, "lock_section_id": TEXT}
COLUMNS = tuple(entities.c[name] for name in ROW)


def encode_entity(row: EntityRow) -> tuple[object, ...]:
    """Return the values of COLUMNS."""
    lock = row.lock if row.lock is not None else (None, None, None)
    return (*row.key, row.row_version, encode_text(row.state), row.modified_at, *lock)


def decode_entity(values: tuple[Any, ...]) -> EntityRow:
    """Return the model's row of the values of COLUMNS."""
    partition, instance_id, row_version, state, modified_at, *lock = values
    return EntityRow(partition, instance_id, row_version, decode_text(state), modified_at,
                     None if lock[0] is None else LockOwner(*lock))


def _fences(*, lock: bool) -> Callable[[FromClause], Executable]:
    def build(v: FromClause) -> Executable:
        found = select(entities.c.partition, entities.c.instance_id, entities.c.row_version).select_from(
            v.join(entities, sql.by_key(entities, v)))
        return found.order_by(entities.c.partition, entities.c.instance_id).with_for_update(
            skip_locked=True, of=entities) if lock else found
    return build


READ_FENCES = Statement("entities", _fences(lock=False), sql.KEYS)
LOCK_FENCES = Statement("entities", _fences(lock=True), sql.KEYS)

INSERT_ENTITIES = Statement("entities", lambda v: sql.insert_rows(entities, v, ROW, insert_new(entities, v)), ROW,
                            counted=True)
UPDATE_ENTITIES = Statement("entities", lambda v: (
    update(entities).where(sql.by_key(entities, v)).values({name: v.c[name] for name in ROW if name not in sql.KEYS})),
    ROW)
DELETE_ENTITIES = Statement("entities", lambda v: (
    delete(entities).where(by_columns(entities, v, "partition", "instance_id"))), sql.KEYS)

FRESH_ENTITIES = Statement("entities", lambda v: (
    select(*COLUMNS).select_from(v.join(entities, sql.by_key(entities, v)))), sql.KEYS)

LOCK_ENTITY = Statement("entities", lambda v: (
    select(*COLUMNS).select_from(v.join(entities, sql.by_key(entities, v))).with_for_update(of=entities)), sql.KEYS)


def _held_share(v: FromClause) -> Executable:
    """Read each entity's lowest held rows, and whatever is AHEAD; one more than the share tells that there are more."""
    place = func.row_number().over(
        partition_by=(control_queue.c.partition, control_queue.c.instance_id, control_queue.c.kind),
        order_by=control_queue.c.seq).label("place")
    ranked = (select(*sql.QUEUE_ROW, place)
              .select_from(v.join(control_queue, sql.by_instance(control_queue, v)))
              .where(unindexed(control_queue.c.held_epoch) == v.c.epoch)).subquery("ranked")
    return select(*(ranked.c[column.name] for column in sql.QUEUE_ROW)).where(or_(
        ranked.c.kind == int(MessageKind.AHEAD), ranked.c.place <= bindparam("share", type_=BIGINT)))


HELD_SHARE = Statement("control_queue", _held_share, sql.CLAIMS)

# What clients ask


def backlog() -> ColumnElement[int]:
    """Return how many messages wait for an entity."""
    return (select(func.count()).select_from(control_queue)
            .where(control_queue.c.hub_id == entities.c.hub_id,
                   unindexed(control_queue.c.partition) == entities.c.partition,
                   control_queue.c.instance_id == entities.c.instance_id).scalar_subquery())


READ_ENTITIES = Statement("entities", lambda v: (
    select(*COLUMNS, backlog()).select_from(v.join(entities, sql.by_key(entities, v)))), sql.KEYS)


def has_release() -> ColumnElement[bool]:
    """Return the condition that a message is on its way to an entity which may free it."""
    return and_(control_queue.c.hub_id == entities.c.hub_id,
                unindexed(control_queue.c.partition) == entities.c.partition,
                control_queue.c.instance_id == entities.c.instance_id,
                control_queue.c.kind == int(MessageKind.AHEAD))
