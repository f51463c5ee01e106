"""Leases in SQL: hosts and their heartbeats, owners and epochs of partitions. All on the database's time."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from durabletask_sql.errors import OutcomeUnknownError, PartitionLostError, UnavailableError
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.leases import NOBODY, Heartbeat, HostIdentity, Lease, OwnedPartition, View
from durabletask_sql.storage import lease_statements as sql
from durabletask_sql.storage.database import Database, process_time
from durabletask_sql.storage.deliveries import FORGET_DISPATCHES, mark_lost
from durabletask_sql.storage.dialect import Row
from durabletask_sql.storage.faults import ConnectionLostError, LockTimeoutError, TransactionError
from durabletask_sql.storage.session import Reply, Session

_log = logging.getLogger(__name__)

T = TypeVar("T")


class SqlLeases:
    """Implements `ports.leases.Leases` for one hub, on a lane of its own."""

    def __init__(self, database: Database, hub: TaskHub) -> None:
        """Take the lease lane of this database."""
        self._lane = database.leases
        self._hub = hub.hub_id
        self._sql = sql.LeaseStatements(is_sqlite=database.is_sqlite)
        self._patience_ms = 0  # for locks: what waits here keeps the next heartbeat waiting
        self._blocked = False

    async def _run(self, work: Callable[[Session], T]) -> T:
        return await self._lane.run(lambda session: _guarded(session, work))

    async def register(self, identity: HostIdentity, lease_seconds: float) -> int:
        """Insert the host's row and return the database's time in microseconds UTC."""
        self._patience_ms = int(lease_seconds * 1000 / 4)

        def work(session: Session) -> int:
            session.begin()
            registered = session.send(
                self._sql.register, hub=self._hub, me=identity.host_id, name=identity.name,
                machine=identity.machine, pid=identity.pid, started_at=identity.started_at, now=process_time(),
                lease=int(lease_seconds * sql.MICROSECONDS))
            session.commit()
            return int(registered.rows[0][0])

        return await self._run(work)

    async def heartbeat(self, host_id: int, lease_seconds: float) -> int:
        """Renew the host's row and return the database's time; raise PartitionLostError if the row is gone."""
        def work(session: Session) -> int:
            session.begin(durable=False)  # in a crash of the database it would only be renewed again
            renewed = session.send(self._sql.heartbeat, hub=self._hub, me=host_id, now=process_time(),
                                   lease=int(lease_seconds * sql.MICROSECONDS))
            session.commit()
            if not renewed.rows:
                message = f"host {host_id:x} was removed by another host because its lease had run out"
                raise PartitionLostError(message)
            return int(renewed.rows[0][0])

        return await self._run(work)

    async def look(self, identity: HostIdentity) -> View:
        """Read who lives and who owns what; writes nothing."""
        def work(session: Session) -> View:
            rows = session.ask(self._sql.look, hub=self._hub, now=process_time())
            return _view(identity, rows)

        return await self._run(work)

    async def acquire(self, identity: HostIdentity, wanted: Sequence[Lease],
                      dead: Mapping[int, int]) -> Mapping[int, OwnedPartition]:
        """Take these partitions as far as they are free, and bury the dead; return what was taken.

        Another session that holds a row of theirs keeps nobody from taking the partitions, nor this host from renewing
        its lease behind it: the dead are then left for the next time.
        """
        seen = sorted((*_seen(lease), dead.get(lease.owner, 0)) for lease in wanted)

        def take(session: Session, dead: Sequence[Row]) -> Mapping[int, OwnedPartition]:
            session.begin()
            taken = session.send(sql.ACQUIRE, seen, hub=self._hub, me=identity.host_id) if seen else Reply()
            if dead:
                session.send(sql.REMOVE_DEAD, dead, hub=self._hub)
                mark_lost(session, self._hub, session.ask(sql.TAKE_DISPATCHES, dead, hub=self._hub))
                session.send(sql.RELEASE_TASKS, dead, hub=self._hub)
            session.commit()
            before = {lease.partition: lease.owner for lease in wanted}
            return {partition: OwnedPartition(epoch, after_loss=before[partition] != NOBODY)
                    for partition, epoch in taken.rows}

        def work(session: Session) -> Mapping[int, OwnedPartition]:
            try:
                taken, self._blocked = take(session, sorted(dead.items())), False
            except LockTimeoutError as error:
                if not self._blocked:
                    _log.warning("hosts that are gone cannot be buried yet, so what they had claimed waits: %s", error)
                self._blocked = True
                taken = take(session, ())
            return taken

        return await self._run(work)

    async def ask(self, host_id: int, wanted: Sequence[Lease]) -> None:
        """Have these partitions promised to this host, as far as they are still as they were seen."""
        rows = sorted(map(_seen, wanted))

        def work(session: Session) -> None:
            session.begin(lock_timeout_ms=self._patience_ms)
            session.send(sql.LOCK_SEEN, rows, hub=self._hub)
            session.send(sql.ASK, rows, hub=self._hub, me=host_id)
            session.commit()

        await self._run(work)

    async def hand_over(self, host_id: int, epochs: Mapping[int, int], heirs: Mapping[int, int]) -> None:
        """Release partitions, each to its heir alone as long as that lives, where host and epoch still match."""
        rows = [(partition, epoch, heirs[partition]) for partition, epoch in sorted(epochs.items())]

        def work(session: Session) -> None:
            session.begin(lock_timeout_ms=self._patience_ms)
            session.send(sql.HAND_OVER, rows, hub=self._hub, me=host_id)
            session.commit()

        await self._run(work)

    async def raise_epochs(self, host_id: int, epochs: Mapping[int, int]) -> Mapping[int, int]:
        """Raise the epochs of these partitions, where host and epoch still match; return those of all that it owns."""
        def work(session: Session) -> Mapping[int, int]:
            session.begin(lock_timeout_ms=self._patience_ms)
            if epochs:
                session.send(sql.RAISE_EPOCH, sorted(epochs.items()), hub=self._hub, me=host_id)
            owned = session.send(sql.OWNED, hub=self._hub, me=host_id)
            session.commit()
            return dict(owned.rows)

        return await self._run(work)

    async def release(self, host_id: int) -> None:
        """Give everything back and remove the host's row."""
        def work(session: Session) -> None:
            session.begin(lock_timeout_ms=self._patience_ms)
            session.send(sql.RELEASE, hub=self._hub, me=host_id)
            session.send(sql.REMOVE_HOST, hub=self._hub, me=host_id)
            session.send(FORGET_DISPATCHES, [(host_id,)], hub=self._hub)
            session.send(sql.RELEASE_TASKS, [(host_id, 0)], hub=self._hub)
            session.commit()

        await self._run(work)


def _seen(lease: Lease) -> Row:
    return lease.partition, lease.owner, lease.epoch, lease.next_owner


def _view(identity: HostIdentity, rows: Sequence[Row]) -> View:
    hosts, leases, now = dict[int, Heartbeat](), list[Lease](), 0
    for kind, number, first, second, third, machine, started_at in rows:
        if kind == "time":
            now = first
        elif kind == "partition":
            leases.append(Lease(number, first, second, third))
        else:
            gone = number != identity.host_id and is_gone(identity.machine, machine, third, started_at)
            hosts[number] = Heartbeat(first, second, gone)
    return View(hosts, sorted(leases, key=lambda lease: lease.partition), now)


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
