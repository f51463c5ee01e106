"""The statements of an examination: pages by keyset, and what belongs to the instances of one page."""

from collections.abc import Callable

from sqlalchemy import ColumnElement, Table, and_, bindparam, case, cast, func, literal_column, or_, select, tuple_, update
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.model.messages import MessageKind
from durabletask_sql.model.status import TERMINAL
from durabletask_sql.protocol.needs import HEAD_BYTES
from durabletask_sql.storage import entity_statements as entity_sql
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import COLUMNS
from durabletask_sql.storage.dialect import (
    BIGINT,
    BYTES,
    INTEGER,
    TEXT,
    Executable,
    Statement,
    hub_of,
    in_rows,
    keyed,
    no_source,
    rows_of,
)
from durabletask_sql.storage.tables import (
    activity_queue,
    control_queue,
    entities,
    history,
    hosts,
    instances,
    partitions,
    payloads,
    quarantine,
    task_hubs,
    timers,
)

PAGE = 200
ROWS_PAGE = 300
EXECUTIONS_PAGE = 150
_RELEASED = 20
_ENDED = sorted(int(status) for status in TERMINAL)
_PARTITION = bindparam("partition", type_=INTEGER)
_AFTER = bindparam("after", type_=TEXT)

HUBS = Statement("task_hubs", no_source(lambda: select(
    task_hubs.c.hub_id, task_hubs.c.name, task_hubs.c.partition_count).order_by(task_hubs.c.name)))

# Instances

KEYS = Statement("instances", no_source(lambda: select(instances.c.instance_id).where(
    instances.c.hub_id == sql.HUB, instances.c.partition == _PARTITION, instances.c.instance_id > _AFTER)
    .order_by(instances.c.instance_id).limit(PAGE)))

HISTORY_SIZES = Statement("history", lambda v: (
    select(history.c.partition, history.c.instance_id, func.sum(func.length(history.c.events)))
    .select_from(v.join(history, sql.by_key(history, v)))
    .group_by(history.c.partition, history.c.instance_id)), sql.KEYS)

HISTORY = Statement("history", lambda v: (
    select(history.c.partition, history.c.instance_id, history.c.first_sequence, history.c.event_count,
           history.c.events, history.c.refs)
    .select_from(v.join(history, and_(sql.by_key(history, v), history.c.execution_id == v.c.execution_id)))
    .order_by(history.c.partition, history.c.instance_id, history.c.first_sequence)), sql.EXECUTIONS)

PAYLOAD_SIZES = Statement("payloads", lambda v: (
    select(payloads.c.partition, payloads.c.instance_id, payloads.c.payload_id,
           func.coalesce(payloads.c.unpacked_size, func.length(payloads.c.content)))
    .select_from(v.join(payloads, and_(sql.by_key(payloads, v), payloads.c.execution_id == v.c.execution_id)))),
    sql.EXECUTIONS)

TASKS = Statement("activity_queue", lambda v: (
    select(activity_queue.c.partition, activity_queue.c.instance_id, activity_queue.c.task_id)
    .select_from(v.join(activity_queue, sql.by_instance(activity_queue, v)))
    .where(activity_queue.c.execution_id == v.c.execution_id)), sql.EXECUTIONS)


def _waiting(table: Table) -> Callable[[FromClause], Executable]:
    """Read the heads of what waits for some executions; of a start, which may be long, only that it is there."""
    head = case((table.c.kind == int(MessageKind.START), literal_column("NULL", BYTES)),
                else_=func.substr(table.c.events, 1, HEAD_BYTES))

    def build(v: FromClause) -> Executable:
        return (select(table.c.partition, table.c.instance_id, table.c.kind, head)
                .select_from(v.join(table, sql.by_instance(table, v)))
                .where(table.c.execution_id == v.c.execution_id))
    return build


MESSAGES = Statement("control_queue", _waiting(control_queue), sql.EXECUTIONS)
TIMERS = Statement("timers", _waiting(timers), sql.EXECUTIONS)

EVENTS = Statement("control_queue", lambda v: (
    select(control_queue.c.partition, control_queue.c.instance_id)
    .select_from(v.join(control_queue, sql.by_instance(control_queue, v)).join(instances, sql.by_key(instances, v)))
    .where(or_(control_queue.c.execution_id.is_(None),
               control_queue.c.execution_id == instances.c.parent_execution_id)).distinct()), sql.KEYS)

CHILDREN = Statement("instances", lambda v: (
    select(v.c.partition, v.c.instance_id, instances.c.parent_task_id)
    .select_from(v.join(instances, and_(
        instances.c.hub_id == hub_of(v), instances.c.parent_instance_id == v.c.instance_id,
        instances.c.parent_execution_id == v.c.execution_id)))
    .where(*(instances.c.status != number for number in _ENDED))), sql.EXECUTIONS)

SENT = Statement("control_queue", lambda v: (
    select(control_queue.c.instance_id, control_queue.c.execution_id)
    .select_from(v.join(control_queue, sql.by_instance(control_queue, v)))
    .where(control_queue.c.execution_id.is_not(None)).distinct()), sql.KEYS)

SET_ASIDE = Statement("quarantine", lambda v: (
    select(quarantine.c.instance_id).select_from(v.join(quarantine, sql.by_instance(quarantine, v))).distinct()),
    sql.KEYS)

# Entities

ENTITIES = Statement("entities", no_source(lambda: (
    select(*entity_sql.COLUMNS).where(entities.c.hub_id == sql.HUB, entities.c.partition == _PARTITION,
                                      entities.c.instance_id > _AFTER)
    .order_by(entities.c.instance_id).limit(PAGE))))

HOLDERS = Statement("instances", lambda v: (
    select(*COLUMNS).select_from(v.join(instances, and_(
        instances.c.hub_id == hub_of(v), instances.c.instance_id == v.c.instance_id)))), sql.KEYS)

RELEASES = Statement("control_queue", lambda v: (
    select(control_queue.c.instance_id).select_from(v.join(control_queue, sql.by_instance(control_queue, v)))
    .where(control_queue.c.kind == int(MessageKind.AHEAD)).distinct()), sql.KEYS)

# Belongings


def _queue_page(table: Table) -> Callable[[], Executable]:
    """Read a page of a queue in order of (instance, seq), which an index of each has."""
    order = (table.c.instance_id, table.c.seq)
    return lambda: (select(table.c.instance_id, table.c.seq, table.c.partition, table.c.execution_id)
                    .where(table.c.hub_id == sql.HUB, tuple_(*order) > tuple_(_AFTER, bindparam("seq", type_=BIGINT)))
                    .order_by(*order).limit(ROWS_PAGE))


def _execution_page(table: Table) -> Callable[[], Executable]:
    """Read a page of the executions that a table has rows of, in order of its key."""
    order = (table.c.partition, table.c.instance_id, table.c.execution_id)
    after = tuple_(_PARTITION, _AFTER, bindparam("execution_id", type_=TEXT))
    return lambda: (select(*order).where(table.c.hub_id == sql.HUB, tuple_(*order) > after)
                    .group_by(*order).order_by(*order).limit(EXECUTIONS_PAGE))


QUEUE_PAGES = {table.name: Statement(table.name, no_source(_queue_page(table)))
               for table in (activity_queue, control_queue, timers)}
EXECUTION_PAGES = {table.name: Statement(table.name, no_source(_execution_page(table))) for table in (history, payloads)}

OWNERS = Statement("instances", lambda v: (
    select(instances.c.partition, instances.c.instance_id, instances.c.execution_id, instances.c.status)
    .select_from(v.join(instances, sql.by_key(instances, v)))), sql.KEYS)

DROP_TASKS = Statement("activity_queue", lambda v: activity_queue.delete().where(keyed(activity_queue, v)), sql.SEQS)
DROPS = {"activity_queue": DROP_TASKS, "control_queue": sql.DROP_MESSAGES, "timers": sql.DROP_TIMERS,
         "history": sql.DELETE_HISTORY, "payloads": sql.DELETE_PAYLOADS}

# Ownership

PARTITIONS = Statement("partitions", no_source(lambda: select(
    partitions.c.partition, partitions.c.owner, partitions.c.epoch).where(partitions.c.hub_id == sql.HUB)
    .order_by(partitions.c.partition)))

HOSTS = Statement("hosts", no_source(lambda: select(
    hosts.c.host_id, hosts.c.name, hosts.c.heartbeat_at, hosts.c.expires_at).where(hosts.c.hub_id == sql.HUB)))

TIME = Statement("the transaction", no_source(lambda: select(cast(
    func.extract("epoch", func.clock_timestamp()) * 1_000_000, BIGINT))))

CLAIMS = Statement("activity_queue", no_source(lambda: select(activity_queue.c.host, func.count()).where(
    activity_queue.c.hub_id == sql.HUB, activity_queue.c.host > sql.ZERO).group_by(activity_queue.c.host)))


def _too_high(table: Table) -> ColumnElement[bool]:
    """Return the condition that a row of a partition is held under an epoch above this one."""
    return and_(table.c.hub_id == sql.HUB, table.c.partition == _PARTITION, table.c.held_epoch > sql.ZERO,
                table.c.held_epoch > bindparam("epoch", type_=BIGINT))


def _count_held(table: Table) -> Callable[[], Executable]:
    return lambda: select(func.count()).select_from(table).where(_too_high(table))


def _lower(table: Table) -> Callable[[], Executable]:
    return lambda: update(table).where(_too_high(table)).values(held_epoch=0)


HELD = {table.name: Statement(table.name, no_source(_count_held(table))) for table in (control_queue, timers)}
LOWER = {table.name: Statement(table.name, no_source(_lower(table))) for table in (control_queue, timers)}

HOST = Statement("hosts", no_source(lambda: select(hosts.c.host_id).where(
    hosts.c.hub_id == sql.HUB, hosts.c.host_id == bindparam("dead", type_=BIGINT))))



def _release_claims(v: FromClause) -> Executable:
    """Give back some of the tasks that a host has claimed: each moves in several indexes."""
    found = select(*rows_of(activity_queue)).where(
        activity_queue.c.hub_id == sql.HUB, activity_queue.c.host > sql.ZERO,
        activity_queue.c.host == bindparam("dead", type_=BIGINT)).order_by(activity_queue.c.seq).limit(_RELEASED)
    return update(activity_queue).where(in_rows(activity_queue, v, found)).values(host=0, token=0)


RELEASE_CLAIMS = Statement("activity_queue", _release_claims)
