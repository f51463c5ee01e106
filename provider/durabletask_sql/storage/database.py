"""A database that is open: its kind, its lanes of threads, its clock."""

import time
from collections.abc import Iterable

from durabletask_sql.storage.dialect import PostgresCompiler, SqliteCompiler, Statement
from durabletask_sql.storage.lanes import Lane, NearLane, YieldingLane
from durabletask_sql.storage.postgres import PostgresSession
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.sqlite import SqliteSession
from durabletask_sql.storage.url import SQLITE, DatabaseUrl

# What is compiled serves all databases of this process.
_SQLITE_COMPILER, _POSTGRES_COMPILER = SqliteCompiler(), PostgresCompiler()
_CLIENT_THREADS = 4
_READ_THREADS = 2
_BLOCKED_THREADS = 8


class Database:
    """The lanes of one database.

    On SQLite one session writes for the whole process, so that its writers never contend: `committer`, `clients`,
    `leases` and `solo` are the same lane there. On PostgreSQL each has threads and connections of its own, `blocked`
    takes what another session keeps waiting, and `notices` sends notifications. `points` reads single instances.
    """

    def __init__(self, url: DatabaseUrl, *, idle_timeout_ms: int, allow_unsafe: bool) -> None:
        """Prepare the lanes; connections are opened when they are first needed."""
        self.url = url
        self.is_sqlite = url.dialect == SQLITE
        if self.is_sqlite:
            writer: Lane[Session] = NearLane("writer", lambda: SqliteSession(url.location, _SQLITE_COMPILER, writer=True))
            self.committer = self.clients = self.leases = self.solo = self.blocked = self.notices = writer
            self.points: Lane[Session] = NearLane(
                "point", lambda: SqliteSession(url.location, _SQLITE_COMPILER, writer=False))
            self.readers: Lane[Session] = Lane(
                "reader", _READ_THREADS, lambda: SqliteSession(url.location, _SQLITE_COMPILER, writer=False))
            self._lanes: tuple[Lane[Session], ...] = (writer, self.points, self.readers)
        else:
            def open_session() -> Session:
                return PostgresSession(url.location, _POSTGRES_COMPILER, shown=url.shown,
                                       idle_timeout_ms=idle_timeout_ms, allow_unsafe=allow_unsafe)

            self.committer = YieldingLane("committer", open_session)
            self.clients = Lane("client", _CLIENT_THREADS, open_session)
            self.blocked = Lane("blocked", _BLOCKED_THREADS, open_session)
            self.leases = Lane("lease", 1, open_session)
            self.notices = Lane("notice", 1, open_session)
            self.solo = Lane("solo", _CLIENT_THREADS, open_session)
            self.readers = Lane("reader", _READ_THREADS, open_session)
            self.points = YieldingLane("point", open_session)
            self._lanes = (self.committer, self.clients, self.blocked, self.leases, self.notices, self.solo,
                           self.readers, self.points)

    def compile_ahead(self, statements: Iterable[Statement]) -> None:
        """Compile statements, for one row and for more, before they are needed: each takes milliseconds."""
        compiler = _SQLITE_COMPILER if self.is_sqlite else _POSTGRES_COMPILER
        for statement in statements:
            for rows in (1, 2) if statement.columns else (0,):
                compiler.compile(statement, rows)

    async def close(self) -> None:
        """Finish what is under way and close all connections."""
        for lane in self._lanes:
            await lane.close()


def process_time() -> int:
    """Return this process's clock in microseconds UTC: the database's time on SQLite."""
    return time.time_ns() // 1_000
