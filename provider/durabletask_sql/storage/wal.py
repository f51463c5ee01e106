"""Keeping SQLite's write-ahead log short without making the writer wait for it.

A thread of its own copies the log into the file (PASSIVE, which blocks nobody) whenever the log has grown; only when it
has grown far beyond that, because readers or the writer were always in the way, does the writer help between two
transactions.
"""

import logging
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_log = logging.getLogger(__name__)

SOFT_BYTES = 4 * 1024 * 1024
HARD_BYTES = 16 * 1024 * 1024
_COMMITS_BETWEEN_LOOKS = 16


class WalKeeper:
    """Looks at the log's size after commits, and has it copied when it is long."""

    def __init__(self, path: str) -> None:
        """Name the database file."""
        self._path = path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="durabletask-wal")
        self._running: Future[None] | None = None
        self._commits = 0

    def after_commit(self, writer: sqlite3.Connection | None) -> None:
        """Note a commit; now and then look whether the log is long. `writer` is None when it has no time to help."""
        self._commits += 1
        if self._commits % _COMMITS_BETWEEN_LOOKS:
            return
        try:
            size = Path(f"{self._path}-wal").stat().st_size
        except FileNotFoundError:
            return
        if size < SOFT_BYTES:
            return
        if self._running is None or self._running.done():
            self._running = self._pool.submit(self._copy)
        elif size >= HARD_BYTES and writer is not None:
            self._running.result()
            writer.execute("PRAGMA wal_checkpoint(RESTART)")

    def close(self) -> None:
        """Wait for a copy that is under way."""
        self._pool.shutdown()

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
