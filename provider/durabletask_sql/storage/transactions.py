"""How a client's write runs: one transaction, repeated where that is safe, settled where its COMMIT is in doubt."""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import bindparam, case, cast, func, literal_column, select
from sqlalchemy.types import Text, UserDefinedType

from durabletask_sql.errors import OutcomeUnknownError, UnavailableError
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.dialect import TEXT, Executable, Statement, no_source
from durabletask_sql.storage.faults import (
    CommitWarningError,
    ConflictError,
    ConnectionLostError,
    LockTimeoutError,
    RefusedError,
    ShortWriteError,
    TransactionError,
)
from durabletask_sql.storage.session import Session

_log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Session], T]

_ATTEMPTS = 8
_PAUSE_SECONDS = 0.05
_SETTLE_SECONDS = 30.0
_BLOCKED_MS = 2_000
_GIVE_UP_SECONDS = 60.0
_REPORT_SECONDS = 5.0


class _Xid8(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        """Return the type's name."""
        del kw
        return "xid8"


TRANSACTION_ID = Statement("the transaction", no_source(lambda: select(cast(func.pg_current_xact_id(), Text))))


def _status() -> Executable:
    """Ask what became of a transaction; "unborn": the server has given out no such id, or has forgotten that it did.

    Taking an id for this very question is something that a standby refuses, which may not know yet.
    """
    xid = cast(bindparam("xid", type_=TEXT), _Xid8())
    return select(case((func.pg_current_xact_id() <= xid, literal_column("'unborn'", Text)),
                       else_=func.pg_xact_status(xid)))


TRANSACTION_STATUS = Statement("the transaction", no_source(_status))


async def transact(database: Database, work: Work[T]) -> T:
    """Run a client's write in a transaction of its own.

    Raises UnavailableError when nothing was changed, OutcomeUnknownError when that cannot be told.
    """
    try:
        return await database.clients.run(lambda session: _run(session, work, with_id=not database.is_sqlite), short=True)
    except LockTimeoutError as error:
        first = error
    # Another session holds a row that it needs: off the hot threads, so that other ids do not wait with it.
    return await database.blocked.run(lambda session: _run_blocked(session, work, first))


def _run_blocked(session: Session, work: Work[T], first: LockTimeoutError) -> T:
    began, reported = time.monotonic(), False
    while True:
        try:
            return _run(session, work, with_id=True, lock_timeout_ms=_BLOCKED_MS)
        except LockTimeoutError as error:
            waited = time.monotonic() - began
            if waited > _GIVE_UP_SECONDS:
                message = f"gave up after {waited:.0f} s, nothing was changed: {error}"
                raise UnavailableError(message) from first
            if waited > _REPORT_SECONDS and not reported:
                reported = True
                _log.warning("a client's write has waited %.0f s: %s", waited, error)


def _run(session: Session, work: Work[T], *, with_id: bool, lock_timeout_ms: int | None = None) -> T:
    failure: TransactionError | None = None
    for _ in range(_ATTEMPTS):
        xid = lineage = ""
        try:
            session.begin(lock_timeout_ms=lock_timeout_ms)
            lineage = session.lineage()
            result = work(session)
            if with_id:
                xid = str(session.ask(TRANSACTION_ID)[0][0])
            session.commit()
        except CommitWarningError as error:
            message = f"the commit came with a warning, so it is not certain to last: {error}"
            raise OutcomeUnknownError(message) from error
        except ConnectionLostError as error:
            # Without an id no COMMIT was sent, and the transaction went with its connection.
            if xid and _took_effect(session, xid, lineage):
                return result
            failure = error
            time.sleep(_PAUSE_SECONDS)
        except (ShortWriteError, ConflictError) as error:
            session.rollback()
            failure = error
        except RefusedError as error:
            message = f"the database refused it: {error}"
            raise UnavailableError(message) from error
        else:
            return result
    message = f"a write failed {_ATTEMPTS} times, nothing was changed: {failure}"
    raise UnavailableError(message) from failure


def _took_effect(session: Session, xid: str, lineage: str) -> bool:
    """Ask what became of a transaction whose COMMIT was sent on a connection that broke.

    A server that has recovered from a crash, or a standby that was promoted, knows nothing of an id whose records were
    not durable and gives it out again: there "committed" may be said of another transaction. Everything else is as
    good as it ever was, since of two that had the id the first one has left nothing.
    """
    until = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < until:
        try:
            status = session.ask(TRANSACTION_STATUS, xid=xid)[0][0]
            is_same = session.lineage() == lineage
        except (UnavailableError, TransactionError) as error:
            _log.warning("cannot ask yet what became of transaction %s: %s", xid, error)
            time.sleep(_PAUSE_SECONDS * 4)
            continue
        if status in ("aborted", "unborn"):
            return False
        if status == "committed" and is_same:
            return True
        if status != "in progress":
            break
        time.sleep(_PAUSE_SECONDS)
    message = (f"the connection was lost during COMMIT and it cannot be told whether transaction {xid} took effect: look "
               "whether it did before you repeat it")
    raise OutcomeUnknownError(message)
