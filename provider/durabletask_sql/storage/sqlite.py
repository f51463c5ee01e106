"""SQLite: connections and sessions over the standard library's driver.

WAL with synchronous=FULL; one writer a process (see `lanes`), and all processes take turns (see `writer`). Another
process's write transaction is waited for as long as it takes, and reported.
"""

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from durabletask_sql.errors import UnavailableError
from durabletask_sql.storage.dialect import SIZES, Executable, Row, SqliteCompiler, Statement
from durabletask_sql.storage.faults import ShortWriteError, WouldWaitError
from durabletask_sql.storage.session import Reply
from durabletask_sql.storage.sqlite_faults import fault, unavailable
from durabletask_sql.storage.wal import HARD_BYTES, WalKeeper
from durabletask_sql.storage.writer import WriterTurn

_log = logging.getLogger(__name__)

_DIALECT = SQLiteDialect_pysqlite()


def connect(path: str, *, writer: bool) -> sqlite3.Connection:
    """Open the file with the settings that the promises rest on. Raises UnavailableError when it cannot be opened."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0,
                                     cached_statements=512)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA wal_autocheckpoint=0")  # `wal` sees to it, off the writer's path
        connection.execute(f"PRAGMA journal_size_limit={HARD_BYTES}")
        connection.execute("PRAGMA busy_timeout=0" if writer else "PRAGMA busy_timeout=5000")
        if not writer:
            connection.execute("PRAGMA query_only=ON")
    except sqlite3.Error as error:
        message = f"the SQLite file {path!r} cannot be opened: {error}"
        raise UnavailableError(message) from error
    return connection


def check_file(path: str) -> list[tuple[str, str]]:
    """Return what a file says of itself: its journal mode, the bytes of its log, and what SQLite's quick check finds.

    One short transaction a table; nothing of the file is changed.
    """
    wal = Path(f"{path}-wal")
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found = {row[0] for name in tables for row in connection.execute(f"PRAGMA quick_check('{name}')")}
    except sqlite3.Error as error:
        message = f"the SQLite file {path!r} cannot be read: {error}"
        raise UnavailableError(message) from error
    return [("journal_mode", mode), ("quick_check", "; ".join(sorted(found - {"ok"})) or "ok"),
            ("wal_bytes", str(wal.stat().st_size if wal.exists() else 0))]


class SqliteSession:
    """A session on one SQLite connection.

    `may_wait` False: it raises WouldWaitError instead of waiting for another process's transaction, and leaves to
    others what takes long.
    """

    def __init__(self, path: str, compiler: SqliteCompiler, *, writer: bool) -> None:
        """Open the connection."""
        self._connection = connect(path, writer=writer)
        self._compiler = compiler
        self._path = path
        self._wal = WalKeeper(path) if writer else None
        self._turn = WriterTurn(path) if writer else None
        self._durable = True
        self.may_wait = True

    def lineage(self) -> str:
        """Return always the same: a crash of the machine, which alone undoes a commit, ends this process as well."""
        return ""

    def begin(self, *, lock_timeout_ms: int | None = None, durable: bool = True) -> None:
        """Take the write lock, waiting for another process's transaction as long as it takes.

        The timeout is PostgreSQL's: here one writer stops all others. A commit that need not be durable is not synced;
        the next one that is syncs it as well.
        """
        del lock_timeout_ms
        assert self._wal is not None
        assert self._turn is not None, "a reader begins no write transaction"
        if self._wal.is_due and not self.may_wait:
            raise WouldWaitError
        self._undo()
        if durable is not self._durable:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._turn.begin(self._connection, may_wait=self.may_wait)

    def begin_snapshot(self) -> None:
        """Begin a transaction that only reads and whose statements all see one state; `rollback` ends it."""
        self._connection.execute("BEGIN")

    def send(self, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> Reply:
        """Run a statement, in pieces when its source is long."""
        reply = Reply()
        step, before = SIZES[-1], self._connection.total_changes
        try:
            for start in range(0, len(rows) if statement.columns else 1, step):
                part = rows[start:start + step]
                compiled = self._compiler.compile(statement, len(part))
                cursor = self._connection.execute(
                    compiled.text, self._compiler.parameters(compiled, len(statement.columns), part, scalars))
                reply.rows += cursor.fetchall()
        except (sqlite3.Error, OverflowError, ValueError) as error:
            self.rollback()
            raise fault(error, self._path) from error
        # The driver's rowcount knows nothing of statements that begin with WITH.
        reply.count = self._connection.total_changes - before or len(reply.rows)
        if statement.counted and reply.count != len(rows):
            self.rollback()
            raise ShortWriteError(statement.table)
        return reply

    def flush(self) -> None:
        """Do nothing: statements have run."""

    def commit(self) -> None:
        """Commit; an error is a rollback."""
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.rollback()
            raise unavailable(error, self._path, "could not commit, nothing was changed") from error
        assert self._wal is not None
        assert self._turn is not None
        try:
            self._wal.after_commit(self._connection if self.may_wait else None)
        finally:
            self._turn.end()

    def rollback(self) -> None:
        """Undo the transaction, if one is open, and hand the turn on in every case.

        A transaction that cannot be undone now is undone before the next one.
        """
        try:
            self._undo()
        except UnavailableError as error:
            _log.warning("%s", error)
        finally:
            if self._turn is not None:
                self._turn.end()

    def _undo(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            message = f"a transaction on the SQLite file {self._path!r} could not be undone: {error}"
            raise UnavailableError(message) from error

    def ask(self, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        return self.send(statement, rows, **scalars).rows

    def execute(self, statement: Executable, parameters: Mapping[str, object] | None = None) -> Reply:
        """Run a statement that is built for the occasion."""
        compiled = statement.compile(dialect=_DIALECT)
        values = {**compiled.params, **(parameters or {})}
        try:
            cursor = self._connection.execute(str(compiled), [values[name] for name in compiled.positiontup or ()])
            return Reply(cursor.fetchall())
        except (sqlite3.Error, OverflowError, ValueError) as error:
            self.rollback()
            raise fault(error, self._path) from error

    def data_version(self) -> int:
        """Return a number that changes when another connection has committed. Raises UnavailableError."""
        try:
            found: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            message = f"the SQLite file {self._path!r} cannot be read: {error}"
            raise UnavailableError(message) from error
        return found

    def close(self) -> None:
        """Close the connection."""
        if self._wal is not None:
            self._wal.close()
        self._connection.close()
        if self._turn is not None:
            self._turn.close()
