"""The turn to write to a SQLite file, which goes round fairly among all processes that have it open.

SQLite's write lock is the truth, but whoever wants it has to try again and again, and a busy process then starves the
others. So the turn comes first: `flock` on a file beside the database, whose waiters the kernel serves in order. Where
that does not exist, and against programs that know nothing of it, SQLite's lock is tried at growing intervals.
"""

import errno
import logging
import os
import sqlite3
import struct
import threading
import time
from contextlib import suppress

from durabletask_sql.errors import UnavailableError
from durabletask_sql.ids import jitter
from durabletask_sql.storage.faults import WouldWaitError
from durabletask_sql.storage.sqlite_faults import is_busy, unavailable
from durabletask_sql.storage.writing_process import writing_process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

_log = logging.getLogger(__name__)

_FIRST_STEP_SECONDS = 0.0005
_LAST_STEP_SECONDS = 0.02
_LOOK_SECONDS = 0.2
_FIRST_REPORT_SECONDS = 0.5
_NEXT_REPORT_SECONDS = 5.0
_GIVE_WAY_SECONDS = 0.0002
_NOTE = struct.Struct("=q")  # when somebody last began to wait, on the machine's monotonic clock
_NO_FLOCK = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})


class WriterTurn:
    """One session's part in the turns: it begins a transaction when it is its turn, and hands the turn on afterwards."""

    def __init__(self, path: str) -> None:
        """Open the lock file, `<database>.writer`. Raises UnavailableError when it cannot be made."""
        self._path = path
        self._patience = _Patience(path)
        self._has_turn = False
        self._began = time.monotonic_ns()  # of the last turn
        self._waited = False  # for the last turn
        self._file: int | None = None
        if fcntl is not None:
            try:
                self._file = os.open(f"{path}.writer", os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                message = f"the lock file {path + '.writer'!r}, which hands on the turn to write, cannot be used: {error}"
                raise UnavailableError(message) from error

    def begin(self, connection: sqlite3.Connection, *, may_wait: bool) -> None:
        """Begin a write transaction, waiting for those of others; with `may_wait` False raise WouldWaitError instead."""
        self._take_turn(may_wait=may_wait)
        try:
            begun = self._begins(connection) or (may_wait and self._insists(connection))
        except BaseException:
            self.end()
            raise
        if not begun:
            self.end()
            raise WouldWaitError

    def _take_turn(self, *, may_wait: bool) -> None:
        if self._file is None:
            return
        if self._others_wait(self._file):
            if not may_wait:
                raise WouldWaitError
            time.sleep(_GIVE_WAY_SECONDS)
        self._waited = False
        if not self._lock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if not may_wait:
                raise WouldWaitError
            self._queue(self._file)
        self._began = time.monotonic_ns()

    def _others_wait(self, file: int) -> bool:
        """Tell whether somebody began to wait during this session's last turn, or was behind it in the queue.

        Whoever ends a turn would be the first to take the next one, as long as the others have to wake up.
        """
        note = os.pread(file, _NOTE.size, 0)
        return self._waited or (len(note) == _NOTE.size and self._began < _NOTE.unpack(note)[0] < time.monotonic_ns())

    def _queue(self, file: int) -> None:
        """Wait for a turn, leaving a note that somebody does."""
        with suppress(OSError):  # without a note, on a full disk, others may overtake
            os.pwrite(file, _NOTE.pack(time.monotonic_ns()), 0)
        self._patience.begin()
        try:
            self._lock(file, fcntl.LOCK_EX)
        finally:
            self._patience.end()
        self._waited = True

    def _lock(self, file: int, how: int) -> bool:
        """Lock the lock file; False when somebody else has it. Where that is impossible there are no turns."""
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                message = f"the turn to write to {self._path!r} cannot be taken: {error}"
                raise UnavailableError(message) from error
            _log.info("there is no flock where %r lies: its processes take turns at writing by chance", self._path)
            os.close(file)
            self._file = None
        else:
            self._has_turn = True
        return True

    def _begins(self, connection: sqlite3.Connection) -> bool:
        """Try to begin; False when a program that knows nothing of turns is writing."""
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if not is_busy(error):
                raise unavailable(error, self._path) from error
            return False
        return True

    def _insists(self, connection: sqlite3.Connection) -> bool:
        """Try until it begins."""
        self._patience.begin()
        step = _FIRST_STEP_SECONDS
        try:
            while not self._begins(connection):
                time.sleep(step * jitter())
                step = min(2 * step, _LAST_STEP_SECONDS)
        finally:
            self._patience.end()
        return True

    def end(self) -> None:
        """Hand the turn on, if this session has it."""
        if self._has_turn and self._file is not None:
            self._has_turn = False
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock file, which hands the turn on as well."""
        self._patience.close()
        self._has_turn = False
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _Patience:
    """Says how long a session has waited: what waits in `flock` cannot say it. Its thread begins with the first wait."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._since: float | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        self._since = time.monotonic()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="durabletask-patience", daemon=True)
            self._thread.start()

    def end(self) -> None:
        self._since = None

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        reported = 0.0
        while not self._closed.wait(_LOOK_SECONDS):
            since, now = self._since, time.monotonic()
            if since is not None and now - since >= _FIRST_REPORT_SECONDS and now - reported >= _NEXT_REPORT_SECONDS:
                reported = now
                _log.warning("%s has held the write lock of %r for %.1f s: nothing can be committed before its transaction "
                             "ends, nothing is lost; waiting: have it commit or roll back, or end it",
                             writing_process(self._path), self._path, now - since)
