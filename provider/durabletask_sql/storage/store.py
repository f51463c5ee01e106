"""A database, opened with a schema that fits: implements `ports.hubs.Store`."""

import asyncio

from durabletask_sql.errors import SchemaError
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.wakeups import Wakeups
from durabletask_sql.storage import migrations
from durabletask_sql.storage.commit_path import commit_path
from durabletask_sql.storage.committer import SqlCommitter
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.deliveries import SqlDeliveries
from durabletask_sql.storage.entities import SqlEntities
from durabletask_sql.storage.hubs import empty_hub, find_hub, open_hub, remove_hub
from durabletask_sql.storage.instances import SqlInstances
from durabletask_sql.storage.leases import SqlLeases
from durabletask_sql.storage.quarantine import SqlQuarantine
from durabletask_sql.storage.session import repeated
from durabletask_sql.storage.transactions import transact
from durabletask_sql.storage.url import SQLITE, DatabaseUrl, parse_url
from durabletask_sql.storage.wakeups import PostgresWakeups, SqliteWakeups

_PARTITIONS_SQLITE, _PARTITIONS_POSTGRESQL = 4, 16


class SqlStore:
    """The ports of each hub of one database."""

    def __init__(self, database: Database) -> None:
        """Use `open`."""
        self._database = database

    @classmethod
    async def open(cls, url: str, *, lease_seconds: float, upgrade: bool = False,
                   allow_unsafe: bool = False) -> "SqlStore":
        """Check the schema and open the database.

        A SQLite file is created or upgraded by itself; PostgreSQL only with `upgrade`. Raises SettingsError for a
        URL that cannot be used, UnavailableError for a database that cannot be reached, SchemaError otherwise.
        """
        parsed = parse_url(url)
        await asyncio.to_thread(ensure_schema, parsed, upgrade=upgrade or parsed.dialect == SQLITE)
        idle_timeout_ms = int(lease_seconds * 1000 / 3)
        return cls(Database(parsed, idle_timeout_ms=idle_timeout_ms, allow_unsafe=allow_unsafe))

    async def compile_ahead(self) -> None:
        """Compile the statements of the commit path, so that the first commits need not: the event loop waits for them."""
        await asyncio.to_thread(self._database.compile_ahead, commit_path())

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a SQLite file: its time is this process's."""
        return self._database.is_sqlite

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self._database.url.shown

    async def open_hub(self, name: str, partition_count: int | None) -> TaskHub:
        """Return the hub, created when missing."""
        count = partition_count or (_PARTITIONS_SQLITE if self.is_sqlite else _PARTITIONS_POSTGRESQL)
        return await self._database.clients.run(lambda session: repeated(
            session, lambda: open_hub(session, name, count)))

    async def find_hub(self, name: str) -> TaskHub | None:
        """Return the hub with this name, if there is one."""
        return await self._database.readers.run(lambda session: repeated(session, lambda: find_hub(session, name)))

    async def empty_hub(self, hub: TaskHub) -> None:
        """Delete everything that a hub holds, in one transaction."""
        await transact(self._database, lambda session: empty_hub(session, hub.hub_id))

    async def remove_hub(self, hub: TaskHub) -> None:
        """Delete a hub that nobody serves, with everything that it holds, in one transaction."""
        await transact(self._database, lambda session: remove_hub(session, hub.hub_id))

    def committer(self, hub: TaskHub) -> SqlCommitter:
        """Return the owner's committer of a hub."""
        return SqlCommitter(self._database, hub)

    def instances(self, hub: TaskHub) -> SqlInstances:
        """Return the clients' side of a hub."""
        return SqlInstances(self._database, hub)

    def entities(self, hub: TaskHub) -> SqlEntities:
        """Return the clients' side of a hub's entities."""
        return SqlEntities(self._database, hub)

    def leases(self, hub: TaskHub) -> SqlLeases:
        """Return the lease side of a hub."""
        return SqlLeases(self._database, hub)

    def deliveries(self, hub: TaskHub) -> SqlDeliveries:
        """Return where a hub keeps what it knows of deliveries."""
        return SqlDeliveries(self._database, hub)

    def quarantine(self, hub: TaskHub) -> SqlQuarantine:
        """Return the operators' side of what a hub has set aside."""
        return SqlQuarantine(self._database, hub)

    def wakeups(self, hub: TaskHub, host_id: int) -> Wakeups:
        """Return a host's line to the other hosts of a hub."""
        return SqliteWakeups(self._database) if self.is_sqlite else PostgresWakeups(self._database, hub, host_id)

    async def close(self) -> None:
        """Finish what is under way and close all connections."""
        await self._database.close()


def ensure_schema(url: DatabaseUrl, *, upgrade: bool) -> None:
    """Make sure that the schema is this program's. Raises SchemaError with what to do when it is not."""
    found = migrations.state(url)
    if found is migrations.SchemaState.CURRENT:
        return
    if found is migrations.SchemaState.NEWER:
        raise SchemaError(migrations.newer_message(url))
    if not upgrade:
        what = "has no schema of this program yet" if found is migrations.SchemaState.MISSING else (
            f"has the older schema {migrations.revision(url)}")
        message = (f"the database {url.shown} {what}: run `durabletask-sql schema upgrade --database {url.shown}`, or "
                   "serve with --upgrade")
        raise SchemaError(message)
    migrations.upgrade(url)
