"""The statement of a poll: whether anything waits that this host does not know of."""

from sqlalchemy import and_, bindparam, exists, literal_column, or_, select, union_all

from durabletask_sql.storage.dialect import BIGINT, Executable, Statement, no_source
from durabletask_sql.storage.statements import HUB, ZERO, held_by_nobody
from durabletask_sql.storage.tables import activity_queue, control_queue, partitions, timers


def _pending() -> Executable:
    """One row for each kind and partition of ours in which something waits that nobody holds."""
    # The offsets keep PostgreSQL from making joins of it, which read the whole hub if planned while it is empty.
    ours = and_(partitions.c.hub_id == HUB, partitions.c.owner == bindparam("owner", type_=BIGINT))
    queued = exists(select(literal_column("1")).select_from(control_queue).where(
        control_queue.c.hub_id == partitions.c.hub_id, control_queue.c.partition == partitions.c.partition,
        control_queue.c.held_epoch >= ZERO, control_queue.c.held_epoch < partitions.c.epoch).offset(ZERO))
    delayed = or_(*(exists(select(literal_column("1")).select_from(timers).where(
        timers.c.hub_id == partitions.c.hub_id, timers.c.partition == partitions.c.partition, held,
        timers.c.fire_at <= bindparam("horizon", type_=BIGINT)).offset(ZERO))
        for held in held_by_nobody(timers, partitions.c.epoch)))
    free = exists(select(literal_column("1")).select_from(activity_queue).where(
        activity_queue.c.hub_id == HUB, activity_queue.c.host == ZERO))
    owner = bindparam("owner", type_=BIGINT)
    moving = exists(select(literal_column("1")).select_from(partitions).where(partitions.c.hub_id == HUB, or_(
        and_(partitions.c.owner == ZERO, or_(partitions.c.next_owner == ZERO, partitions.c.next_owner == owner)),
        and_(partitions.c.owner == owner, partitions.c.next_owner != ZERO))))
    return union_all(
        select(literal_column("'queue'"), partitions.c.partition).where(ours, queued),
        select(literal_column("'timers'"), partitions.c.partition).where(ours, delayed),
        *(select(literal_column(f"'{kind}'"), ZERO).where(found) for kind, found in (("tasks", free), ("leases", moving))))


PENDING = Statement("control_queue", no_source(_pending))
