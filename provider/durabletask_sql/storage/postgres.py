"""PostgreSQL: connections and pipelined sessions over psycopg 3."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg
from psycopg.types.numeric import Int8BinaryDumper

from durabletask_sql.errors import SettingsError, UnavailableError
from durabletask_sql.storage.dialect import POSTGRESQL, Executable, PostgresCompiler, Row, Statement
from durabletask_sql.storage.faults import (
    CommitWarningError,
    ConflictError,
    ConnectionLostError,
    LockTimeoutError,
    RefusedError,
    ShortWriteError,
    TransactionError,
)
from durabletask_sql.storage.session import Reply

_log = logging.getLogger(__name__)

LOCK_TIMEOUT_MS = 200


def connect(conninfo: str, *, shown: str, idle_timeout_ms: int, allow_unsafe: bool) -> psycopg.Connection[Any]:
    """Open a connection with the settings that the promises rest on.

    Raises UnavailableError when the server cannot be reached, SettingsError when it runs with fsync off.
    """
    options = (f"-c synchronous_commit=on -c lock_timeout={LOCK_TIMEOUT_MS} "
               f"-c idle_in_transaction_session_timeout={idle_timeout_ms} -c client_min_messages=warning")
    try:
        connection = psycopg.connect(conninfo, autocommit=True, options=options, application_name="durabletask-sql",
                                     connect_timeout=10, tcp_user_timeout=idle_timeout_ms)
        fsync = connection.execute("SHOW fsync").fetchone()
    except psycopg.Error as error:
        message = f"the database {shown} cannot be reached: {str(error).strip()}"
        raise UnavailableError(message) from error
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    if fsync != ("on",) and not allow_unsafe:
        connection.close()
        message = (f"the database {shown} runs with fsync off and would lose data in a crash: turn fsync on, or give "
                   "--allow-unsafe-database if losing data is acceptable")
        raise SettingsError(message)
    return connection


class PostgresSession:
    """A session on one PostgreSQL connection; it connects again by itself after a loss."""

    def __init__(self, conninfo: str, compiler: PostgresCompiler, *, shown: str, idle_timeout_ms: int,
                 allow_unsafe: bool) -> None:
        """Connect."""
        self._conninfo = conninfo
        self._compiler = compiler
        self._shown = shown
        self._idle_timeout_ms = idle_timeout_ms
        self._allow_unsafe = allow_unsafe
        self._connection: psycopg.Connection[Any] | None = None
        self._pipeline: psycopg.Pipeline | None = None
        self._open_pipeline = ExitStack()
        self._sent: list[tuple[str, psycopg.Cursor[Any], Reply]] = []
        self._warnings: list[str] = []
        self._open()

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._conninfo, shown=self._shown, idle_timeout_ms=self._idle_timeout_ms,
                                       allow_unsafe=self._allow_unsafe)
            self._connection.add_notice_handler(self._notice)
        return self._connection

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warnings.append(diagnostic.message_primary or "")

    def begin(self, *, lock_timeout_ms: int | None = None, durable: bool = True) -> None:
        """Begin a transaction; it reaches the server with the first flush."""
        connection = self._open()
        self._warnings.clear()
        try:
            self._pipeline = self._open_pipeline.enter_context(connection.pipeline())
            self._send_text("BEGIN")
            if lock_timeout_ms is not None:
                self._send_text(f"SET LOCAL lock_timeout={lock_timeout_ms}")
            if not durable:
                self._send_text("SET LOCAL synchronous_commit=off")
        except psycopg.Error as error:
            raise self._fail(error) from error

    def _send_text(self, text: str) -> None:
        cursor = self._open().cursor()
        self._sent.append(("the transaction", cursor, Reply()))
        cursor.execute(text.encode(), prepare=False)

    def send(self, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> Reply:
        """Queue a statement for the next flush."""
        reply = Reply()
        if self._pipeline is None:
            return self._send_alone(statement, rows, scalars)
        cursor = self._open().cursor(binary=True)
        self._sent.append((statement.table, cursor, reply))
        try:
            cursor.execute(self._compiler.compile(statement).text.encode(),
                           self._compiler.parameters(statement, rows, scalars), prepare=True)
        except (psycopg.Error, ValueError, OverflowError) as error:
            raise self._fail(error) from error
        return reply

    def _send_alone(self, statement: Statement, rows: Sequence[Row], scalars: Mapping[str, object]) -> Reply:
        """Run a statement outside a transaction."""
        try:
            cursor = self._open().cursor(binary=True)
            cursor.execute(self._compiler.compile(statement).text.encode(),
                           self._compiler.parameters(statement, rows, scalars), prepare=True)
            return _read(cursor, Reply())
        except (psycopg.Error, ValueError, OverflowError) as error:
            raise self._fail(error) from error

    def flush(self) -> None:
        """Wait until everything that was sent is answered."""
        assert self._pipeline is not None
        try:
            self._pipeline.sync()
            for _, cursor, reply in self._sent:
                _read(cursor, reply)
        except psycopg.Error as error:
            raise self._fail(error) from error
        self._sent.clear()

    def commit(self) -> None:
        """Send COMMIT behind what was sent, and wait for all of it. A warning on it means that it is not known."""
        self._send_text("COMMIT")
        self.flush()
        self._leave()
        if self._warnings:
            detail = "; ".join(self._warnings)
            raise CommitWarningError(detail, sent=True)

    def rollback(self) -> None:
        """Undo the transaction, if one is open; a connection that cannot is closed."""
        if self._pipeline is None:
            return
        self._leave()
        connection = self._connection
        if connection is None or connection.closed:
            return
        try:
            connection.execute("ROLLBACK", prepare=False)
        except psycopg.Error:
            connection.close()

    def _leave(self) -> None:
        self._sent.clear()
        if self._pipeline is not None:
            self._pipeline = None
            try:
                self._open_pipeline.close()
            except psycopg.Error as error:
                _log.debug("leaving a failed pipeline: %s", error)

    def ask(self, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> list[tuple[Any, ...]]:
        """Run one statement, inside the open transaction or alone, and return its rows."""
        reply = self.send(statement, rows, **scalars)
        if self._pipeline is not None:
            self.flush()
        return reply.rows

    def execute(self, statement: Executable, parameters: Mapping[str, object] | None = None) -> Reply:
        """Run a statement that is built for the occasion."""
        compiled = statement.compile(dialect=POSTGRESQL)
        try:
            cursor = self._open().cursor(binary=True)
            cursor.execute(str(compiled).encode(), {**compiled.params, **(parameters or {})})
            if self._pipeline is not None:
                self._pipeline.sync()
            return _read(cursor, Reply())
        except (psycopg.Error, ValueError, OverflowError) as error:
            raise self._fail(error) from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _fail(self, error: Exception) -> TransactionError | UnavailableError:
        """Roll back and return what happened in this project's terms."""
        table = next((table for table, cursor, _ in self._sent if cursor.pgresult is None), "a table")
        inside = self._pipeline is not None
        lost = isinstance(error, psycopg.OperationalError) and (self._connection is None or self._connection.closed)
        self.rollback()
        text = str(error).strip().replace("\n", "; ")
        if lost:
            return ConnectionLostError(f"the connection to {self._shown} was lost: {text}", sent=inside)
        match error:
            case psycopg.errors.LockNotAvailable():
                return LockTimeoutError(table, text)
            case psycopg.errors.DivisionByZero():
                return ShortWriteError(table)
            case psycopg.errors.DeadlockDetected() | psycopg.errors.SerializationFailure():
                return ConflictError(text)
            case psycopg.OperationalError():
                return UnavailableError(f"the database {self._shown} cannot do this now: {text}")
            case _:
                return RefusedError(f"PostgreSQL refuses it: {text}")


def _read(cursor: psycopg.Cursor[Any], reply: Reply) -> Reply:
    if cursor.description is not None:
        reply.rows = cursor.fetchall()
    reply.count = max(cursor.rowcount, 0)
    return reply
