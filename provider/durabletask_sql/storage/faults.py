"""What can go wrong inside a transaction, as the commit path tells it apart. Internal to storage."""


class TransactionError(Exception):
    """Base: the transaction was rolled back (or is unknown, where said) and nothing of it remains."""


class WouldWaitError(Exception):
    """A session that may not wait would have to, for another process's transaction; nothing was changed."""


class LockTimeoutError(TransactionError):
    """Another session held a row of `table` for longer than the lock timeout."""

    def __init__(self, table: str, detail: str) -> None:
        """Name the table whose statement waited."""
        super().__init__(f"a row of {table} is locked by another session: {detail}")
        self.table = table


class ShortWriteError(TransactionError):
    """A counted write on `table` met fewer rows than its items name."""

    def __init__(self, table: str) -> None:
        """Name the table."""
        super().__init__(f"rows of {table} that an item needs are gone or taken")
        self.table = table


class ConflictError(TransactionError):
    """A deadlock or a serialization failure: the whole transaction may be repeated."""


class RefusedError(TransactionError):
    """The database refuses a statement or a value, whatever the company."""


class ConnectionLostError(TransactionError):
    """The connection is gone. `sent`: inside a write transaction, so that its outcome is unknown."""

    def __init__(self, detail: str, *, sent: bool) -> None:
        """Say whether anything had been sent."""
        super().__init__(detail)
        self.sent = sent


class CommitWarningError(ConnectionLostError):
    """COMMIT came back with a warning: it took effect here, but perhaps not where it should have been copied to."""


def one_line(error: object) -> str:
    """Return what a driver says, which may be several lines, as one."""
    return "; ".join(line.strip() for line in str(error).strip().splitlines())
