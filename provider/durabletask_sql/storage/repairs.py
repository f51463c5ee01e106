"""The repairs that are safe whatever runs beside them. Each looks again with its rows locked, in the fixed lock order.

What they delete is named exactly: a sequence is never given out twice, an execution id never comes back.
"""

from durabletask_sql.ids import partition_of
from durabletask_sql.model.belongings import Belonging, Owner, is_orphan
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.storage import entity_statements as entity_sql
from durabletask_sql.storage import inspection_statements as sql
from durabletask_sql.storage.codec import decode_instance
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.statements import LOCK_PARTITIONS
from durabletask_sql.storage.writes import LOCK_INSTANCES, queue_message
from durabletask_sql.turn.entity.messages import Release
from durabletask_sql.turn.entity.sections import release_message


def delete_orphan(session: Session, hub_id: int, row: Belonging) -> int:
    """Delete rows that belong to nobody; 0 when somebody does have them."""
    found = session.ask(LOCK_INSTANCES, [row.key], hub=hub_id)
    instance = decode_instance(found[0]) if found else None
    owner = None if instance is None else Owner(instance.execution_id, instance.status)
    if not is_orphan(row, owner):
        return 0
    named = (row.key.partition, row.seq) if row.seq is not None else (*row.key, row.execution_id)
    reply = session.send(sql.DROPS[row.table], [named], hub=hub_id)
    session.flush()
    return reply.count


def release_claims(session: Session, hub_id: int, host_id: int) -> int:
    """Give back some of the tasks of a host that has no row; its id never comes back. 0: there are no more."""
    if session.ask(sql.HOST, hub=hub_id, dead=host_id):
        return 0
    reply = session.send(sql.RELEASE_CLAIMS, hub=hub_id, dead=host_id)
    session.flush()
    return reply.count


def lower_held(session: Session, hub_id: int, table: str, partition: int) -> int:
    """Have nobody hold what is held above the partition's epoch, which cannot rise meanwhile."""
    locked = session.ask(LOCK_PARTITIONS, [(partition,)], hub=hub_id)
    if not locked:
        return 0
    reply = session.send(sql.LOWER[table], hub=hub_id, partition=partition, epoch=locked[0][2])
    session.flush()
    return reply.count


def release_lock(session: Session, hub: TaskHub, entity_id: str, now: int) -> int:
    """Queue a release for an entity's lock whose holder does not live: it frees that holder's lock alone."""
    key = InstanceKey(partition_of(entity_id, hub.partition_count), entity_id)
    found = [entity_sql.decode_entity(row) for row in session.ask(entity_sql.FRESH_ENTITIES, [key], hub=hub.hub_id)]
    owner = found[0].lock if found else None
    if owner is None:
        return 0
    holder = InstanceKey(partition_of(owner.instance_id, hub.partition_count), owner.instance_id)
    rows = [decode_instance(row) for row in session.ask(LOCK_INSTANCES, [holder], hub=hub.hub_id)]
    if any(row.execution_id == owner.execution_id and not row.status.is_terminal for row in rows):
        return 0
    queue_message(session, hub.hub_id, release_message(entity_id, Release(owner), now, hub.partition_count))
    session.flush()
    return 1
