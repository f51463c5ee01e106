"""What an examination reads and mends, in SQL: implements `ports.inspection` for one database."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Text, column, or_, select, table

from durabletask_sql.errors import SchemaError, SettingsError
from durabletask_sql.ids import partition_of
from durabletask_sql.model.belongings import QUEUES, Belonging, Owner
from durabletask_sql.model.entities import LockOwner
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.status import Status
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.inspection import (
    Belongings,
    Examined,
    HistoryPart,
    HostSeen,
    Lock,
    Ownership,
    PartitionSeen,
    Setting,
    Snapshot,
    Waiting,
)
from durabletask_sql.protocol.needs import answer_at_head
from durabletask_sql.storage import entity_statements as entity_sql
from durabletask_sql.storage import inspection_statements as sql
from durabletask_sql.storage import migrations
from durabletask_sql.storage import statements as base
from durabletask_sql.storage.codec import decode_instance
from durabletask_sql.storage.database import Database, process_time
from durabletask_sql.storage.dialect import Row
from durabletask_sql.storage.repairs import delete_orphan, lower_held, release_claims, release_lock
from durabletask_sql.storage.session import Session, asked, repeated
from durabletask_sql.storage.sqlite import check_file
from durabletask_sql.storage.transactions import transact
from durabletask_sql.storage.url import SQLITE, parse_url

T = TypeVar("T")

_IDLE_TIMEOUT_MS = 30_000
_MICROSECONDS = 1_000_000
_ASKED = ("autovacuum", "fsync", "full_page_writes", "server_version", "synchronous_commit", "synchronous_standby_names")
_BEFORE_ALL = -1


class SqlInspector:
    """A database to be examined. It has to be there with the schema of this program; nothing is created or upgraded."""

    def __init__(self, database: Database) -> None:
        """Use `open`."""
        self._database = database

    @classmethod
    def open(cls, url: str) -> "SqlInspector":
        """Check that the database can be examined. Raises SettingsError, SchemaError or UnavailableError otherwise."""
        parsed = parse_url(url)
        if parsed.dialect == SQLITE and not Path(parsed.location).is_file():
            message = f"there is no SQLite file {parsed.location!r}: name the one that the servers use"
            raise SettingsError(message)
        found = migrations.state(parsed)
        if found is not migrations.SchemaState.CURRENT:
            message = (f"the schema of {parsed.shown} is {found.value} (at {migrations.revision(parsed) or 'none'}, this "
                       f"program needs {migrations.head()}): use the doctor of the version that serves it, or run "
                       f"`durabletask-sql schema upgrade --database {parsed.shown}`")
            raise SchemaError(message)
        return cls(Database(parsed, idle_timeout_ms=_IDLE_TIMEOUT_MS, allow_unsafe=True))

    async def hubs(self) -> Sequence[TaskHub]:
        """Return all task hubs, in order of name."""
        rows = await self._database.readers.run(lambda session: asked(session, sql.HUBS))
        return [TaskHub(*row) for row in rows]

    async def settings(self) -> Sequence[Setting]:
        """Return the settings that the promises rest on, and what an integrity check says."""
        if self._database.is_sqlite:
            found = await asyncio.to_thread(check_file, self._database.url.location)
            return [Setting(name, value) for name, value in found]
        name, value = column("name", Text()), column("setting", Text())
        query = select(name, value).select_from(table("pg_settings", name, value)).where(
            or_(*(name == one for one in _ASKED)))
        rows = await self._database.readers.run(lambda session: repeated(session, lambda: session.execute(query).rows))
        return [Setting(*row) for row in sorted(rows)]

    def inspection(self, hub: TaskHub) -> "SqlInspection":
        """Return the reads of one hub."""
        return SqlInspection(self._database, hub)

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()


class SqlInspection:
    """The reads of one hub, each in a transaction that sees one state, and its repairs."""

    def __init__(self, database: Database, hub: TaskHub) -> None:
        """Take the reader and client lanes of this database."""
        self._database = database
        self._hub = hub

    async def _look(self, work: Callable[[Session], T]) -> T:
        """Run reads in one snapshot."""
        def run(session: Session) -> T:
            session.begin_snapshot()
            result = work(session)
            session.rollback()
            return result

        return await self._database.readers.run(lambda session: repeated(session, lambda: run(session)))

    async def keys(self, partition: int, after: str) -> Sequence[tuple[InstanceKey, int]]:
        """Return the next instances of a partition in order of id, each with the bytes of its history."""
        def work(session: Session) -> list[tuple[InstanceKey, int]]:
            rows = session.ask(sql.KEYS, hub=self._hub.hub_id, partition=partition, after=after)
            keys = [InstanceKey(partition, row[0]) for row in rows]
            sizes = {InstanceKey(*row[:2]): int(row[2]) for row in self._ask(session, sql.HISTORY_SIZES, keys)}
            return [(key, sizes.get(key, 0)) for key in keys]

        return await self._look(work)

    async def snapshot(self, keys: Sequence[InstanceKey], entity_ids: Sequence[str]) -> Snapshot:
        """Read these instances, those that are gone left out, and their relations to these entities."""
        return await self._look(lambda session: self._snapshot(session, keys, entity_ids))

    def _snapshot(self, session: Session, keys: Sequence[InstanceKey], entity_ids: Sequence[str]) -> Snapshot:
        rows = [decode_instance(row) for row in self._ask(session, base.FRESH_INSTANCES, keys)]
        entities = [InstanceKey(partition_of(one, self._hub.partition_count), one) for one in sorted(entity_ids)]
        locks: dict[str, LockOwner | None] = dict.fromkeys(entity_ids)
        locks.update((row.instance_id, row.lock) for row in map(
            entity_sql.decode_entity, self._ask(session, entity_sql.FRESH_ENTITIES, entities)))
        return Snapshot(
            self._examined(session, rows), locks,
            frozenset((row[0], row[1]) for row in self._ask(session, sql.SENT, entities)),
            frozenset(row[0] for row in self._ask(session, sql.SET_ASIDE, sorted({*keys, *entities}))))

    def _examined(self, session: Session, rows: Sequence[InstanceRow]) -> tuple[Examined, ...]:
        every = [(*row.key, row.execution_id) for row in rows]
        live = [(*row.key, row.execution_id) for row in rows if not row.status.is_terminal]
        history = _grouped(self._ask(session, sql.HISTORY, every))
        payloads = _grouped(self._ask(session, sql.PAYLOAD_SIZES, every))
        tasks = _grouped(self._ask(session, sql.TASKS, live))
        messages = _grouped(self._ask(session, sql.MESSAGES, live))
        timers = _grouped(self._ask(session, sql.TIMERS, live))
        events = _grouped(self._ask(session, sql.EVENTS, [row[:2] for row in live]))
        children = _grouped(self._ask(session, sql.CHILDREN, live))
        return tuple(Examined(
            row, tuple(HistoryPart(*part) for part in history[row.key]), dict(payloads[row.key]),
            [task for (task,) in tasks[row.key]], _waiting(timers[row.key]), _waiting(messages[row.key]),
            row.key in events, [task for (task,) in children[row.key]]) for row in rows)

    async def locks(self, partition: int, after: str) -> Sequence[Lock]:
        """Return the next entities of a partition in order of id."""
        def work(session: Session) -> list[Lock]:
            found = [entity_sql.decode_entity(row) for row in session.ask(
                sql.ENTITIES, hub=self._hub.hub_id, partition=partition, after=after)]
            owners = sorted({InstanceKey(0, one.lock.instance_id) for one in found if one.lock is not None})
            holders = {row.instance_id: row for row in map(decode_instance, self._ask(session, sql.HOLDERS, owners))}
            locked = [one.key for one in found if one.lock is not None]
            freed = {row[0] for row in self._ask(session, sql.RELEASES, locked)}
            return [Lock(one, holders.get(one.lock.instance_id) if one.lock is not None else None,
                         one.instance_id in freed) for one in found]

        return await self._look(work)

    async def belongings(self, table: str, after: tuple[Any, ...] | None) -> Belongings:
        """Return the next rows of one of TABLES."""
        def work(session: Session) -> Belongings:
            rows, following = self._page(session, table, after)
            found = self._ask(session, sql.OWNERS, sorted({row.key for row in rows}))
            owners = {InstanceKey(partition, instance_id): Owner(execution_id, Status(status))
                      for partition, instance_id, execution_id, status in found}
            return Belongings(tuple(rows), owners, following)

        return await self._look(work)

    def _page(self, session: Session, table: str, after: tuple[Any, ...] | None
              ) -> tuple[list[Belonging], tuple[Any, ...] | None]:
        if table in QUEUES:
            instance_id, seq = after or ("", 0)
            found = session.ask(sql.QUEUE_PAGES[table], hub=self._hub.hub_id, after=instance_id, seq=seq)
            rows = [Belonging(table, InstanceKey(partition, name), execution_id, number)
                    for name, number, partition, execution_id in found]
            return rows, tuple(found[-1][:2]) if len(found) == sql.ROWS_PAGE else None
        partition, instance_id, execution_id = after or (_BEFORE_ALL, "", "")
        found = session.ask(sql.EXECUTION_PAGES[table], hub=self._hub.hub_id, partition=partition, after=instance_id,
                            execution_id=execution_id)
        rows = [Belonging(table, InstanceKey(row[0], row[1]), row[2]) for row in found]
        return rows, tuple(found[-1]) if len(found) == sql.EXECUTIONS_PAGE else None

    async def ownership(self) -> Ownership:
        """Read who serves the hub."""
        def work(session: Session) -> Ownership:
            hub = self._hub.hub_id
            partitions = tuple(PartitionSeen(*row) for row in session.ask(sql.PARTITIONS, hub=hub))
            counts = {(name, one.partition): session.ask(
                statement, hub=hub, partition=one.partition, epoch=one.epoch)[0][0]
                for one in partitions for name, statement in sql.HELD.items()}
            held = {place: count for place, count in counts.items() if count}
            hosts, claims = session.ask(sql.HOSTS, hub=hub), session.ask(sql.CLAIMS, hub=hub)
            now = process_time() if self._database.is_sqlite else session.ask(sql.TIME)[0][0]
            return Ownership(partitions, tuple(
                HostSeen(host_id, name, (expires_at - heartbeat_at) / _MICROSECONDS, (expires_at - now) / _MICROSECONDS)
                for host_id, name, heartbeat_at, expires_at in hosts), {row[0]: row[1] for row in claims}, held)

        return await self._look(work)

    async def release_lock(self, entity_id: str) -> int:
        """Queue a release for an entity's lock, if its holder still does not live; return how many."""
        return await transact(self._database, lambda session: release_lock(
            session, self._hub, entity_id, process_time()))

    async def delete(self, belonging: Belonging) -> int:
        """Delete rows that belong to nobody, having looked again with their instance locked; return how many went."""
        return await transact(self._database, lambda session: delete_orphan(session, self._hub.hub_id, belonging))

    async def release_claims(self, host_id: int) -> int:
        """Give back the activity tasks that a host claimed, if it still has no row; return how many."""
        released = 0
        while count := await transact(
                self._database, lambda session: release_claims(session, self._hub.hub_id, host_id)):
            released += count
        return released

    async def lower_held(self, table: str, partition: int) -> int:
        """Have nobody hold what is held under an epoch above the partition's; return how many rows."""
        return await transact(self._database, lambda session: lower_held(session, self._hub.hub_id, table, partition))

    def _ask(self, session: Session, statement: Any, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
        return session.ask(statement, rows, hub=self._hub.hub_id) if rows else []


def _grouped(rows: Iterable[Row]) -> Mapping[InstanceKey, list[tuple[Any, ...]]]:
    """Put rows that begin with their instance's key together."""
    found: dict[InstanceKey, list[tuple[Any, ...]]] = defaultdict(list)
    for partition, instance_id, *rest in rows:
        found[InstanceKey(partition, instance_id)].append(tuple(rest))
    return found


def _waiting(rows: Iterable[tuple[Any, ...]]) -> list[Waiting]:
    return [Waiting(kind, None if head is None else answer_at_head(head)) for kind, head in rows]
