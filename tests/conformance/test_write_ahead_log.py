"""The write-ahead log of a SQLite file stays short; what keeps it from that is reported."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

import pytest

from durabletask_sql.storage import wal
from durabletask_sql.storage.dialect import SqliteCompiler
from durabletask_sql.storage.faults import WouldWaitError
from durabletask_sql.storage.sqlite import SqliteSession, connect

BLOB = 200_000
COMMITS = 4 * wal.HARD_BYTES // BLOB


@pytest.fixture
def path(tmp_path):
    found = str(tmp_path / "log.db")
    with sqlite3.connect(found) as connection:
        connection.execute("CREATE TABLE one (x)")
    connection.close()
    return found


@pytest.fixture
def session(path):
    opened = SqliteSession(path, SqliteCompiler(), writer=True)
    yield opened
    opened.close()


def write(session):
    session.begin(durable=False)
    session._connection.execute(f"INSERT INTO one VALUES (zeroblob({BLOB}))")
    session.commit()


def write_many(session):
    for _ in range(COMMITS):
        write(session)


def log_size(path):
    return Path(f"{path}-wal").stat().st_size


def test_a_busy_writer_with_readers_that_page_without_a_pause_keeps_it_short(session, path):
    ended = threading.Event()

    def page():
        reader, after = connect(path, writer=False), 0
        while not ended.is_set():
            rows = reader.execute("SELECT rowid FROM one WHERE rowid > ? LIMIT 20", (after,)).fetchall()
            after = rows[-1][0] if rows else 0
        reader.close()

    readers = [threading.Thread(target=page) for _ in range(2)]
    for reader in readers:
        reader.start()
    sizes = []
    for _ in range(COMMITS):
        write(session)
        sizes.append(log_size(path))
    ended.set()
    for reader in readers:
        reader.join()
    assert max(sizes) < 2 * wal.HARD_BYTES


def test_a_commit_on_the_event_loop_leaves_finishing_a_long_log_to_the_thread(session, path):
    reader = connect(path, writer=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM one").fetchone()
    session.may_wait = False
    with pytest.raises(WouldWaitError):
        write_many(session)
    assert wal.HARD_BYTES <= log_size(path) < wal.HARD_BYTES + 2 * BLOB
    reader.close()
    session.may_wait = True
    write(session)  # finishes the log
    session.may_wait = False
    write(session)
    assert log_size(path) < 2 * wal.HARD_BYTES


def test_a_reader_that_keeps_a_transaction_open_is_reported_and_so_is_its_end(session, path, caplog, monkeypatch):
    monkeypatch.setattr(wal, "_REPORT_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(wal, "_RETRY_SECONDS", 0.0)
    reader = connect(path, writer=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM one").fetchone()
    with caplog.at_level(logging.INFO, "durabletask_sql"):
        while "goes on growing" not in caplog.text:
            write(session)
            assert log_size(path) < 4 * wal.HARD_BYTES
        assert f"{path!r} has grown to" in caplog.text
        reader.close()
        while "has started anew" not in caplog.text:
            write(session)
            assert log_size(path) < 4 * wal.HARD_BYTES
    write(session)
    assert log_size(path) <= wal.HARD_BYTES + 2 * BLOB  # what a reader made of it is given back


def test_the_length_of_a_log_is_told_by_its_frames_and_not_by_its_size(session, path):
    log = wal.LogFile(path)
    for _ in range(10):
        write(session)
    before = log.look()
    assert log.reaches(9 * BLOB)
    assert not log.reaches(12 * BLOB)
    session._connection.execute("PRAGMA wal_checkpoint(RESTART)")
    write(session)
    assert log_size(path) > 9 * BLOB
    assert log.look() != before
    assert not log.reaches(2 * BLOB)
    assert log.reaches(BLOB // 2)
    log.close()
