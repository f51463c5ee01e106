"""A connection with one transaction at a time: statements are sent, flushed together, and read.

Both databases have the same interface. On SQLite a statement runs when it is sent; on PostgreSQL statements are
pipelined and `flush` waits for all of them in one round trip.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from durabletask_sql.errors import UnavailableError
from durabletask_sql.storage.dialect import Executable, Row, Statement
from durabletask_sql.storage.faults import RefusedError, TransactionError

T = TypeVar("T")


@dataclass(slots=True)
class Reply:
    """What a statement gave; complete after the flush."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    count: int = 0


class Session(Protocol):
    """One connection. Methods raise the errors of `faults`; after any of them the transaction is rolled back."""

    def lineage(self) -> str:
        """Connect, if the connection was lost, and return which server that is to, since which start or recovery of it.

        As long as it is the same nothing that a transaction saw or wrote there has been undone by a crash or a failover.
        It may also be another without such a cause: after an orderly restart, or a reset of the server's statistics.
        Raises UnavailableError when there is no connection to be had.
        """
        ...

    def begin(self, *, lock_timeout_ms: int | None = None, durable: bool = True) -> None:
        """Begin a write transaction; `durable` False: its loss in a crash of the database does no harm."""
        ...

    def begin_snapshot(self) -> None:
        """Begin a transaction that only reads and whose statements all see one state; `rollback` ends it."""
        ...

    def send(self, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> Reply:
        """Send a statement (with the rows of its source); the reply is filled at the latest by `flush`."""
        ...

    def flush(self) -> None:
        """Wait until everything that was sent is answered."""
        ...

    def commit(self) -> None:
        """Flush and commit, in one round trip."""
        ...

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        ...

    def ask(self, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> list[tuple[Any, ...]]:
        """Run one statement, inside the open transaction or alone, and return its rows."""
        ...

    def execute(self, statement: Executable, parameters: Mapping[str, object] | None = None) -> Reply:
        """Run a statement that is built for the occasion (queries with optional conditions)."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def repeated(session: Session, work: Callable[[], T]) -> T:
    """Run what may be repeated: once more, on a fresh connection if the first try lost its own.

    Raises UnavailableError when that fails as well, or at once when the database refuses it, and no other error: loops
    that must not end rely on it.
    """
    try:
        return work()
    except RefusedError as error:
        raise UnavailableError(str(error)) from error
    except TransactionError:
        session.rollback()
    try:
        return work()
    except TransactionError as error:
        raise UnavailableError(str(error)) from error


def asked(session: Session, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object
          ) -> list[tuple[Any, ...]]:
    """Run a statement that may be repeated; likewise."""
    return repeated(session, lambda: session.ask(statement, rows, **scalars))


def written(session: Session, statement: Statement, rows: Sequence[Row] = (), /, **scalars: object) -> None:
    """Run a writing statement that may be repeated in a transaction of its own; likewise."""
    def work() -> None:
        session.begin()
        session.send(statement, rows, **scalars)
        session.commit()

    repeated(session, work)
