"""The statements about hosts and partitions. Whether a lease has run out is the database's to say, inside them.

Locks are taken in one order: partitions (by number), hosts, dispatches, then queues.
"""

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    cast,
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
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.storage.dialect import BIGINT, INTEGER, TEXT, Executable, Statement, hub_of, no_source
from durabletask_sql.storage.statements import HUB, ZERO
from durabletask_sql.storage.tables import activity_queue, dispatches, hosts, partitions

MICROSECONDS = 1_000_000
_ME = bindparam("me", type_=BIGINT)
_NOW = bindparam("now", type_=BIGINT)
_LEASE = bindparam("lease", type_=BIGINT)
_ONE = literal_column("1", INTEGER)
_SEEN = {"partition": INTEGER, "owner": BIGINT, "epoch": BIGINT, "next_owner": BIGINT}
_DEAD = {"host_id": BIGINT, "gone": INTEGER}


class LeaseStatements:
    """Those that look at the time: PostgreSQL's own clock, or on SQLite the parameter `now`."""

    def __init__(self, *, is_sqlite: bool) -> None:
        """Build them for one kind of database."""
        self._now: ColumnElement[int] = _NOW if is_sqlite else cast(
            func.extract("epoch", func.clock_timestamp()) * MICROSECONDS, BIGINT)
        self._lives = and_(hosts.c.hub_id == HUB, hosts.c.expires_at >= self._now)
        self.register = Statement("hosts", no_source(lambda: insert(hosts).values(
            hub_id=HUB, host_id=_ME, name=bindparam("name", type_=TEXT), machine=bindparam("machine", type_=TEXT),
            pid=bindparam("pid", type_=BIGINT), started_at=bindparam("started_at", type_=TEXT), heartbeat_at=self._now,
            expires_at=self._now + _LEASE).returning(hosts.c.heartbeat_at)))
        self.heartbeat = Statement("hosts", no_source(lambda: update(hosts).where(
            hosts.c.hub_id == HUB, hosts.c.host_id == _ME).values(
                heartbeat_at=self._now, expires_at=self._now + _LEASE).returning(hosts.c.heartbeat_at)))
        self.look = Statement("hosts", no_source(self._look))
        self.acquire = Statement("partitions", self._acquire, {**_SEEN, "gone": INTEGER})
        self.remove_dead = Statement("hosts", self._remove_dead, _DEAD)
        self.take_dispatches = Statement("dispatches", self._take_dispatches, _DEAD)
        self.release_tasks = Statement("activity_queue", self._release_tasks, _DEAD)

    def _look(self) -> Executable:
        """Hosts, with what their leases still have, and partitions, in one reading."""
        return union_all(
            select(literal_column("'host'"), hosts.c.host_id, hosts.c.expires_at - self._now, hosts.c.pid, ZERO,
                   hosts.c.machine, hosts.c.started_at).where(hosts.c.hub_id == HUB),
            select(literal_column("'partition'"), partitions.c.partition, partitions.c.owner, partitions.c.epoch,
                   partitions.c.next_owner, literal_column("''"), literal_column("''")).where(partitions.c.hub_id == HUB))

    def _acquire(self, v: FromClause) -> Executable:
        """Take what is as it was seen, and free; a zombie's lock is left for the next time, or it would cost our lease."""
        free = or_(v.c.owner == ZERO, v.c.gone == _ONE, v.c.owner.not_in(select(hosts.c.host_id).where(self._lives)))
        picked = (select(partitions.c.partition).select_from(v.join(partitions, _as_seen(v))).where(free)
                  .order_by(partitions.c.partition).with_for_update(skip_locked=True, of=partitions)).cte("picked")
        return (update(partitions)
                .where(partitions.c.hub_id == HUB, partitions.c.partition == picked.c.partition)
                .values(owner=_ME, epoch=partitions.c.epoch + 1, next_owner=0)
                .returning(partitions.c.partition, partitions.c.epoch))

    def _remove_dead(self, v: FromClause) -> Executable:
        owns = exists(select(_ONE).where(partitions.c.hub_id == HUB, partitions.c.owner == hosts.c.host_id))
        return delete(hosts).where(hosts.c.hub_id == HUB, or_(
            hosts.c.host_id.in_(select(v.c.host_id).where(v.c.gone == _ONE)),
            and_(hosts.c.host_id.in_(select(v.c.host_id)), hosts.c.expires_at < self._now)), ~owns)

    def _take_dispatches(self, v: FromClause) -> Executable:
        """Take what hosts had written down as out that do not live: of those that bury a host, one gets it."""
        return delete(dispatches).where(
            dispatches.c.hub_id == HUB, dispatches.c.host_id.in_(select(v.c.host_id)), or_(
                dispatches.c.host_id.in_(select(v.c.host_id).where(v.c.gone == _ONE)),
                dispatches.c.host_id.not_in(select(hosts.c.host_id).where(self._lives)))).returning(
            dispatches.c.host_id, dispatches.c.source, dispatches.c.partition, dispatches.c.seq, dispatches.c.suspect)

    def _release_tasks(self, v: FromClause) -> Executable:
        """Give back what hosts have claimed that do not live. The host 0 is "unclaimed" and stays."""
        return update(activity_queue).where(
            activity_queue.c.hub_id == HUB, activity_queue.c.host > ZERO, or_(
                activity_queue.c.host.in_(select(v.c.host_id).where(v.c.gone == _ONE)),
                activity_queue.c.host.not_in(select(hosts.c.host_id).where(self._lives)))).values(host=0, token=0)


def _as_seen(v: FromClause) -> ColumnElement[bool]:
    return and_(partitions.c.hub_id == hub_of(v), partitions.c.partition == v.c.partition,
                partitions.c.owner == v.c.owner, partitions.c.epoch == v.c.epoch,
                partitions.c.next_owner == v.c.next_owner)


LOCK_SEEN = Statement("partitions", lambda v: (
    select(partitions.c.partition).select_from(v.join(partitions, _as_seen(v)))
    .order_by(partitions.c.partition).with_for_update(key_share=True, of=partitions)), _SEEN)

ASK = Statement("partitions", lambda v: update(partitions).where(_as_seen(v)).values(next_owner=_ME), _SEEN)

_EPOCHS = {"partition": INTEGER, "epoch": BIGINT}


def _ours(v: FromClause) -> ColumnElement[bool]:
    return and_(partitions.c.hub_id == HUB, partitions.c.owner == _ME, partitions.c.partition == v.c.partition,
                partitions.c.epoch == v.c.epoch)


HAND_OVER = Statement("partitions", lambda v: update(partitions).where(_ours(v)).values(
    owner=0, epoch=partitions.c.epoch + 1, next_owner=v.c.heir), {**_EPOCHS, "heir": BIGINT})

RAISE_EPOCH = Statement("partitions", lambda v: update(partitions).where(_ours(v)).values(
    epoch=partitions.c.epoch + 1), _EPOCHS)

OWNED = Statement("partitions", no_source(lambda: select(partitions.c.partition, partitions.c.epoch).where(
    partitions.c.hub_id == HUB, partitions.c.owner == _ME)))

RELEASE = Statement("partitions", no_source(lambda: update(partitions).where(
    partitions.c.hub_id == HUB, partitions.c.owner == _ME).values(owner=0, epoch=partitions.c.epoch + 1)))

# A host that does not live claims nothing: held against its removal, which gives back what it has claimed.
LOCK_HOST = Statement("hosts", no_source(lambda: select(hosts.c.host_id).where(
    hosts.c.hub_id == HUB, hosts.c.host_id == _ME).with_for_update(read=True, key_share=True)))
