"""Task hubs in their table, with the partitions that belong to them."""

from collections.abc import Callable

from sqlalchemy import Table, bindparam, delete, exists, insert, literal_column, select, update

from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.storage.database import process_time
from durabletask_sql.storage.dialect import BIGINT, INTEGER, TEXT, Executable, Statement, insert_new, no_source
from durabletask_sql.storage.faults import ShortWriteError
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.statements import HUB
from durabletask_sql.storage.tables import (
    activity_queue,
    control_queue,
    dispatches,
    history,
    hosts,
    instances,
    metadata,
    partitions,
    payloads,
    task_hubs,
    timers,
)

_NAME = bindparam("name", type_=TEXT)

FIND_HUB = Statement("task_hubs", no_source(lambda: select(
    task_hubs.c.hub_id, task_hubs.c.name, task_hubs.c.partition_count).where(task_hubs.c.name == _NAME)))

INSERT_HUB = Statement("task_hubs", lambda v: insert_new(task_hubs, v).from_select(
    ["name", "partition_count", "created_at"],
    select(v.c.name, v.c.partition_count, v.c.created_at).where(v.c.ord.is_not(None))),
    {"name": TEXT, "partition_count": INTEGER, "created_at": BIGINT}, counted=True)

INSERT_PARTITIONS = Statement("partitions", lambda v: insert(partitions).from_select(
    ["hub_id", "partition"], select(HUB, v.c.partition).where(v.c.ord.is_not(None))), {"partition": INTEGER})


RAISE_EPOCHS = Statement("partitions", no_source(lambda: update(partitions).where(
    partitions.c.hub_id == HUB).values(epoch=partitions.c.epoch + 1)))

EMPTY_INSTANCES = Statement("instances", no_source(lambda: delete(instances).where(instances.c.hub_id == HUB)))


def _empty(table: Table) -> Callable[[], Executable]:
    """Delete the rows of a hub that belong to no instance.

    Those of an instance that was made after the statement before are left: they are seen together with it.
    """
    alive = exists(select(literal_column("1")).where(
        instances.c.hub_id == table.c.hub_id, instances.c.partition == table.c.partition,
        instances.c.instance_id == table.c.instance_id).correlate(table))
    return lambda: delete(table).where(table.c.hub_id == HUB, ~alive)


def _remove(table: Table) -> Callable[[], Executable]:
    return lambda: delete(table).where(table.c.hub_id == HUB)


# In the fixed lock order, then whatever else belongs to instances.
_ORDER = (activity_queue, control_queue, timers, history, payloads)
_BELONGING = (*_ORDER, *(table for table in metadata.tables.values()
                         if "instance_id" in table.c and table not in (instances, *_ORDER)))
EMPTY = {table.name: Statement(table.name, no_source(_empty(table))) for table in _BELONGING}


def empty_hub(session: Session, hub_id: int) -> None:
    """Delete everything that a hub holds. Leaves the transaction to be committed.

    The epochs come first: no turn commits meanwhile, and none of before does afterwards. Clients' writes that hold an
    instance are waited for by the deletion of its row, so that the statements behind it see all that they wrote.
    """
    session.send(RAISE_EPOCHS, hub=hub_id)
    session.send(EMPTY_INSTANCES, hub=hub_id)
    for statement in EMPTY.values():
        session.send(statement, hub=hub_id)


def find_hub(session: Session, name: str) -> TaskHub | None:
    """Return the hub with this name, if there is one."""
    found = session.ask(FIND_HUB, name=name)
    return TaskHub(*found[0]) if found else None


REMOVE = tuple(Statement(table.name, no_source(_remove(table))) for table in (partitions, dispatches, hosts, task_hubs))


def remove_hub(session: Session, hub_id: int) -> None:
    """Delete a hub that nobody serves, with everything that it holds. Leaves the transaction to be committed."""
    empty_hub(session, hub_id)
    for statement in REMOVE:
        session.send(statement, hub=hub_id)


def open_hub(session: Session, name: str, partition_count: int) -> TaskHub:
    """Return the hub, created with its partitions when it is missing; racing creators agree."""
    found = session.ask(FIND_HUB, name=name)
    if not found:
        try:
            session.begin()
            session.send(INSERT_HUB, [(name, partition_count, process_time())])
            hub_id = session.ask(FIND_HUB, name=name)[0][0]
            session.send(INSERT_PARTITIONS, [(partition,) for partition in range(partition_count)], hub=hub_id)
            session.commit()
        except ShortWriteError:
            session.rollback()  # another process was faster
        found = session.ask(FIND_HUB, name=name)
    return TaskHub(*found[0])
