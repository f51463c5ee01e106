"""Keeping SQLite's write-ahead log short without making the writer wait for it.

A thread of its own copies the log into the file (PASSIVE, which blocks nobody) each time that it has grown by so much.
Beside a busy writer that seldom reaches the last frame, so once the log is long the writer finishes it between two
transactions, while it is its turn: the next one starts the log anew. Only a reader that keeps a transaction open can
prevent that, and is reported by what it does.
"""

import logging
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path

_log = logging.getLogger(__name__)

SOFT_BYTES = 4 * 1024 * 1024
HARD_BYTES = 16 * 1024 * 1024
_READERS_MS = 100
_RETRY_SECONDS = 1.0
_OTHER_COPY_SECONDS = 0.02
_REPORT_AFTER_SECONDS = 3.0
_REPORT_EVERY_SECONDS = 60.0
_MEGABYTE = 1024 * 1024


class WalKeeper:
    """Looks at the log after each commit, and has it copied when it is long."""

    def __init__(self, path: str) -> None:
        """Name the database file."""
        self._path = path
        self._wal = LogFile(path)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="durabletask-wal")
        self._copying: Future[None] | None = None
        self._generation = b""
        self._copy_at = SOFT_BYTES
        self._finish_at = 0.0
        self._stuck_since: float | None = None
        self._reported = 0.0
        self.is_due = False

    def after_commit(self, writer: sqlite3.Connection | None) -> None:
        """Look whether the log is long; never fails, since the commit has taken effect.

        `writer` None: it has no time to help, and `is_due` says that it should have.
        """
        try:
            self._look(writer)
        except OSError as error:
            _log.warning("the write-ahead log of %r cannot be looked at: %s", self._path, error)

    def _look(self, writer: sqlite3.Connection | None) -> None:
        generation = self._wal.look()
        if generation != self._generation:
            self._generation, self._copy_at = generation, SOFT_BYTES
            self._note_progress()
        if not self._wal.reaches(SOFT_BYTES):
            return
        if (self._copying is None or self._copying.done()) and self._wal.reaches(self._copy_at):
            self._copy_at += SOFT_BYTES
            self._copying = self._pool.submit(self._copy)
        if time.monotonic() >= self._finish_at and self._wal.reaches(HARD_BYTES):
            self.is_due = True
            if writer is not None:
                self._finish(writer)

    def close(self) -> None:
        """Wait for a copy that is under way."""
        self._pool.shutdown()
        self._wal.close()

    def _copy(self) -> None:
        """Copy what can be copied; the writer's next transaction starts the log anew when that was all."""
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                connection.close()
        except sqlite3.Error as error:
            _log.warning("the write-ahead log of %r could not be copied now: %s", self._path, error)

    def _finish(self, writer: sqlite3.Connection) -> None:
        """Copy the rest and have the log start anew; readers get a moment to end, others' copies too."""
        self.is_due = False
        if self._copying is not None:
            self._copying.result()
        writer.execute(f"PRAGMA busy_timeout={_READERS_MS}")
        try:
            busy, frames, _ = writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        except sqlite3.Error as error:
            _log.warning("the write-ahead log of %r could not be copied by its writer: %s", self._path, error)
            busy, frames = 1, 0
        finally:
            writer.execute("PRAGMA busy_timeout=0")
        now = time.monotonic()
        if busy and frames >= 0:
            self._finish_at = now + _RETRY_SECONDS
            self._note_stuck(now)
        else:  # done, or another process is copying
            self._finish_at = now + _OTHER_COPY_SECONDS

    def _note_stuck(self, now: float) -> None:
        if self._stuck_since is None:
            self._stuck_since = now
        lasted = now - self._stuck_since
        if lasted >= _REPORT_AFTER_SECONDS and (not self._reported or now - self._reported >= _REPORT_EVERY_SECONDS):
            self._reported = now
            _log.warning("the write-ahead log of %r has grown to %.0f MB and goes on growing: a read transaction that some "
                         "program has kept open for %.0f s or more keeps it from starting anew; end that program's read",
                         self._path, self._wal.size() / _MEGABYTE, lasted)

    def _note_progress(self) -> None:
        if self._reported:
            _log.info("the write-ahead log of %r has started anew", self._path)
        self._stuck_since, self._reported, self.is_due = None, 0.0, False


class LogFile:
    """A write-ahead log as a file. Its size says little, since the log starts anew in place.

    Each frame carries the salts of the header under which it was written: that tells the present log from what an
    earlier one left behind. (The file is never locked by its path, so it may be opened beside SQLite.)
    """

    _HEADER, _FRAME_HEADER = 32, 24

    def __init__(self, path: str) -> None:
        """Name the database file."""
        self._name = f"{path}-wal"
        self._file: FileIO | None = None
        self._frame = 0  # bytes of a frame; 0: there is no log yet
        self._salts = b""

    def _read(self, offset: int, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = FileIO(self._name)
        except FileNotFoundError:
            return b""
        self._file.seek(offset)
        return self._file.read(size)

    def look(self) -> bytes:
        """Read the header, on which `reaches` relies, and return what changes when the log starts anew."""
        header = self._read(0, self._HEADER)
        if len(header) == self._HEADER:
            self._frame = self._FRAME_HEADER + int.from_bytes(header[8:12], "big")
            self._salts = header[16:24]
        return self._salts

    def reaches(self, size: int) -> bool:
        """Tell whether the present log is at least so many bytes long."""
        if not self._frame:
            return False
        last = self._read(self._HEADER + (size // self._frame) * self._frame, self._FRAME_HEADER)
        return last[8:16] == self._salts

    def size(self) -> int:
        """Return how many bytes the file takes."""
        return Path(self._name).stat().st_size

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
