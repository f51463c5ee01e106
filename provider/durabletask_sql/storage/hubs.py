"""Task hubs in their table, with the partitions that belong to them."""

from sqlalchemy import bindparam, insert, select

from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.storage.database import process_time
from durabletask_sql.storage.dialect import BIGINT, INTEGER, TEXT, Statement, insert_new, no_source
from durabletask_sql.storage.faults import ShortWriteError
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.statements import HUB
from durabletask_sql.storage.tables import partitions, task_hubs

_NAME = bindparam("name", type_=TEXT)

FIND_HUB = Statement("task_hubs", no_source(lambda: select(
    task_hubs.c.hub_id, task_hubs.c.name, task_hubs.c.partition_count).where(task_hubs.c.name == _NAME)))

INSERT_HUB = Statement("task_hubs", lambda v: insert_new(task_hubs, v).from_select(
    ["name", "partition_count", "created_at"],
    select(v.c.name, v.c.partition_count, v.c.created_at).where(v.c.ord.is_not(None))),
    {"name": TEXT, "partition_count": INTEGER, "created_at": BIGINT}, counted=True)

INSERT_PARTITIONS = Statement("partitions", lambda v: insert(partitions).from_select(
    ["hub_id", "partition"], select(HUB, v.c.partition).where(v.c.ord.is_not(None))), {"partition": INTEGER})


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
