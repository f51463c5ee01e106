"""The statements of the commit path, each written once. They name the hub and the partition in every predicate."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.selectable import FromClause
from sqlalchemy.types import TypeEngine

from durabletask_sql.model.messages import MessageKind
from durabletask_sql.storage.codec import COLUMNS, TURN_COLUMNS
from durabletask_sql.storage.dialect import (
    BIGINT,
    BYTES,
    INTEGER,
    SMALLINT,
    TEXT,
    Executable,
    Statement,
    by_columns,
    by_seq,
    hub_of,
    in_rows,
    insert_new,
    keyed,
    listed,
    locked,
    no_source,
    rows_of,
    same_row,
    unindexed,
)
from durabletask_sql.storage.tables import (
    activity_queue,
    control_queue,
    history,
    instances,
    partitions,
    payloads,
    timers,
)

Types = dict[str, TypeEngine[Any]]

HUB = bindparam("hub", type_=INTEGER)
PARKED = literal_column("-1", INTEGER)  # the least that held_epoch may be
ZERO = literal_column("0", INTEGER)  # not a parameter: the planner shows by it that a partial index serves
SEQS: Types = {"partition": INTEGER, "seq": BIGINT}
KEYS: Types = {"partition": INTEGER, "instance_id": TEXT}
EXECUTIONS: Types = {"partition": INTEGER, "instance_id": TEXT, "execution_id": TEXT}
_INSTANCE_TYPES: Types = {"partition": INTEGER, "instance_id": TEXT, "execution_id": TEXT, "generation": INTEGER,
                          "row_version": BIGINT, "name": TEXT, "version": TEXT, "status": SMALLINT,
                          "created_at": BIGINT, "updated_at": BIGINT, "completed_at": BIGINT, "scheduled_at": BIGINT,
                          "history_count": BIGINT, "last_turn_at": BIGINT, "custom_status": BYTES, "failure": BYTES,
                          "parent_instance_id": TEXT, "parent_execution_id": TEXT, "parent_task_id": INTEGER,
                          "parent_name": TEXT, "parent_version": TEXT, "tags": BYTES, "trace": BYTES,
                          "rewinds": INTEGER, "sections": BYTES}


def by_key(table: FromClause, v: FromClause) -> ColumnElement[bool]:
    """Return the condition that a row belongs to an instance of the source, by its table's primary key."""
    return and_(table.c.hub_id == hub_of(v), table.c.partition == v.c.partition,
                table.c.instance_id == v.c.instance_id)


def by_instance(table: Table, v: FromClause) -> ColumnElement[bool]:
    """Return the condition that a queue's row belongs to an instance of the source, by the (hub, instance, seq) index."""
    return and_(table.c.hub_id == hub_of(v), unindexed(table.c.partition) == v.c.partition,
                table.c.instance_id == v.c.instance_id)


def insert_rows(table: Table, v: FromClause, types: Types, base: Insert | None = None) -> Insert:
    """Return the insert of the source's rows, in their order."""
    values = [HUB, *(v.c[name] for name in types)]
    numbered = select(*values).select_from(v).where(v.c.ord.is_not(None)).order_by(v.c.ord)
    return (insert(table) if base is None else base).from_select(["hub_id", *types], numbered)


# Locks and reads

LOCK_PARTITIONS = Statement("partitions", lambda v: (
    select(partitions.c.partition, partitions.c.owner, partitions.c.epoch)
    .where(by_columns(partitions, v, "partition"))
    .order_by(partitions.c.partition).with_for_update(read=True, of=partitions)), {"partition": INTEGER})

HOLD_PARTITIONS = Statement("partitions", lambda v: (
    select(partitions.c.partition)
    .where(by_columns(partitions, v, "partition", "epoch"), partitions.c.owner == bindparam("owner", type_=BIGINT))
    .order_by(partitions.c.partition).with_for_update(read=True, of=partitions)),
    {"partition": INTEGER, "epoch": BIGINT}, counted=True)

LOCK_FREE_PARTITIONS = Statement("partitions", lambda v: (
    select(partitions.c.partition, partitions.c.owner, partitions.c.epoch)
    .where(by_columns(partitions, v, "partition"))
    .order_by(partitions.c.partition).with_for_update(read=True, skip_locked=True, of=partitions)),
    {"partition": INTEGER})

_FENCES = (instances.c.partition, instances.c.instance_id, instances.c.row_version, instances.c.status,
           instances.c.execution_id, instances.c.generation)

READ_FENCES = Statement("instances", lambda v: (
    select(*_FENCES).select_from(v.join(instances, by_key(instances, v)))), KEYS)

LOCK_FENCES = Statement("instances", lambda v: (
    select(*_FENCES).select_from(v.join(instances, by_key(instances, v)))
    .order_by(instances.c.partition, instances.c.instance_id)
    .with_for_update(key_share=True, skip_locked=True, of=instances)), KEYS)


def _read_keys(table: Table, *columns: ColumnElement[Any], lock: bool) -> Callable[[FromClause], Executable]:
    def build(v: FromClause) -> Executable:
        found = select(table.c.partition, table.c.seq, *columns).where(keyed(table, v))
        if not lock:
            return found
        return found.order_by(table.c.partition, table.c.seq).with_for_update(skip_locked=True, of=table)
    return build


READ_TASKS = Statement("activity_queue", _read_keys(activity_queue, activity_queue.c.token, lock=False), SEQS)
LOCK_TASKS = Statement("activity_queue", _read_keys(activity_queue, activity_queue.c.token, lock=True), SEQS)
READ_QUEUE_KEYS = {table.name: Statement(table.name, _read_keys(table, lock=False), SEQS)
                   for table in (control_queue, timers)}
LOCK_QUEUE_KEYS = {table.name: Statement(table.name, _read_keys(table, lock=True), SEQS)
                   for table in (control_queue, timers)}

# Instances

def _update_instances(types: Types) -> Callable[[FromClause], Executable]:
    """Write rows whose version rises by one, and only over the version before: the fence is in the statement itself."""
    def build(v: FromClause) -> Executable:
        before = instances.alias("before")
        rows = locked(v, lambda: (
            select(*(v.c[name] for name in types), hub_of(v).label("hub_id"))
            .select_from(v.join(before, and_(by_key(before, v), before.c.row_version == v.c.row_version - 1)))
            .order_by(before.c.partition, before.c.instance_id)
            .with_for_update(key_share=True, skip_locked=True, of=before)))
        return (update(instances).where(by_key(instances, rows), instances.c.row_version == rows.c.row_version - 1)
                .values({name: rows.c[name] for name in types if name not in KEYS}))
    return build


UPDATE_INSTANCES = Statement("instances", _update_instances(_INSTANCE_TYPES), _INSTANCE_TYPES, counted=True)
_TURN_TYPES = {name: _INSTANCE_TYPES[name] for name in TURN_COLUMNS}
UPDATE_TURNS = Statement("instances", _update_instances(_TURN_TYPES), _TURN_TYPES, counted=True)

INSERT_INSTANCES = Statement(
    "instances", lambda v: insert_rows(instances, v, _INSTANCE_TYPES, insert_new(instances, v)), _INSTANCE_TYPES,
    counted=True)

# Queues

_TASK: Types = {"partition": INTEGER, "instance_id": TEXT, "execution_id": TEXT, "task_id": INTEGER, "name": TEXT,
                "version": TEXT, "host": BIGINT, "token": BIGINT, "event": BYTES}
INSERT_TASKS = Statement(
    "activity_queue", lambda v: insert_rows(activity_queue, v, _TASK).returning(activity_queue.c.seq), _TASK)


def held_tasks(v: FromClause, *, skip_locked: bool) -> FromClause:
    """Return the claimed tasks of the source that are still under their claim, locked in the order of their keys."""
    held = activity_queue.alias("held")
    return locked(v, lambda: (
        select(*rows_of(held), v.c.token).select_from(v.join(held, and_(
            held.c.hub_id == hub_of(v), held.c.partition == v.c.partition, held.c.seq == v.c.seq,
            held.c.token == v.c.token)))
        .order_by(held.c.partition, held.c.seq).with_for_update(skip_locked=skip_locked, of=held)))


def _delete_tasks(v: FromClause) -> Executable:
    """Delete claimed tasks, each only under its claim: this fence, too, is in the statement itself."""
    return delete(activity_queue).where(keyed(activity_queue, held_tasks(v, skip_locked=True), "token"))


DELETE_TASKS = Statement("activity_queue", _delete_tasks, {**SEQS, "token": BIGINT}, counted=True)


def rows_left(table: Table, v: FromClause, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition that a queue row is of some instances, by the (hub, instance, seq) index, locked in order."""
    found = select(*rows_of(table)).select_from(v.join(table, by_instance(table, v))).where(*conditions)
    if not isinstance(v, CTE):
        found = found.order_by(table.c.partition, table.c.seq).with_for_update(of=table)
    return in_rows(table, v, found)


SWEEP_UNCLAIMED = Statement("activity_queue", lambda v: (
    delete(activity_queue).where(
        activity_queue.c.host == 0, rows_left(activity_queue, v, activity_queue.c.host == 0))), KEYS)


def _drop(table: Table) -> Callable[[FromClause], Executable]:
    """Delete rows by key, locked in that order first: no lock of an instance keeps others from them."""
    def build(v: FromClause) -> Executable:
        found = table.alias("found")
        rows = locked(v, lambda: (
            select(*rows_of(found)).select_from(v.join(found, by_seq(found, v)))
            .order_by(found.c.partition, found.c.seq).with_for_update(of=found)))
        return delete(table).where(keyed(table, rows))
    return build


_MESSAGE: Types = {"partition": INTEGER, "instance_id": TEXT, "execution_id": TEXT, "kind": SMALLINT,
                   "held_epoch": BIGINT, "events": BYTES}
INSERT_MESSAGES = Statement(
    "control_queue", lambda v: insert_rows(control_queue, v, _MESSAGE).returning(control_queue.c.seq), _MESSAGE)
# Not locked in order: whoever deletes what a turn or a step has consumed holds the row of its instance or its entity, as
# others do who delete such rows (what is set aside is locked where it is copied); all else passes locked rows over.
DELETE_MESSAGES = Statement("control_queue", lambda v: delete(control_queue).where(keyed(control_queue, v)), SEQS,
                            counted=True)
DROP_MESSAGES = Statement("control_queue", _drop(control_queue), SEQS)

_TIMER: Types = {"partition": INTEGER, "instance_id": TEXT, "execution_id": TEXT, "kind": SMALLINT,
                 "fire_at": BIGINT, "held_epoch": BIGINT, "events": BYTES}
INSERT_TIMERS = Statement("timers", lambda v: insert_rows(timers, v, _TIMER).returning(timers.c.seq), _TIMER)
DELETE_TIMERS = Statement("timers", lambda v: delete(timers).where(keyed(timers, v)), SEQS, counted=True)
DROP_TIMERS = Statement("timers", _drop(timers), SEQS)


def _sweep(table: Table) -> Callable[[FromClause], Executable]:
    """Delete all rows of some instances."""
    return lambda v: delete(table).where(rows_left(table, v))


# Messages whose bytes end so: what a sweep takes is not read whole to find the few that matter.
READ_ENDING_WITH = Statement("control_queue", lambda v: (
    select(control_queue.c.partition, control_queue.c.instance_id, control_queue.c.execution_id, control_queue.c.events)
    .select_from(v.join(control_queue, by_instance(control_queue, v)))
    .where(func.substr(control_queue.c.events, func.length(control_queue.c.events) - 1)
           == bindparam("tail", type_=BYTES))), KEYS)

SWEEP_MESSAGES = Statement("control_queue", _sweep(control_queue), KEYS)
SWEEP_TIMERS = Statement("timers", _sweep(timers), KEYS)

# History and payloads

_HISTORY: Types = {"partition": INTEGER, "instance_id": TEXT, "execution_id": TEXT, "first_sequence": BIGINT,
                   "event_count": INTEGER, "events": BYTES, "refs": BYTES}
INSERT_HISTORY = Statement("history", lambda v: insert_rows(history, v, _HISTORY), _HISTORY)
_PAYLOAD: Types = {"partition": INTEGER, "instance_id": TEXT, "execution_id": TEXT, "payload_id": INTEGER,
                   "content": BYTES, "unpacked_size": INTEGER}
INSERT_PAYLOADS = Statement("payloads", lambda v: insert_rows(payloads, v, _PAYLOAD), _PAYLOAD)


def _delete_execution(table: Table) -> Callable[[FromClause], Executable]:
    def build(v: FromClause) -> Executable:
        return delete(table).where(by_columns(table, v, "partition", "instance_id", "execution_id"))
    return build


DELETE_HISTORY = Statement("history", _delete_execution(history), EXECUTIONS)
DELETE_PAYLOADS = Statement("payloads", _delete_execution(payloads), EXECUTIONS)

# The claim

CLAIMS: Types = {**KEYS, "epoch": BIGINT}
QUEUE_ROW = (control_queue.c.partition, control_queue.c.seq, control_queue.c.instance_id,
              control_queue.c.execution_id, control_queue.c.kind, control_queue.c.events,
              control_queue.c.failed_deliveries)


def unheld(v: FromClause) -> ColumnElement[bool]:
    """Return the condition on queue rows that they are of an instance of the source, and not held.

    Mostly all rows of its partition are held, and one look at an index tells so: without it a fan-in would read, with
    each group of results, all those that wait for its turn. The offset keeps the planner from making a join of it; what
    no row is below, it has to be told, for the partial index to serve.
    """
    any_row = control_queue.alias("any_row")
    partition_has_some = exists(select(literal_column("1")).select_from(any_row).where(
        any_row.c.hub_id == hub_of(v), any_row.c.partition == v.c.partition,
        any_row.c.held_epoch >= PARKED, any_row.c.held_epoch < v.c.epoch).offset(ZERO))
    return and_(partition_has_some, unindexed(control_queue.c.held_epoch) < v.c.epoch)


def _claim(v: FromClause) -> Executable:
    """Claim each instance's oldest un-held rows, as many as it has room for; a locked row is skipped and caps it.

    Rows that go before all others come on top: without them an instance whose room is taken might never run.
    """
    place = func.row_number().over(partition_by=(control_queue.c.partition, control_queue.c.instance_id),
                                   order_by=(control_queue.c.kind, control_queue.c.seq)).label("place")
    ranked = (select(*rows_of(control_queue), control_queue.c.kind, v.c.epoch, v.c.room, place)
              .select_from(v.join(control_queue, by_instance(control_queue, v)))
              .where(unheld(v))).subquery("ranked")
    queue = control_queue.alias("q")
    picked = (select(*rows_of(ranked), ranked.c.epoch)
              .select_from(ranked.join(queue, same_row(queue, v, ranked)))
              .where(or_(ranked.c.place <= ranked.c.room, ranked.c.kind < int(MessageKind.EVENT)))
              .order_by(ranked.c.partition, ranked.c.seq)
              .with_for_update(key_share=True, skip_locked=True, of=queue)).cte("picked")
    return (update(control_queue)
            .where(same_row(control_queue, v, picked))
            .values(held_epoch=picked.c.epoch).returning(*QUEUE_ROW))


CLAIM = Statement("control_queue", _claim, {**CLAIMS, "room": BIGINT})

CEILINGS = Statement("control_queue", lambda v: (
    select(control_queue.c.partition, control_queue.c.instance_id, func.min(control_queue.c.seq))
    .select_from(v.join(control_queue, by_instance(control_queue, v)))
    .where(unheld(v))
    .group_by(control_queue.c.partition, control_queue.c.instance_id)), CLAIMS)

HELD = Statement("control_queue", lambda v: (
    select(*QUEUE_ROW).select_from(v.join(control_queue, by_instance(control_queue, v)))
    .where(unindexed(control_queue.c.held_epoch) == v.c.epoch)), CLAIMS)

# Loads

def _scan(*also: ColumnElement[bool]) -> Executable:
    return (select(control_queue.c.instance_id)
            .where(control_queue.c.hub_id == HUB, control_queue.c.partition == bindparam("partition", type_=INTEGER),
                   control_queue.c.held_epoch >= ZERO, control_queue.c.held_epoch < bindparam("epoch", type_=BIGINT),
                   *also)
            .order_by(control_queue.c.held_epoch.desc(), control_queue.c.seq)
            .limit(bindparam("room", type_=BIGINT)))


SCAN = Statement("control_queue", no_source(_scan))
# Without the rows of some instances: a list in one parameter, since a source is sent in pieces when it is long.
SCAN_OTHERS = Statement("control_queue", lambda v: _scan(control_queue.c.instance_id.not_in(listed(v, "full"))))

FRESH_INSTANCES = Statement("instances", lambda v: (
    select(*COLUMNS).select_from(v.join(instances, by_key(instances, v)))), KEYS)

FRESH_HISTORY = Statement("history", lambda v: (
    select(history.c.partition, history.c.instance_id, history.c.events, history.c.refs)
    .select_from(v.join(instances, by_key(instances, v)).join(history, and_(
        history.c.hub_id == instances.c.hub_id, history.c.partition == instances.c.partition,
        history.c.instance_id == instances.c.instance_id, history.c.execution_id == instances.c.execution_id)))
    .order_by(history.c.partition, history.c.instance_id, history.c.first_sequence)), KEYS)

READ_TEXTS = Statement("payloads", lambda v: (
    select(payloads.c.payload_id, payloads.c.content, payloads.c.unpacked_size)
    .select_from(v.join(payloads, and_(
        by_key(payloads, v), payloads.c.execution_id == v.c.execution_id,
        payloads.c.payload_id == v.c.payload_id)))), {**EXECUTIONS, "payload_id": INTEGER})


_TIMER_ROW = (timers.c.partition, timers.c.seq, timers.c.instance_id, timers.c.execution_id, timers.c.kind,
              timers.c.fire_at, timers.c.events, timers.c.failed_deliveries)


def held_by_nobody(table: FromClause, epoch: ColumnElement[int]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the two conditions under which nobody holds a timer: it never was held, or its holder has lost it.

    Apart, since the index by held_epoch and time is in order of time only beside one value of held_epoch. Of the
    second kind there are no more than a lost owner's window held.
    """
    return table.c.held_epoch == ZERO, and_(table.c.held_epoch > ZERO, table.c.held_epoch < epoch)


def _claim_timers(v: FromClause) -> Executable:
    due, epoch = timers.alias("due"), bindparam("epoch", type_=BIGINT)
    earliest = [select(*rows_of(due)).where(
        due.c.hub_id == HUB, due.c.partition == bindparam("partition", type_=INTEGER), held,
        due.c.fire_at <= bindparam("horizon", type_=BIGINT))
        .order_by(due.c.fire_at, due.c.seq).limit(bindparam("room", type_=BIGINT))
        .with_for_update(key_share=True, skip_locked=True).subquery() for held in held_by_nobody(due, epoch)]
    picked = union_all(*(select(*rows_of(found)) for found in earliest))
    return (update(timers).where(in_rows(timers, v, picked))
            .values(held_epoch=epoch)
            .returning(*_TIMER_ROW))


CLAIM_TIMERS = Statement("timers", _claim_timers)

HELD_TIMERS = Statement("timers", lambda v: (
    select(*_TIMER_ROW).select_from(v.join(timers, by_instance(timers, v)))
    .where(unindexed(timers.c.held_epoch) == v.c.epoch)), CLAIMS)

TASK_ROW = (activity_queue.c.partition, activity_queue.c.seq, activity_queue.c.instance_id,
             activity_queue.c.execution_id, activity_queue.c.task_id, activity_queue.c.name, activity_queue.c.version,
             activity_queue.c.event, activity_queue.c.token, activity_queue.c.failed_deliveries)

FIND_TASK = Statement("activity_queue", lambda v: (
    select(*TASK_ROW).where(keyed(activity_queue, v), activity_queue.c.token == bindparam("claim", type_=BIGINT))),
    SEQS)
