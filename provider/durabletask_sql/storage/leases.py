"""Leases in SQL: hosts and their heartbeats, owners and epochs of partitions. All on the database's time."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sqlalchemy import ColumnElement, and_, bindparam, cast, delete, func, insert, or_, select, update

from durabletask_sql.errors import OutcomeUnknownError, PartitionLostError, UnavailableError
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.leases import HostIdentity, OwnedPartition
from durabletask_sql.storage.database import Database, process_time
from durabletask_sql.storage.dialect import BIGINT, TEXT, Statement, no_source
from durabletask_sql.storage.faults import ConnectionLostError, TransactionError
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.statements import HUB, ZERO
from durabletask_sql.storage.tables import activity_queue, hosts, partitions

_MICROSECONDS = 1_000_000
_OWNER = bindparam("owner", type_=BIGINT)
_NOW = bindparam("now", type_=BIGINT)
_LEASE = bindparam("lease", type_=BIGINT)
_DEAD = {"host_id": BIGINT}
T = TypeVar("T")


class LeaseStatements:
    """The lease statements, with the database's time inside them: `now` is PostgreSQL's clock, or a parameter."""

    def __init__(self, *, is_sqlite: bool) -> None:
        """Build them for one kind of database."""
        now: ColumnElement[int] = _NOW if is_sqlite else cast(
            func.extract("epoch", func.clock_timestamp()) * _MICROSECONDS, BIGINT)
        self.now = Statement("hosts", no_source(lambda: select(now)))
        self.register = Statement("hosts", no_source(lambda: insert(hosts).values(
            hub_id=HUB, host_id=_OWNER, name=bindparam("name", type_=TEXT), machine=bindparam("machine", type_=TEXT),
            pid=bindparam("pid", type_=BIGINT), started_at=bindparam("started_at", type_=TEXT), heartbeat_at=now,
            expires_at=now + _LEASE).returning(hosts.c.heartbeat_at)))
        self.heartbeat = Statement("hosts", no_source(lambda: update(hosts).where(
            hosts.c.hub_id == HUB, hosts.c.host_id == _OWNER).values(
                heartbeat_at=now, expires_at=now + _LEASE).returning(hosts.c.heartbeat_at)))
        self.hosts = Statement("hosts", no_source(lambda: select(
            hosts.c.host_id, hosts.c.machine, hosts.c.pid, hosts.c.started_at, hosts.c.expires_at < now).where(
                hosts.c.hub_id == HUB)))


# A partition is free when nobody owns it, or its owner has no row any more.
ACQUIRE = Statement("partitions", no_source(lambda: update(partitions).where(
    partitions.c.hub_id == HUB, or_(partitions.c.owner == 0, partitions.c.owner.not_in(
        select(hosts.c.host_id).where(hosts.c.hub_id == HUB)))).values(owner=_OWNER, epoch=partitions.c.epoch + 1)))

OWNERS = Statement("partitions", no_source(lambda: select(partitions.c.partition, partitions.c.owner).where(
    partitions.c.hub_id == HUB)))

OWNED = Statement("partitions", no_source(lambda: select(partitions.c.partition, partitions.c.epoch).where(
    partitions.c.hub_id == HUB, partitions.c.owner == _OWNER)))

RAISE_EPOCH = Statement("partitions", lambda v: update(partitions).where(
    partitions.c.hub_id == HUB, partitions.c.owner == _OWNER, partitions.c.partition == v.c.partition,
    partitions.c.epoch == v.c.epoch).values(epoch=partitions.c.epoch + 1), {"partition": BIGINT, "epoch": BIGINT})

REMOVE_HOSTS = Statement("hosts", lambda v: delete(hosts).where(
    hosts.c.hub_id == HUB, hosts.c.host_id.in_(select(v.c.host_id))), _DEAD)

RELEASE_PARTITIONS = Statement("partitions", lambda v: update(partitions).where(
    partitions.c.hub_id == HUB, partitions.c.owner.in_(select(v.c.host_id))).values(owner=0), _DEAD)

# Claims of hosts that are gone: the owner 0 is "unclaimed" and stays.
RELEASE_DEAD_TASKS = Statement("activity_queue", no_source(lambda: update(activity_queue).where(
    activity_queue.c.hub_id == HUB, and_(activity_queue.c.host > ZERO, activity_queue.c.host.not_in(
        select(hosts.c.host_id).where(hosts.c.hub_id == HUB)))).values(host=0, token=0)))


class SqlLeases:
    """Implements `ports.leases.Leases` for one hub, on a lane of its own."""

    def __init__(self, database: Database, hub: TaskHub) -> None:
        """Take the lease lane of this database."""
        self._lane = database.leases
        self._hub = hub.hub_id
        self._sql = LeaseStatements(is_sqlite=database.is_sqlite)
        self._lease_ms = 0
        self._after_loss: set[int] = set()

    async def register(self, identity: HostIdentity, lease_seconds: float) -> int:
        """Insert the host's row and return the database's time in microseconds UTC."""
        self._lease_ms = int(lease_seconds * 1000)

        def work(session: Session) -> int:
            rows = session.ask(
                self._sql.register, hub=self._hub, owner=identity.host_id, name=identity.name,
                machine=identity.machine, pid=identity.pid, started_at=identity.started_at, now=process_time(),
                lease=int(lease_seconds * _MICROSECONDS))
            return int(rows[0][0])

        return await self._lane.run(lambda session: _guarded(session, work))

    async def heartbeat(self, host_id: int, lease_seconds: float) -> int:
        """Renew the host's row and return the database's time; raise PartitionLostError if the row is gone."""
        def work(session: Session) -> int:
            rows = session.ask(self._sql.heartbeat, hub=self._hub, owner=host_id, now=process_time(),
                               lease=int(lease_seconds * _MICROSECONDS))
            if not rows:
                message = f"host {host_id:x} was removed by another host because its lease had run out"
                raise PartitionLostError(message)
            return int(rows[0][0])

        return await self._lane.run(lambda session: _guarded(session, work))

    async def acquire(self, identity: HostIdentity) -> Mapping[int, OwnedPartition]:
        """Take every partition that nobody owns or whose owner is dead, raising its epoch."""
        def work(session: Session) -> Mapping[int, OwnedPartition]:
            known = session.ask(self._sql.hosts, hub=self._hub, now=process_time())
            dead = sorted((row[0],) for row in known if row[0] != identity.host_id and (
                row[4] or is_gone(identity.machine, row[1], row[2], row[3])))
            session.begin(lock_timeout_ms=self._lease_ms)
            before = session.send(OWNERS, hub=self._hub)
            if dead:
                session.send(REMOVE_HOSTS, dead, hub=self._hub)
            session.send(ACQUIRE, hub=self._hub, owner=identity.host_id)
            owned = session.send(OWNED, hub=self._hub, owner=identity.host_id)
            if dead:
                session.send(RELEASE_DEAD_TASKS, hub=self._hub)
            session.commit()
            for partition, owner in before.rows:
                if owner not in (0, identity.host_id):
                    self._after_loss.add(partition)
                elif owner == 0:
                    self._after_loss.discard(partition)
            return {partition: OwnedPartition(epoch, partition in self._after_loss) for partition, epoch in owned.rows}

        return await self._lane.run(lambda session: _guarded(session, work))

    async def raise_epochs(self, host_id: int, epochs: Mapping[int, int]) -> Mapping[int, int]:
        """Raise the epochs of these partitions, where host and epoch still match; return the new ones."""
        def work(session: Session) -> Mapping[int, int]:
            session.begin(lock_timeout_ms=self._lease_ms)
            if epochs:
                session.send(RAISE_EPOCH, sorted(epochs.items()), hub=self._hub, owner=host_id)
            owned = session.send(OWNED, hub=self._hub, owner=host_id)
            session.commit()
            return dict(owned.rows)

        return await self._lane.run(lambda session: _guarded(session, work))

    async def release(self, host_id: int) -> None:
        """Give everything back and remove the host's row."""
        def work(session: Session) -> None:
            session.begin()
            session.send(RELEASE_PARTITIONS, [(host_id,)], hub=self._hub)
            session.send(REMOVE_HOSTS, [(host_id,)], hub=self._hub)
            session.send(RELEASE_DEAD_TASKS, hub=self._hub)
            session.commit()

        await self._lane.run(lambda session: _guarded(session, work))


def _guarded(session: Session, work: Callable[[Session], T]) -> T:
    """Run lease work; its failures are the caller's to repeat, since every statement here can be."""
    try:
        return work(session)
    except ConnectionLostError as error:
        if error.sent:
            raise OutcomeUnknownError(str(error)) from error
        raise UnavailableError(str(error)) from error
    except TransactionError as error:
        raise UnavailableError(str(error)) from error


def is_gone(here: str, machine: str, pid: int, started_at: str) -> bool:
    """Tell whether a process of this very machine (same boot, same process namespace) does not run any more."""
    return bool(machine) and machine == here and process_start(pid) != started_at


def process_start(pid: int) -> str:
    """Return when a process started, in the machine's ticks; "" when it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]
