"""A database whose clock jumps: on PostgreSQL functions of ours are met before its own, on SQLite it is the process's."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.storage import leases
from durabletask_sql.storage.store import SqlStore
from tables import rows

_FUNCTIONS = ("clock_timestamp", "now", "statement_timestamp", "transaction_timestamp")
_INSTALL = ("CREATE SCHEMA jumps", "CREATE TABLE jumps.ahead (seconds double precision)", "INSERT INTO jumps.ahead VALUES (0)",
            *(f"CREATE FUNCTION jumps.{name}() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
              f"'SELECT pg_catalog.{name}() + (SELECT seconds FROM jumps.ahead) * interval ''1 second'''"
              for name in _FUNCTIONS))


class DatabaseClock:
    """The clock of one test's database. Make it before anybody connects."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.ahead = 0.0  # seconds
        if url.startswith("sqlite"):
            monkeypatch.setattr(leases, "process_time", self.now)
            return
        asyncio.run(_migrate(url))
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in _INSTALL:
                connection.execute(statement)
            name = connection.info.dbname
            connection.execute(f'ALTER DATABASE "{name}" SET search_path = jumps, pg_catalog, public')

    def jump(self, seconds: float) -> None:
        """Set it by so many seconds."""
        self.ahead += seconds
        if not self.url.startswith("sqlite"):
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("UPDATE jumps.ahead SET seconds = %s", (self.ahead,))

    def now(self) -> int:
        """Return the database's time, in microseconds UTC."""
        return time.time_ns() // 1_000 + int(self.ahead * MICROSECONDS)

    def beats(self) -> dict[int, int]:
        """Return when the last heartbeat of each host came."""
        return dict(rows(self.url, "SELECT host_id, heartbeat_at FROM hosts"))


async def _migrate(url: str) -> None:
    await (await SqlStore.open(url, lease_seconds=1.0, upgrade=True)).close()
