"""The statements about hosts and partitions.

Who is dead comes in from above, as the heartbeat that was seen of it: a host that has sent another one since lives,
whatever any clock says. Locks are taken in one order: partitions (by number), hosts, dispatches, then queues.
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
    select,
    union_all,
    update,
)
from sqlalchemy.sql.selectable import FromClause

from durabletask_sql.storage.dialect import BIGINT, INTEGER, TEXT, Executable, Statement, hub_of, in_order, no_source
from durabletask_sql.storage.statements import HUB, ZERO
from durabletask_sql.storage.tables import activity_queue, dispatches, hosts, partitions

MICROSECONDS = 1_000_000
_ME = bindparam("me", type_=BIGINT)
_NOW = bindparam("now", type_=BIGINT)
_LEASE = bindparam("lease", type_=BIGINT)
_ONE = literal_column("1", INTEGER)
_EMPTY = literal_column("''", TEXT)
_SEEN = {"partition": INTEGER, "owner": BIGINT, "epoch": BIGINT, "next_owner": BIGINT}


class LeaseStatements:
    """Those that look at the time: PostgreSQL's own clock, or on SQLite the parameter `now`."""

    def __init__(self, *, is_sqlite: bool) -> None:
        """Build them for one kind of database."""
        self._now: ColumnElement[int] = _NOW if is_sqlite else cast(
            func.extract("epoch", func.clock_timestamp()) * MICROSECONDS, BIGINT)
        self.register = Statement("hosts", no_source(lambda: insert(hosts).values(
            hub_id=HUB, host_id=_ME, name=bindparam("name", type_=TEXT), machine=bindparam("machine", type_=TEXT),
            pid=bindparam("pid", type_=BIGINT), started_at=bindparam("started_at", type_=TEXT), heartbeat_at=self._now,
            expires_at=self._now + _LEASE).returning(hosts.c.heartbeat_at)))
        self.heartbeat = Statement("hosts", no_source(lambda: update(hosts).where(
            hosts.c.hub_id == HUB, hosts.c.host_id == _ME).values(
                heartbeat_at=self._now, expires_at=self._now + _LEASE).returning(hosts.c.heartbeat_at)))
        self.look = Statement("hosts", no_source(self._look))

    def _look(self) -> Executable:
        """Hosts, partitions and the time, in one reading."""
        return union_all(
            select(literal_column("'host'"), hosts.c.host_id, hosts.c.heartbeat_at, hosts.c.expires_at, hosts.c.pid,
                   hosts.c.machine, hosts.c.started_at).where(hosts.c.hub_id == HUB),
            select(literal_column("'partition'"), partitions.c.partition, partitions.c.owner, partitions.c.epoch,
                   partitions.c.next_owner, _EMPTY, _EMPTY).where(partitions.c.hub_id == HUB),
            select(literal_column("'time'"), ZERO, self._now, ZERO, ZERO, _EMPTY, _EMPTY))


def _acquire(v: FromClause) -> Executable:
    """Take what is as it was seen, and free; a zombie's lock is left for the next time, or it would cost our lease."""
    has_renewed = exists(select(_ONE).where(hosts.c.hub_id == HUB, hosts.c.host_id == v.c.owner,
                                            hosts.c.heartbeat_at != v.c.heartbeat_at))
    picked = (select(partitions.c.partition).select_from(v.join(partitions, _as_seen(v))).where(~has_renewed)
              .order_by(partitions.c.partition).with_for_update(skip_locked=True, of=partitions)).cte("picked")
    return (update(partitions)
            .where(partitions.c.hub_id == HUB, partitions.c.partition == picked.c.partition)
            .values(owner=_ME, epoch=partitions.c.epoch + 1, next_owner=0)
            .returning(partitions.c.partition, partitions.c.epoch))


def _is_silent(v: FromClause) -> ColumnElement[bool]:
    return exists(select(_ONE).select_from(v).where(
        v.c.host_id == hosts.c.host_id, v.c.heartbeat_at == hosts.c.heartbeat_at))


def _is_of_the_dead(host: ColumnElement[int], v: FromClause) -> ColumnElement[bool]:
    return host.not_in(select(hosts.c.host_id).where(hosts.c.hub_id == HUB, ~_is_silent(v)))


def _remove_dead(v: FromClause) -> Executable:
    owns = exists(select(_ONE).where(partitions.c.hub_id == HUB, partitions.c.owner == hosts.c.host_id))
    return delete(hosts).where(hosts.c.hub_id == HUB, _is_silent(v), ~owns)


def _take_dispatches(v: FromClause) -> Executable:
    """Take what hosts had written down as out that do not live: of those that bury a host, one gets it."""
    return delete(dispatches).where(
        dispatches.c.hub_id == HUB, dispatches.c.host_id.in_(select(v.c.host_id)),
        _is_of_the_dead(dispatches.c.host_id, v)).returning(
            dispatches.c.host_id, dispatches.c.source, dispatches.c.partition, dispatches.c.seq, dispatches.c.suspect)


def _release_tasks(v: FromClause) -> Executable:
    """Give back what hosts have claimed that do not live. The host 0 is "unclaimed" and stays."""
    return update(activity_queue).where(in_order(activity_queue, v, lambda task: and_(
        task.c.hub_id == HUB, task.c.host > ZERO, _is_of_the_dead(task.c.host, v)))).values(host=0, token=0)


def _as_seen(v: FromClause) -> ColumnElement[bool]:
    return and_(partitions.c.hub_id == hub_of(v), partitions.c.partition == v.c.partition,
                partitions.c.owner == v.c.owner, partitions.c.epoch == v.c.epoch,
                partitions.c.next_owner == v.c.next_owner)


_DEAD = {"host_id": BIGINT, "heartbeat_at": BIGINT}
ACQUIRE = Statement("partitions", _acquire, {**_SEEN, "heartbeat_at": BIGINT})
REMOVE_DEAD = Statement("hosts", _remove_dead, _DEAD)
TAKE_DISPATCHES = Statement("dispatches", _take_dispatches, _DEAD)
RELEASE_TASKS = Statement("activity_queue", _release_tasks, _DEAD)

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

REMOVE_HOST = Statement("hosts", no_source(lambda: delete(hosts).where(hosts.c.hub_id == HUB, hosts.c.host_id == _ME)))

# A host that does not live claims nothing: held against its removal, which gives back what it has claimed.
LOCK_HOST = Statement("hosts", no_source(lambda: select(hosts.c.host_id).where(
    hosts.c.hub_id == HUB, hosts.c.host_id == _ME).with_for_update(read=True, key_share=True)))
