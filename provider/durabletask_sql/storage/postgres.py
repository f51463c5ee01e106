"""PostgreSQL: connections, and sessions that pipeline their statements."""

import logging
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import pq

from durabletask_sql.errors import SettingsError, UnavailableError
from durabletask_sql.storage.dialect import Executable, PostgresCompiler, Row, Statement
from durabletask_sql.storage.faults import (
    CommitWarningError,
    ConflictError,
    ConnectionLostError,
    LockTimeoutError,
    RefusedError,
    ShortWriteError,
    TransactionError,
    one_line,
)
from durabletask_sql.storage.pipeline import Pipeline, has_failed
from durabletask_sql.storage.session import Reply
from durabletask_sql.storage.yielding import off_loop

_log = logging.getLogger(__name__)

LOCK_TIMEOUT_MS = 200
_LIMIT_EXCEEDED = "54"  # SQLSTATE class: too long for an index, too many columns; the driver calls it operational

# Every statement of this program finds its rows by a key or in an index's order. A fresh table has no statistics, and
# the planner would then rather read all of it; plans are made once a session and kept.
_PLANS = ("plan_cache_mode=force_generic_plan", "enable_seqscan=off", "enable_hashjoin=off", "enable_mergejoin=off",
          "jit=off")


# When this server was started, and when it last began to count: recovery from a crash begins anew (PostgreSQL's manual,
# "The Cumulative Statistics System"), also one in which the postmaster lives on, and a standby counts for itself.
_FOUND = ("SELECT current_setting('fsync'), concat_ws('/', extract(epoch FROM pg_postmaster_start_time()), "
          "extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()))")


def connect(conninfo: str, *, shown: str, idle_timeout_ms: int, allow_unsafe: bool) -> tuple[psycopg.Connection[Any], str]:
    """Open a connection with the settings that the promises rest on; return it with the lineage of its server.

    Raises UnavailableError when the server cannot be reached, SettingsError when it runs with fsync off.
    """
    settings = ("synchronous_commit=on", f"lock_timeout={LOCK_TIMEOUT_MS}",
                f"idle_in_transaction_session_timeout={idle_timeout_ms}", "client_min_messages=warning", *_PLANS)
    try:
        connection = psycopg.connect(
            conninfo, autocommit=True, options=" ".join(f"-c {setting}" for setting in settings),
            application_name="durabletask-sql", connect_timeout=10, tcp_user_timeout=idle_timeout_ms)
        fsync, lineage = connection.execute(_FOUND).fetchone() or ("", "")
    except psycopg.Error as error:
        message = f"the database {shown} cannot be reached: {one_line(error)}"
        raise UnavailableError(message) from error
    if fsync != "on" and not allow_unsafe:
        connection.close()
        message = (f"the database {shown} runs with fsync off and would lose data in a crash: turn fsync on, or give "
                   "--allow-unsafe-database if losing data is acceptable")
        raise SettingsError(message)
    return connection, lineage


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
        self._pipeline: Pipeline | None = None
        self._inside = False
        self._sent: list[tuple[str, Reply | None]] = []  # None: nobody reads what it gives
        self._warnings: list[str] = []
        self._lineage = ""
        self._open()

    def _open(self) -> Pipeline:
        if self._pipeline is None:
            connection, self._lineage = off_loop(lambda: connect(
                self._conninfo, shown=self._shown, idle_timeout_ms=self._idle_timeout_ms, allow_unsafe=self._allow_unsafe))
            connection.add_notice_handler(self._notice)
            self._pipeline = Pipeline(connection)
        return self._pipeline

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warnings.append(diagnostic.message_primary or "")

    def lineage(self) -> str:
        """Connect, if the connection was lost, and return which server that is to, since which start or recovery of it."""
        self._open()
        return self._lineage

    def begin(self, *, lock_timeout_ms: int | None = None, durable: bool = True) -> None:
        """Begin a transaction; it reaches the server with the first flush."""
        self._open()
        self._warnings.clear()
        self._send_text("BEGIN")
        self._inside = True
        if lock_timeout_ms is not None:
            self._send_text(f"SET LOCAL lock_timeout={lock_timeout_ms}")
        if not durable:
            self._send_text("SET LOCAL synchronous_commit=off")

    def begin_snapshot(self) -> None:
        """Begin a transaction that only reads and whose statements all see one state; `rollback` ends it."""
        self._open()
        self._warnings.clear()
        self._send_text("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._inside = True

    def _send_text(self, text: str) -> None:
        self._queue("the transaction", text.encode(), (), None)

    def _queue(self, table: str, text: bytes, parameters: Sequence[bytes | None], reply: Reply | None, *,
               once: bool = False) -> None:
        pipeline = self._pipeline or self._open()
        self._sent.append((table, reply))
        try:
            (pipeline.send_once if once else pipeline.send)(text, parameters)
        except psycopg.Error as error:
            raise self._lose(str(error)) from error

    def send(self, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> Reply:
        """Queue a statement for the next flush; outside a transaction it runs at once."""
        try:
            prepared = self._compiler.compile(statement, len(rows))
            parameters = self._compiler.parameters(prepared, rows, scalars)
        except (ValueError, OverflowError, struct.error) as error:
            self.rollback()
            message = f"PostgreSQL cannot hold a value: {error}"
            raise RefusedError(message) from error
        reply = Reply()
        self._queue(statement.table, prepared.text, parameters, None if statement.counted else reply)
        if not self._inside:
            self.flush()
        return reply

    def flush(self) -> None:
        """Wait until everything that was sent is answered."""
        pipeline = self._open()
        try:
            replies = pipeline.sync()
        except psycopg.Error as error:
            raise self._lose(str(error)) from error
        sent, self._sent = self._sent, []
        for (table, reply), result in zip(sent, replies, strict=False):
            if has_failed(result):
                raise self._fail(table, result)
            if reply is not None:
                reply.rows = pipeline.rows(result)
                reply.count = result.command_tuples or 0

    def commit(self) -> None:
        """Send COMMIT behind what was sent, and wait for all of it. A warning on it means that it is not known."""
        self._send_text("COMMIT")
        self.flush()
        self._inside = False
        if self._warnings:
            detail = "; ".join(self._warnings)
            raise CommitWarningError(detail, sent=True)

    def rollback(self) -> None:
        """Undo the transaction, if one is open; a connection that cannot is closed."""
        self._sent.clear()
        if not self._inside:
            return
        self._inside = False
        pipeline = self._pipeline
        if pipeline is None:
            return
        try:
            pipeline.send_once(b"ROLLBACK", ())
            if not has_failed(pipeline.sync()[-1]):
                return
        except psycopg.Error:
            _log.debug("a connection was lost before its rollback, which is one as well")
        self._close()

    def ask(self, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> list[tuple[Any, ...]]:
        """Run one statement, inside the open transaction or alone, and return its rows."""
        reply = self.send(statement, rows, **scalars)
        if self._inside:
            self.flush()
        return reply.rows

    def execute(self, statement: Executable, parameters: Mapping[str, object] | None = None) -> Reply:
        """Run a statement that is built for the occasion."""
        prepared = self._compiler.prepare(statement)
        named = {**prepared.constants, **(parameters or {})}
        reply, values = Reply(), [encode(named[name]) for name, encode, _ in prepared.parameters]
        self._queue("a table", prepared.text, values, reply, once=True)
        self.flush()
        return reply

    def close(self) -> None:
        """Close the connection."""
        self._close()

    def _close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    def _lose(self, text: str) -> ConnectionLostError:
        """Close the connection and return what that means."""
        inside, self._inside = self._inside, False
        self._sent.clear()
        self._close()
        return ConnectionLostError(f"the connection to {self._shown} was lost: {one_line(text)}", sent=inside)

    def _fail(self, table: str, result: pq.abc.PGresult) -> TransactionError | UnavailableError:
        """Roll back and return what happened in this project's terms."""
        text = one_line(result.get_error_message())
        if self._pipeline is None or self._pipeline.is_lost or (
                result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) in (b"FATAL", b"PANIC")):
            return self._lose(text)
        self.rollback()
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        try:
            kind = psycopg.errors.lookup(state)
        except KeyError:
            kind = psycopg.DatabaseError
        if issubclass(kind, psycopg.errors.LockNotAvailable):
            return LockTimeoutError(table, text)
        if issubclass(kind, psycopg.errors.DivisionByZero):
            return ShortWriteError(table)
        if issubclass(kind, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
            return ConflictError(text)
        # A server that is a standby, or was set read-only because its disk runs full, will write again, or another will.
        if (not state.startswith(_LIMIT_EXCEEDED)
                and issubclass(kind, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction)):
            return UnavailableError(f"the database {self._shown} cannot do this now: {text}")
        return RefusedError(f"PostgreSQL refuses it: {text}")
