"""What an error of SQLite's means: that the database cannot do it now, or that it refuses the item (invariant I12).

Only what is about the statement and its values is the item's own. The file, its disk and its locks are not: nobody is
set aside for them, and the work waits until somebody has seen to what the error says.
"""

import sqlite3

from durabletask_sql.errors import UnavailableError
from durabletask_sql.storage.faults import RefusedError

_RESTORE = ("stop all programs that have it open, keep a copy of it and its -wal file, and restore a backup, or what "
            "`sqlite3 FILE .recover` can save")
_WHAT_TO_DO = {
    sqlite3.SQLITE_BUSY: "",
    sqlite3.SQLITE_LOCKED: "",
    sqlite3.SQLITE_NOMEM: "give this process more memory",
    sqlite3.SQLITE_PERM: "let this user read and write it, and its folder",
    sqlite3.SQLITE_READONLY: "let this user write to it and its folder, and see whether its disk is mounted read-only",
    sqlite3.SQLITE_CANTOPEN: "see that its folder is there and can be written to, and that enough files may be open",
    sqlite3.SQLITE_IOERR: "look into its disk, and into the system's log",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_PROTOCOL: "see that it lies on a disk of this machine, and that no other program keeps its locks",
    sqlite3.SQLITE_NOTADB: f"something has written over it: {_RESTORE}",
    sqlite3.SQLITE_CORRUPT: f"it is damaged: {_RESTORE}",
}
_PRIMARY = 0xFF  # the rest of a code says more about the same kind of error


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another connection's transaction is in the way."""
    return _code(error) == sqlite3.SQLITE_BUSY


def unavailable(error: Exception, path: str, what: str = "cannot be used now") -> UnavailableError:
    """Return an error that is the database's, with what to do about it."""
    what_to_do = _WHAT_TO_DO.get(_code(error), "")
    return UnavailableError(f"the SQLite file {path!r} {what}: {error}" + (what_to_do and f"; {what_to_do}"))


def fault(error: Exception, path: str) -> UnavailableError | RefusedError:
    """Tell what the database refuses from what it cannot do now."""
    if _code(error) in _WHAT_TO_DO:
        return unavailable(error, path)
    return RefusedError(f"SQLite refuses it: {error}")


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)  # errors of the driver itself have none
    return code & _PRIMARY
