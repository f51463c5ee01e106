"""Parking rows and taking parked ones up again."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    case,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.ids import entity_name, is_entity
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.status import Status
from durabletask_sql.ports.parking import Park, Parked, ParkedCounts, ParkedPlace, ParkedRow
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.dialect import (
    BIGINT,
    INTEGER,
    Executable,
    Statement,
    by_seq,
    no_source,
    rows_of,
    same_row,
    unindexed,
)
from durabletask_sql.storage.session import Reply, Session, asked
from durabletask_sql.storage.tables import control_queue, instances, partitions, timers


def _park_messages(v: FromClause) -> Executable:
    """Park each instance's rows that are in memory or that nobody holds, the first ones of a claim; locked ones stay."""
    place = func.row_number().over(partition_by=(control_queue.c.partition, control_queue.c.instance_id),
                                   order_by=(control_queue.c.kind, control_queue.c.seq)).label("place")
    held = unindexed(control_queue.c.held_epoch)
    ranked = (select(*rows_of(control_queue), place)
              .select_from(v.join(control_queue, sql.by_instance(control_queue, v)))
              .where(held >= sql.ZERO, held <= v.c.epoch)).subquery("ranked")
    queue = control_queue.alias("q")
    picked = (select(*rows_of(ranked))
              .select_from(ranked.join(queue, same_row(queue, v, ranked)))
              .where(ranked.c.place <= bindparam("limit", type_=BIGINT))
              .order_by(ranked.c.partition, ranked.c.seq)
              .with_for_update(key_share=True, skip_locked=True, of=queue)).cte("picked")
    return (update(control_queue).where(same_row(control_queue, v, picked)).values(held_epoch=sql.PARKED)
            .returning(control_queue.c.partition, control_queue.c.seq))


def _park_timers(v: FromClause) -> Executable:
    picked = (select(*rows_of(timers)).select_from(v.join(timers, by_seq(timers, v)))
              .where(unindexed(timers.c.held_epoch) == v.c.epoch).order_by(timers.c.partition, timers.c.seq)
              .with_for_update(key_share=True, skip_locked=True, of=timers)).cte("picked")
    return (update(timers).where(same_row(timers, v, picked)).values(held_epoch=sql.PARKED)
            .returning(timers.c.partition, timers.c.seq))


PARK_MESSAGES = Statement("control_queue", _park_messages, {**sql.KEYS, "epoch": BIGINT})
PARK_TIMERS = Statement("timers", _park_timers, {**sql.SEQS, "epoch": BIGINT})


def _read(table: Table, fire_at: ColumnElement[int], *order: ColumnElement[int]) -> Select[Any]:
    """Read parked rows with what their instance is called."""
    start = case((and_(instances.c.status == int(Status.PENDING), instances.c.history_count == 0),
                  instances.c.scheduled_at))
    return (select(table.c.seq, fire_at, table.c.instance_id, instances.c.name, instances.c.version, start)
            .select_from(table.outerjoin(instances, and_(
                instances.c.hub_id == table.c.hub_id, instances.c.partition == table.c.partition,
                instances.c.instance_id == table.c.instance_id)))
            .where(table.c.hub_id == sql.HUB, table.c.partition == bindparam("partition", type_=INTEGER),
                   table.c.held_epoch == sql.PARKED)
            .order_by(*order).limit(bindparam("room", type_=BIGINT)))


_AFTER_AT, _AFTER = bindparam("after_at", type_=BIGINT), bindparam("after", type_=BIGINT)
READ_MESSAGES = Statement("control_queue", no_source(lambda: (
    _read(control_queue, sql.ZERO, control_queue.c.seq).where(control_queue.c.seq > _AFTER))))
READ_TIMERS = Statement("timers", no_source(lambda: (
    _read(timers, timers.c.fire_at, timers.c.fire_at, timers.c.seq)
    .where(tuple_(timers.c.fire_at, timers.c.seq) > tuple_(_AFTER_AT, _AFTER)))))


def _unpark(table: Table) -> Callable[[FromClause], Executable]:
    """Make all parked rows of some instances rows that nobody holds; locked ones are left."""
    def build(v: FromClause) -> Executable:
        picked = (select(*rows_of(table)).select_from(v.join(table, sql.by_instance(table, v)))
                  .where(unindexed(table.c.held_epoch) == sql.PARKED).order_by(table.c.partition, table.c.seq)
                  .with_for_update(key_share=True, skip_locked=True, of=table)).cte("picked")
        return (update(table).where(same_row(table, v, picked)).values(held_epoch=sql.ZERO)
                .returning(table.c.partition, table.c.seq))
    return build


UNPARK_MESSAGES = Statement("control_queue", _unpark(control_queue), sql.KEYS)
UNPARK_TIMERS = Statement("timers", _unpark(timers), sql.KEYS)


def _count() -> Executable:
    oldest = (select(control_queue.c.hub_id, control_queue.c.partition, control_queue.c.instance_id).distinct()
              .where(control_queue.c.hub_id == sql.HUB, control_queue.c.held_epoch == sql.PARKED,
                     control_queue.c.partition.in_(select(partitions.c.partition).where(
                         partitions.c.hub_id == sql.HUB)))
              .limit(bindparam("room", type_=BIGINT))).subquery("oldest")
    entity = case((instances.c.instance_id.is_(None), oldest.c.instance_id)).label("entity")
    return (select(entity, instances.c.name, instances.c.version, func.count())
            .select_from(oldest.outerjoin(instances, and_(
                instances.c.hub_id == oldest.c.hub_id, instances.c.partition == oldest.c.partition,
                instances.c.instance_id == oldest.c.instance_id)))
            .group_by(entity, instances.c.name, instances.c.version))


COUNT_PARKED = Statement("control_queue", no_source(_count))


def park(session: Session, hub_id: int, what: Park) -> Parked:
    """Park rows under the epochs that hold; partitions that are not ours any more are left alone and named."""
    # A lost parking does no harm: the rows are then held by an owner who hears of the crash, and starts afresh.
    session.begin(durable=False)
    named = sorted({key.partition for key in what.instances})
    partitions_read = session.send(sql.LOCK_PARTITIONS, [(partition,) for partition in named], hub=hub_id)
    session.flush()
    ours = {partition for partition, owner, epoch in partitions_read.rows
            if owner == what.host_id and epoch == what.epochs.get(partition)}
    keys = [(*key, what.epochs[key.partition]) for key in sorted(what.instances) if key.partition in ours]
    due = [(partition, seq, what.epochs[partition]) for partition, seq in sorted(what.timers) if partition in ours]
    messages = session.send(PARK_MESSAGES, keys, hub=hub_id, limit=what.limit) if keys else Reply()
    late = session.send(PARK_TIMERS, due, hub=hub_id) if due else Reply()
    session.commit()
    return Parked(frozenset(_pairs(messages)), frozenset(_pairs(late)), frozenset(named) - ours)


def count_parked(session: Session, hub_id: int, limit: int) -> ParkedCounts:
    """Count what is parked, by name: of at most `limit` instances and entities."""
    entities, found = Counter[str](), list[tuple[str, str | None, int]]()
    for entity, name, version, count in asked(session, COUNT_PARKED, hub=hub_id, room=limit):
        if entity is None:
            found.append((name, version, count))
        elif is_entity(entity):
            entities[entity_name(entity)] += count
    return ParkedCounts(tuple(found), entities)


def read_parked(session: Session, hub_id: int, place: ParkedPlace, limit: int) -> list[ParkedRow]:
    """Return the next parked rows from a place on."""
    statement = READ_TIMERS if place.timers else READ_MESSAGES
    rows = asked(session, statement, hub=hub_id, partition=place.partition, after_at=place.after_at,
                 after=place.after, room=limit)
    return [ParkedRow(seq, fire_at, InstanceKey(place.partition, instance_id), name, version, starts_at)
            for seq, fire_at, instance_id, name, version, starts_at in rows]


def unpark(session: Session, hub_id: int, keys: Sequence[InstanceKey]) -> Parked:
    """Un-park the messages and timers of some instances; return which."""
    session.begin(durable=False)
    replies = [session.send(statement, sorted(keys), hub=hub_id) for statement in (UNPARK_MESSAGES, UNPARK_TIMERS)]
    session.commit()
    return Parked(frozenset(_pairs(replies[0])), frozenset(_pairs(replies[1])))


def _pairs(reply: Reply) -> list[tuple[int, int]]:
    return [(partition, seq) for partition, seq in reply.rows]
